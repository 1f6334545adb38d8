"""Generation: the network's answer to a question, its probability, and the weight of each token as evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

# (layer, head) pairs, each counted from 0.
Heads = Sequence[tuple[int, int]]


class Grammar(Protocol):
    """Constraint on an answer while it is decoded."""

    def allowed(self, text: str) -> Sequence[int]:
        """Ids that may follow `text`, including the end token if the text may end here. Not empty."""
        ...


@dataclass(frozen=True)
class WindowScores:
    """What a network without an evidence head tells about each window of its memory, to choose heads by.

    Attributes:
        start_ns: (n,) int64, stamp at which each window begins.
        attention: (layers, heads, n) float32, attention of the answer position to each window.
        sufficiency: (n,) float32, see `model/evidence_windows.py`. NaN for windows that were not compared.
    """

    start_ns: Tensor
    attention: Tensor
    sufficiency: Tensor


@dataclass(frozen=True)
class Generation:
    """An answer and its evidence. T counts the visual tokens of the view, then its audio tokens.

    Attributes:
        text: the answer without special tokens.
        token_ids: generated ids, including the end token if there was one.
        token_logprobs: log-probability of each id.
        attention: (T,) float32, attention of the answer position (last row of the prompt) to each memory token,
            averaged over the heads that were wanted, over all heads if none were.
        grounded: (T,) float32, weight of each memory token as evidence, see `model/evidence_windows.py`. None with an
            evidence head, or if there was no time.
        sufficiency: how much likelier the answer is with the best window alone readable than with nothing readable, in
            log-likelihood per token of the answer. None with an evidence head.
        windows: figures of each window. None unless wanted, and with an evidence head.
        focus: share of the attention to the memory that goes to the window with the most. None with an evidence head.
        spare_s: seconds that went into work for which there was time to spare.
        shown: probability of "yes, the memory shows what is asked about". None if the network was not asked.
        shown_blind: the same with nothing of the memory readable: what the network says whatever it was shown.
        reader_score: (T,) float32, mean score by the reader, -inf if every layer dropped the token. None without one.
        pointer: (T,) float32, probability that the evidence head gives each memory token. None without the head.
        null_weight: the head's probability of "nothing in memory". None without the head.
        matching: (T,) bool, tokens that match the question on their own, according to the evidence head, even if it
            does not point at them. None without the head.
        stopped: whether `should_stop` ended the answer.
        option_logprobs: (n,) float32, log-likelihood per token of each option and its end token. None without options.
        value: text decoded under the grammar. None without a grammar, or if stopped before its end.
        value_logprob: log-probability of `value` among the texts of the grammar.
    """

    text: str
    token_ids: list[int]
    token_logprobs: list[float]
    attention: Tensor
    reader_score: Tensor | None = None
    pointer: Tensor | None = None
    null_weight: float | None = None
    matching: Tensor | None = None
    stopped: bool = False
    option_logprobs: Tensor | None = None
    value: str | None = None
    value_logprob: float = 0.0
    grounded: Tensor | None = None
    shown: float | None = None
    shown_blind: float | None = None
    sufficiency: float | None = None
    focus: float | None = None
    windows: WindowScores | None = None
    spare_s: float = 0.0
