"""Answer generator: build a prompt from a question and a view, read it with the language model, decode an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from salmonn_node.model.answer_decoder import AnswerDecoder
from salmonn_node.model.assembly import Prompt, embed_prompt, prompt_of, question_ids
from salmonn_node.model.cached_prefill import CachedPrefill
from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.evidence_windows import (
    CANDIDATES,
    Rereading,
    Windows,
    can_reread,
    log_likelihoods,
    sufficiencies,
)
from salmonn_node.model.generation import Generation, Grammar, Heads
from salmonn_node.model.network import Network
from salmonn_node.model.reader import read
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.tokenizer import TextTokenizer
from salmonn_node.model.windows_alone import Spare, affordable, sufficiencies_alone


class AnswerGenerator:
    """Answer questions, one at a time. Any thread may ask.

    Args:
        config: configuration of the network.
        network: language model and heads.
        tokenizer: tokenizer of the checkpoint.
        prefill: reads questions with a view's prefill cache. None with `prefill: exact`.
    """

    def __init__(
        self, config: SalmonnConfig, network: Network, tokenizer: TextTokenizer, prefill: CachedPrefill | None
    ) -> None:
        self.config, self.network, self.tokenizer, self.prefill = config, network, tokenizer, prefill
        self._turn = threading.Lock()

    def prompt(self, question: str, view: SceneView) -> Prompt:
        """Return the prompt of a question, with special tokens in its text escaped. `len` is its number of tokens.

        Raises:
            TypeError: the view was not made by a `SceneBuilder`.
        """
        if not isinstance(view, SceneView):
            raise TypeError(f"view: expected a SceneView, got {type(view).__name__}")
        return prompt_of(view, self.tokenizer.escape(question), self.tokenizer, self.config)

    @torch.no_grad()
    def read(self, question: str, view: SceneView) -> AnswerDecoder:
        """Read the prompt of a question once. Use the returned decoder to answer it."""
        prompt = self.prompt(question, view)
        if self.prefill is not None and view.prefill is not None and self.prefill.usable(prompt):
            reading = self.prefill.read(view.prefill, prompt, view)
        else:
            tokens = embed_prompt(prompt, view, self.network.language)
            reading = read(self.network.language, prompt, tokens, self.config.reader)
        return AnswerDecoder(self.network, self.tokenizer, view, prompt, reading)

    @torch.no_grad()
    def answer(
        self,
        question: str,
        view: SceneView,
        *,
        max_new_tokens: int = 512,
        should_stop: Callable[[], bool] = lambda: False,
        on_text: Callable[[str], None] | None = None,
        options: Sequence[str] = (),
        grammar: Grammar | None = None,
        shown: str = "",
        spare: Spare = lambda seconds: False,
        heads: Heads = (),
        scored_windows: int = 0,
    ) -> Generation:
        """Answer a question from a view, greedily. Reads the prompt once and does not change the memory.

        Args:
            question: user text.
            view: what the question may see.
            max_new_tokens: maximum length of the answer, at least 1.
            should_stop: called before each token and each further pass. True ends the answer.
            on_text: called with each new piece of text.
            options: texts to compare as whole answers, see `Generation.option_logprobs`.
            grammar: grammar of a second, typed answer, see `Generation.value`.
            shown: a yes-or-no question: does the memory show what is asked about? See `Generation.shown`.
            spare: whether there are so many seconds to spare. If there are, a network without an evidence head reads
                the windows of the memory anew, see `model/windows_alone.py`.
            heads: attention heads that propose evidence. None of them means all.
            scored_windows: if not 0, compare so many windows over the cached memory and return `Generation.windows`.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected at least 1, got {max_new_tokens}")
        with self._turn:
            decoder = self.read(question, view)
            found: dict[str, Any] = {}
            if options:
                ids = self._option_ids(options)
                lengths = torch.tensor([len(option) for option in ids])
                found["option_logprobs"] = decoder.score(ids) / lengths
            if grammar is not None:
                found["value"], found["value_logprob"] = decoder.constrained(grammar, should_stop)
            generation = replace(decoder.decode(max_new_tokens, should_stop, on_text, heads), **found)
            if self.network.evidence is None and can_reread(decoder) and not generation.stopped and not should_stop():
                generation = self._grounded(
                    decoder, question, generation, options, shown, should_stop, spare, scored_windows
                )
            return generation

    def _grounded(
        self,
        decoder: AnswerDecoder,
        asked: str,
        generation: Generation,
        options: Sequence[str],
        shown: str,
        should_stop: Callable[[], bool],
        spare: Spare,
        scored_windows: int,
    ) -> Generation:
        """Find evidence for a network that has no evidence head, and ask the network whether there is any."""
        answer = generation.token_ids
        if options and generation.option_logprobs is not None:
            answer = self._option_ids(options)[int(generation.option_logprobs.argmax())]
        windows = Windows.of(decoder.view, generation.attention)
        compared = windows.heaviest(max(CANDIDATES, scored_windows))
        scores = sufficiencies(decoder, windows, compared, answer, should_stop)
        if scores is None:
            return replace(generation, stopped=True)
        total = float(windows.mass.sum())
        found: dict[str, Any] = {}
        if scored_windows:
            found["windows"] = windows.scored(decoder.attention_by_head(), compared, scores)
        compared, scores = compared[:CANDIDATES], scores[:CANDIDATES]
        found |= {
            "sufficiency": float(scores.max()) / len(answer),
            "focus": float(windows.mass.max()) / total if total > 0 else 0.0,
        }
        if shown:
            chat, everything = self.config.chat, torch.ones(len(decoder.view), dtype=torch.bool)
            question = question_ids(shown, self.tokenizer, self.config)
            words = self._option_ids((chat.yes, chat.no))
            asked_twice = [Rereading(question, ids, seen) for seen in (everything, ~everything) for ids in words]
            said = torch.softmax(log_likelihoods(decoder, asked_twice).view(2, 2), dim=1)
            found |= {"shown": float(said[0, 0]), "shown_blind": float(said[1, 0])}
        if self.prefill is None:
            began, wider = time.monotonic(), affordable(decoder, windows, answer)
            alone = sufficiencies_alone(
                decoder,
                lambda part: self.prompt(asked, part),
                windows,
                wider,
                answer,
                lambda seconds: not should_stop() and spare(seconds),
            )
            if alone is not None:
                compared, scores = wider, alone
            found["spare_s"] = time.monotonic() - began
        found["grounded"] = windows.weights(compared, scores)
        return replace(generation, **found)

    @torch.no_grad()
    def score(self, question: str, options: Sequence[str], view: SceneView) -> Tensor:
        """(n,) float32: log-likelihood of each option as the whole answer, including its end token.

        Raises:
            ValueError: no options.
        """
        if not options:
            raise ValueError("options: expected at least one")
        with self._turn:
            return self.read(question, view).score(self._option_ids(options))

    def _option_ids(self, options: Sequence[str]) -> list[list[int]]:
        end = self.tokenizer.specials.im_end
        return [[*self.tokenizer.encode(self.tokenizer.escape(option)), end] for option in options]
