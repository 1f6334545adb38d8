"""Answer decoder: greedy decoding, likelihood of given answers, and typed values, after the prompt has been read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from salmonn_node.model.assembly import Prompt
from salmonn_node.model.evidence_head import MATCHES, Pointing
from salmonn_node.model.generation import Generation, Grammar, Heads
from salmonn_node.model.language import PromptTokens
from salmonn_node.model.network import Network
from salmonn_node.model.reader import Reading
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.tokenizer import TextTokenizer


class AnswerDecoder:
    """Decode and score answers to one prompt that has been read.

    Args:
        network: the network that read the prompt.
        tokenizer: tokenizer of the checkpoint.
        view: the view that the prompt was made from.
        prompt: the question's prompt.
        reading: the result of reading the prompt. Only `decode` changes its cache.
    """

    def __init__(
        self, network: Network, tokenizer: TextTokenizer, view: SceneView, prompt: Prompt, reading: Reading
    ) -> None:
        self.network, self.tokenizer, self.view = network, tokenizer, view
        self.prompt, self.reading = prompt, reading
        self.memory_rows = (prompt.memory >= 0).nonzero()[:, 0]
        self._recalled = self._recall()

    def logits(self, hidden: Tensor) -> tuple[Tensor, Pointing | None]:
        """Map hidden states at answer positions (Q, D) to logits (Q, vocabulary), and return where they point."""
        pointing = None
        added = torch.zeros_like(hidden)
        if self.network.evidence is not None and len(self.memory_rows):
            rows = self.memory_rows.to(hidden.device)
            frame = self.prompt.block[self.memory_rows].to(hidden.device)
            pointing = self.network.evidence(hidden, self.reading.hidden[rows], frame)
            added = added + pointing.context
        if self._recalled is not None:
            added = added + self._recalled
        return self.network.language.logits(hidden + added), pointing

    def _recall(self) -> Tensor | None:
        layer, state = self.network.ttt, self.view.fast_weights
        if self.network.recall is None or layer is None or state is None:
            return None
        return self.network.recall(self.reading.hidden[self.prompt.question_start :], layer, state)

    def decode(
        self,
        max_new_tokens: int,
        should_stop: Callable[[], bool],
        on_text: Callable[[str], None] | None,
        heads: Heads = (),
    ) -> Generation:
        """Decode greedily until the end token, the limit, or `should_stop`. `heads`: see `Generation.attention`."""
        cache, language = self.reading.cache, self.network.language
        ends = {self.tokenizer.specials.im_end, *self.tokenizer.ends}
        ids: list[int] = []
        logprobs: list[float] = []
        logits, pointing = self.logits(self.reading.hidden[-1:])
        shown, stopped = "", False
        while len(ids) < max_new_tokens:
            if should_stop():
                stopped = True
                break
            scores = torch.log_softmax(logits[-1], dim=-1)
            ids.append(int(scores.argmax()))
            logprobs.append(float(scores[ids[-1]]))
            if ids[-1] in ends:
                break
            if on_text is not None:
                shown = _tell(on_text, shown, self.tokenizer.decode(ids))
            if len(ids) < max_new_tokens:
                step = self._token(ids[-1], self.prompt.next_position + len(ids) - 1)
                logits, _ = self.logits(language(step, cache))
        total = len(self.view)
        pointer = null = matching = None
        if pointing is not None:
            places = self.prompt.memory[self.memory_rows]
            pointer, matching = torch.zeros(total), torch.zeros(total, dtype=torch.bool)
            pointer[places] = pointing.weights[0].float().cpu()
            matching[places] = pointing.match[0].cpu() > MATCHES
            null = float(pointing.null[0])
        return Generation(
            self.tokenizer.decode(ids),
            ids,
            logprobs,
            self._attention(heads),
            self._reader_score(),
            pointer,
            null,
            matching,
            stopped,
        )

    def score(self, options: Sequence[Sequence[int]]) -> Tensor:
        """(n,) float32 log-likelihood of each option's ids as the whole answer.

        One pass over the shared cache scores all options. A mask lets each option see only the prompt and itself. The
        cache does not change.
        """
        cache, language = self.reading.cache, self.network.language
        first = torch.log_softmax(self.logits(self.reading.hidden[-1:])[0][-1], dim=-1)
        totals = torch.stack([first[option[0]] for option in options])
        # Row i of the pass predicts target i, which belongs to option owner[i].
        read = [token for option in options for token in option[:-1]]
        if read:
            device, length = language.lm_head.weight.device, len(cache)
            ids = torch.tensor(read, device=device)
            targets = torch.tensor([t for option in options for t in option[1:]], device=device)
            owner = torch.tensor([n for n, option in enumerate(options) for _ in option[1:]], device=device)
            step = torch.tensor([i for option in options for i in range(len(option) - 1)], device=device)
            own = (owner[:, None] == owner[None]) & (step[None] <= step[:, None])
            mask = torch.cat([own.new_ones(len(ids), length), own], dim=1)[None, None]
            where = (step + self.prompt.next_position).expand(3, -1)
            flags = torch.zeros(len(ids), dtype=torch.bool, device=device)
            hidden = language(PromptTokens(language.embed(ids), where, flags), cache, mask=mask)
            cache.truncate(length)
            scores = torch.log_softmax(self.logits(hidden)[0], dim=-1).gather(1, targets[:, None])[:, 0]
            totals = totals.index_add(0, owner, scores)
        return totals.float().cpu()

    def constrained(self, grammar: Grammar, should_stop: Callable[[], bool]) -> tuple[str | None, float]:
        """Decode greedily among the tokens that a grammar allows. Return the text and its log-probability among them.

        The cache does not change. The text is None if `should_stop` ended the decoding.
        """
        cache, language, end = self.reading.cache, self.network.language, self.tokenizer.specials.im_end
        length, total = len(cache), 0.0
        ids: list[int] = []
        logits, _ = self.logits(self.reading.hidden[-1:])
        while not should_stop():
            text = self.tokenizer.decode(ids)
            allowed = torch.tensor(grammar.allowed(text), device=logits.device)
            scores = torch.log_softmax(logits[-1][allowed], dim=-1)
            best = int(scores.argmax())
            total += float(scores[best])
            if int(allowed[best]) == end:
                cache.truncate(length)
                return text, total
            ids.append(int(allowed[best]))
            logits, _ = self.logits(language(self._token(ids[-1], self.prompt.next_position + len(ids) - 1), cache))
        cache.truncate(length)
        return None, 0.0

    def _token(self, token: int, position: int) -> PromptTokens:
        language = self.network.language
        ids = torch.tensor([token], device=language.lm_head.weight.device)
        where = torch.full((3, 1), position, device=ids.device)
        return PromptTokens(language.embed(ids), where, torch.zeros(1, dtype=torch.bool, device=ids.device))

    def attention_by_head(self) -> Tensor:
        """(layers, heads, T) float32: attention of the last row of the prompt to each memory token."""
        by_row = self.reading.record.by_head(self.reading.rows, len(self.prompt)).cpu()
        total = by_row.new_zeros(*by_row.shape[:2], len(self.view))
        total[..., self.prompt.memory[self.memory_rows]] = by_row[..., self.memory_rows]
        return total

    def _attention(self, heads: Heads) -> Tensor:
        """(T,) attention to memory tokens, averaged over these heads, over all if there are none."""
        if heads:
            layer, head = torch.tensor(heads).T
            return self.attention_by_head()[layer, head].mean(0)
        total = torch.zeros(len(self.view))
        by_row = self.reading.record.mean(self.reading.rows, len(self.prompt)).cpu()
        total[self.prompt.memory[self.memory_rows]] = by_row[self.memory_rows]
        return total

    def _reader_score(self) -> Tensor | None:
        if self.reading.scores is None:
            return None
        total = torch.full((len(self.view),), -torch.inf)
        total[self.prompt.memory[self.memory_rows]] = self.reading.scores[self.memory_rows].float().cpu()
        return total


def _tell(on_text: Callable[[str], None], shown: str, text: str) -> str:
    """Pass on new text. A character whose bytes are incomplete waits for the next token."""
    if text.endswith("\ufffd") or len(text) <= len(shown):
        return shown
    on_text(text[len(shown) :])
    return text
