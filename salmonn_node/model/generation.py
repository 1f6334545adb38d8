"""What the network gives back for a question: the answer, its probability, and how much it rests on each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Grammar(Protocol):
    """What an answer is held to while it is decoded."""

    def allowed(self, text: str) -> Sequence[int]:
        """Ids that may follow `text`, the end token among them where it may end; not empty."""
        ...


@dataclass(frozen=True)
class Generation:
    """An answer and what it rests on; T counts the view's visual tokens, then its audio tokens.

    Attributes:
        text: the answer without special tokens.
        token_ids: generated ids, the end token included when there was one.
        token_logprobs: log-probability of each.
        attention: (T,) float32 attention of the answer position (the prompt's last row) on each memory token, averaged
            over layers and heads.
        grounded: (T,) float32 weight of each memory token as evidence, see `model/evidence_windows.py`; None with an
            evidence head, or when there was no time.
        shown: probability that the network says the memory shows what is asked about; None when it was not asked.
        reader_score: (T,) float32 mean score by the reader, -inf where every layer dropped the token; None without.
        pointer: (T,) float32 probability that the evidence head gives each memory token; None without the head.
        null_weight: its probability of "nothing in memory"; None without the head.
        matching: (T,) bool, tokens that show what is asked for by what the evidence head makes of each alone, whether
            or not it points at them; None without the head.
        stopped: whether `should_stop` ended it.
        option_logprobs: (n,) float32 log-likelihood of each option per token, its end token included; None without.
        value: the text that the grammar held the network to; None without a grammar, or when stopped before its end.
        value_logprob: its log-probability among the texts of the grammar.
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
