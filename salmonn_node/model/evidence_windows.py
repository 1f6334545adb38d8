"""Evidence windows: for a network without an evidence head, find the two seconds that make its answer likely.

The attention of the answer position proposes windows. For each window, the network reads the question again over the
cached memory, and sees only that window. The sufficiency of a window is the log-likelihood of the answer in that pass,
minus the log-likelihood with nothing visible. Keys and values of the memory are reused, so a window only costs the rows
of question and answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.model.answer_decoder import AnswerDecoder
from salmonn_node.model.generation import WindowScores
from salmonn_node.model.language import PromptTokens
from salmonn_node.model.prompt import text_positions
from salmonn_node.model.scene_view import SceneView
from salmonn_node.stream.observations import SECOND_NS

WINDOW_NS = 2 * SECOND_NS
# Number of windows to compare. The evidence is almost always among the first 8 that attention proposes.
CANDIDATES = 8


@dataclass(frozen=True)
class Rereading:
    """A question to read again over a cached memory.

    Attributes:
        question: ids of the prompt rows after the memory, up to the answer.
        answer: ids to score, at least one.
        readable: (T,) bool, which memory tokens of the view the question may attend to.
    """

    question: Sequence[int]
    answer: Sequence[int]
    readable: Tensor


def can_reread(decoder: AnswerDecoder) -> bool:
    """Whether all layers cache the same rows. The prompt-dependent reader keeps different rows in each layer."""
    rows = decoder.reading.rows
    return len(decoder.view) > 0 and all(index is rows[0] for index in rows)


@torch.no_grad()
def log_likelihoods(
    decoder: AnswerDecoder, rereadings: Sequence[Rereading], should_stop: Callable[[], bool] = lambda: False
) -> Tensor:
    """(n,) float32: log-likelihood of each answer. Generated rows leave the cache; the rows of the prompt stay.

    `should_stop` is called before each pass. If it says True, the answers that were not scored are left out.

    Raises:
        ValueError: an answer has no tokens.
    """
    if any(not r.answer for r in rereadings):
        raise ValueError("rereadings: expected answers of at least one token")
    language = decoder.network.language
    decoder.reading.cache.truncate(len(decoder.reading.rows[0]))
    totals: list[Tensor] = []
    batch: list[Rereading] = []
    rows = 0
    for r in rereadings:
        length = len(r.question) + len(r.answer) - 1
        if batch and rows + length > language.chunk:
            if should_stop():
                break
            totals.append(_pass(decoder, batch))
            batch, rows = [], 0
        batch.append(r)
        rows += length
    if batch and not should_stop():
        totals.append(_pass(decoder, batch))
    return torch.cat(totals) if totals else torch.zeros(0)


def _pass(decoder: AnswerDecoder, batch: Sequence[Rereading]) -> Tensor:
    """Run one pass over the cache. A mask separates the rereadings and hides what each may not read."""
    language, prompt, cache = decoder.network.language, decoder.prompt, decoder.reading.cache
    device, row = language.lm_head.weight.device, decoder.reading.rows[0]
    first = question_row(decoder)
    lengths = [len(r.question) + len(r.answer) - 1 for r in batch]
    ids = torch.tensor([i for r in batch for i in (*r.question, *r.answer[:-1])], device=device)
    owner = torch.repeat_interleave(torch.arange(len(batch)), torch.tensor(lengths))
    step = torch.cat([torch.arange(length) for length in lengths])
    memory = prompt.memory[row]
    text = (memory < 0) & (row < first)
    seen = torch.stack([text | ((memory >= 0) & r.readable[memory]) for r in batch])
    own = (owner[:, None] == owner[None]) & (step[None] <= step[:, None])
    mask = torch.cat([seen[owner], own], dim=1)[None, None].to(device)
    where = text_positions(int(prompt.positions[0, first]), max(lengths))[:, step].to(device)
    visual = torch.zeros(len(ids), dtype=torch.bool, device=device)
    hidden = language(PromptTokens(language.embed(ids), where, visual), cache, mask=mask)
    cache.truncate(len(row))
    asked = torch.tensor([len(r.question) for r in batch])
    predicts = step >= asked[owner] - 1
    targets = torch.tensor([i for r in batch for i in r.answer], device=device)
    scores = torch.log_softmax(decoder.logits(hidden[predicts.to(device)])[0], dim=-1)
    picked = scores.gather(1, targets[:, None])[:, 0].float().cpu()
    return torch.zeros(len(batch)).index_add_(0, owner[predicts], picked)


def question_row(decoder: AnswerDecoder) -> int:
    """First row of the prompt after the memory."""
    return int((decoder.prompt.block >= 0).nonzero()[-1, 0]) + 1


@dataclass(frozen=True)
class Windows:
    """The windows of a view in which something was observed.

    Attributes:
        attention: (T,) float32, attention of the answer position to each memory token.
        start_ns: (n,) int64, stamp at which each window begins.
        place: (T,) int64, number of the window of each memory token, counted from 0.
        mass: (n,) float32, attention to each window.
    """

    attention: Tensor
    start_ns: Tensor
    place: Tensor
    mass: Tensor

    @classmethod
    def of(cls, view: SceneView, attention: Tensor) -> Windows:
        """Divide a view into windows. `attention` (T,) proposes which of them to compare."""
        numbers, place = windows_of(view).unique(return_inverse=True)
        mass = torch.zeros(len(numbers)).index_add_(0, place, attention)
        return cls(attention, numbers * WINDOW_NS, place, mass)

    def scored(self, by_head: Tensor, compared: Tensor, sufficiency: Tensor) -> WindowScores:
        """Return the figures of each window.

        Args:
            by_head: (layers, heads, T) float32, attention to each memory token.
            compared: (k,) int64, windows.
            sufficiency: (k,) float32, their sufficiencies.
        """
        count = len(self.mass)
        attention = by_head.new_zeros(*by_head.shape[:2], count).index_add_(2, self.place, by_head)
        every = torch.full((count,), torch.nan)
        every[compared] = sufficiency
        return WindowScores(self.start_ns, attention, every)

    def heaviest(self, count: int) -> Tensor:
        """Windows with the most attention, heaviest first: (min(count, n),) int64."""
        return self.mass.topk(min(count, len(self.mass))).indices

    def tokens(self, window: int) -> Tensor:
        """(T,) bool: memory tokens of a window."""
        return self.place == window

    def weights(self, compared: Tensor, sufficiency: Tensor) -> Tensor:
        """(T,) float32: weight of each memory token as evidence. The weights sum to one, or are all zero.

        The weight of a window comes from a softmax over sufficiency plus the logarithm of its attention: attention
        says how likely a window is at first, and sufficiency how well it explains the answer. Attention distributes the
        weight over the window's tokens. Windows that were not compared get nothing.

        Args:
            compared: (k,) int64, windows.
            sufficiency: (k,) float32, their sufficiencies.
        """
        share = torch.zeros(len(self.mass))
        mass = self.mass.clamp_min(torch.finfo(self.mass.dtype).tiny)
        share[compared] = torch.softmax(sufficiency + mass[compared].log(), dim=0)
        return self.attention * (share / mass)[self.place]


def sufficiencies(
    decoder: AnswerDecoder,
    windows: Windows,
    compared: Tensor,
    answer: Sequence[int],
    should_stop: Callable[[], bool] = lambda: False,
) -> Tensor | None:
    """(k,) float32: sufficiency of each window for an answer, over the cached memory. None if stopped.

    Args:
        decoder: decoder of the prompt.
        windows: windows of its view.
        compared: (k,) int64, windows to compare.
        answer: ids of the network's answer.
        should_stop: called before each pass.
    """
    question = decoder.prompt.ids[question_row(decoder) :].tolist()
    nothing = torch.zeros_like(windows.place, dtype=torch.bool)
    readable = [nothing, *(windows.tokens(int(n)) for n in compared)]
    scores = log_likelihoods(decoder, [Rereading(question, answer, tokens) for tokens in readable], should_stop)
    return scores[1:] - scores[0] if len(scores) == len(readable) else None


def windows_of(view: SceneView) -> Tensor:
    """(T,) int64: number of the two-second window in which each memory token was observed."""
    batches: list[TokenBatch] = [batch for batch in (view.visual, view.audio) if batch is not None]
    return torch.cat([batch.stamp_ns for batch in batches]).div(WINDOW_NS, rounding_mode="floor")
