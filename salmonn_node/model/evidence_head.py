"""The evidence head: at the answer it points at memory tokens, and what it points at joins the answer's hidden state.

Not part of video-SALMONN S. The pointer is the grounding that the node returns; its weight on "nothing" is the sign
of abstention.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Pointing:
    """Where an answer points.

    Attributes:
        weights: (Q, T) probability of each memory token.
        null: (Q,) probability of none; weights and null sum to one.
        context: (Q, D) what was read, to be added to the answer's hidden states.
    """

    weights: Tensor
    null: Tensor
    context: Tensor


class EvidenceHead(nn.Module):
    """Pointer over memory with a learned null, and a context read: half at the token, half over its frame."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.null_key = nn.Parameter(torch.zeros(hidden_size))
        self.scale = hidden_size**-0.5

    def forward(self, answer: Tensor, memory: Tensor, frame: Tensor) -> Pointing:
        """Point from answer positions.

        Args:
            answer: (Q, D) hidden states at answer positions.
            memory: (T, D) hidden states of the memory tokens in the prompt.
            frame: (T,) int64, tokens with equal numbers belong to one frame (or one stretch of sound).
        """
        query = self.query(answer)
        keys = torch.cat([self.key(memory), self.null_key[None]])
        weights = torch.softmax(query.float() @ keys.float().T * self.scale, dim=-1)
        pointed, null = weights[:, :-1], weights[:, -1]
        values = self.value(memory).float()
        context = pointed @ values
        if len(frame):
            _, group = torch.unique(frame, return_inverse=True)
            groups = int(group.max()) + 1
            mass = pointed.new_zeros(len(pointed), groups).index_add(1, group, pointed)
            sums = values.new_zeros(groups, values.shape[1]).index_add(0, group, values)
            sizes = torch.bincount(group, minlength=groups)[:, None]
            context = (context + mass @ (sums / sizes)) / 2
        return Pointing(pointed, null, context.to(answer.dtype))
