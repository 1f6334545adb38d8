"""The recall read-out: the question queries the fast weights, and what they hold joins the answer's hidden state.

Not part of video-SALMONN S, whose fast weights only transform tokens. Facts whose tokens were discarded can be
answered from here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from salmonn_node.ttt.layer import TTTLayer
from salmonn_node.ttt.state import TTTState


class RecallReadout(nn.Module):
    """Question hidden state -> queries of the TTT layer -> addition to the answer's hidden states."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)
        self.gate = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, question: Tensor, layer: TTTLayer, state: TTTState) -> Tensor:
        """(Q, D) hidden states of question tokens -> (D,); the state is untouched, and a zero gate adds nothing."""
        recalled = layer.recall(self.query(question), state)
        return torch.tanh(self.gate) * self.out(recalled.to(question.dtype)).mean(0)
