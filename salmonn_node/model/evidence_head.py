"""Evidence head and recall read-out: two heads that add what they read to the answer's hidden state.

The evidence head points at memory tokens. The node returns the pointer as grounding, and uses its weight on "nothing"
to abstain. The recall read-out queries the fast weights, so it can answer about discarded tokens. Neither is part of
video-SALMONN S.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from salmonn_node.ttt.layer import TTTLayer
from salmonn_node.ttt.state import TTTState

ORDER_FEATURES = 3
WAYS = 3
QUERIES = 2
TALLIES = 32
RUN = 10  # maximum number of tokens in a run, that is, in one event
# Log-odds from which a token counts as a match. Chosen for the best event lengths on the calibration worlds.
MATCHES = 1.0
LOG_TOKENS = math.log(512)


@dataclass(frozen=True)
class Pointing:
    """Where an answer points.

    Attributes:
        weights: (Q, T) probability of each memory token.
        null: (Q,) probability of "nothing". Weights and null sum to one.
        context: (Q, D) what the head read, to be added to the answer's hidden states.
        match: (Q, T) log-odds that each memory token, on its own, matches the question.
    """

    weights: Tensor
    null: Tensor
    context: Tensor
    match: Tensor


def last_run(match: Tensor, last: Tensor) -> Tensor:
    """(Q, T): probability that a token belongs to the last run of matches, which has at most RUN tokens.

    Args:
        match: (Q, T) probability that each token matches on its own.
        last: (Q, T) probability that each token is the last match.
    """
    run = last
    for _ in range(RUN - 1):
        run = last + match * functional.pad(run[:, 1:], (0, 1))
    return run


def order_features(tokens: int) -> Tensor:
    """(T, 3) float32: place of each token in time order, and the logarithm of its distance from each end, centred."""
    number = torch.arange(tokens, dtype=torch.float32)
    late, early = torch.log1p(number), torch.log1p(number.flip(0))
    features = torch.stack([number / max(1, tokens - 1), late / LOG_TOKENS, early / LOG_TOKENS], dim=1)
    return features - features.mean(dim=0)


def first_and_last(match: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the probabilities that each token is the first match, that it is the last match, and that none matches.

    Stick-breaking from each end: a token takes its share of the probability that the tokens before it (or after it)
    left over. So tokens that do not match take nothing, however many there are.

    Args:
        match: (Q, T) log-odds that each token matches on its own.

    Returns:
        first (Q, T), last (Q, T), none (Q,). first and none sum to one; so do last and none.
    """
    yes, no = functional.logsigmoid(match), functional.logsigmoid(-match)
    before = no.cumsum(-1) - no
    after = no.flip(-1).cumsum(-1).flip(-1) - no
    return torch.exp(yes + before), torch.exp(yes + after), torch.exp(no.sum(-1))


class EvidenceHead(nn.Module):
    """Pointer over the memory with a learned null. It reads a context, half at the token and half over its frame.

    Questions about "first" and "last" compare tokens with each other. Rotary positions that are hours apart do not
    allow that. So the answer chooses between three ways to point: at all matches, at the first match, or at the last.
    Pointing at all matches is a softmax, with a learned preference for early or late tokens. A token matches to the
    degree that its score exceeds the score of the null.

    A mean over tokens does not contain a count. So the head also reads two tallies. One is the maximum of each feature
    over all matches (how many different things there were). The other is the sum of each feature over the last run of
    matches (how many knocks there were).

    The head has two queries, and a token matches if it matches either. "The blue star or the orange cube" needs two
    directions: a single one would also match a blue cube.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, QUERIES * hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        self.value = nn.Linear(hidden_size, hidden_size)
        self.features = nn.Linear(hidden_size, 2 * TALLIES)
        self.told = nn.Linear(2 * TALLIES, hidden_size, bias=False)
        self.null_key = nn.Parameter(torch.zeros(hidden_size))
        self.order = nn.Linear(hidden_size, ORDER_FEATURES)
        self.way = nn.Linear(hidden_size, WAYS)
        self.sharpness = nn.Parameter(torch.zeros(()))  # logarithm of a factor
        self.doubt = nn.Parameter(torch.zeros(()))
        self.scale = hidden_size**-0.5

    def forward(self, answer: Tensor, memory: Tensor, frame: Tensor) -> Pointing:
        """Point from answer positions.

        Args:
            answer: (Q, D) hidden states at answer positions.
            memory: (T, D) hidden states of the memory tokens in the prompt, in its order, that of time.
            frame: (T,) int64, number of the frame (or stretch of sound) of each token.
        """
        query = self.query(answer).unflatten(-1, (QUERIES, -1)).float()
        keys = torch.cat([self.key(memory), self.null_key[None]]).float()
        scores = query @ keys.T * self.scale  # (Q, QUERIES, T + 1)
        # How much a token exceeds "nothing" for either query: a soft maximum, equal to the value if both are the same.
        excess = torch.logsumexp(scores[..., :-1] - scores[..., -1:], dim=1) - math.log(QUERIES)
        order = self.order(answer).float() @ order_features(len(memory)).to(excess).T
        every = torch.softmax(functional.pad(excess + order, (0, 1)), dim=-1)
        match = self.sharpness.exp() * excess - self.doubt
        first, last, none = first_and_last(match)
        way = torch.softmax(self.way(answer).float(), dim=-1)
        pointed = way[:, :1] * every[:, :-1] + way[:, 1:2] * first + way[:, 2:] * last
        null = way[:, 0] * every[:, -1] + (way[:, 1] + way[:, 2]) * none
        values = self.value(memory).float()
        context = pointed @ values
        if len(frame):
            _, group = torch.unique(frame, return_inverse=True)
            groups = int(group.max()) + 1
            mass = pointed.new_zeros(len(pointed), groups).index_add(1, group, pointed)
            sums = values.new_zeros(groups, values.shape[1]).index_add(0, group, values)
            sizes = torch.bincount(group, minlength=groups)[:, None]
            context = (context + mass @ (sums / sizes)) / 2
        present, counted = torch.relu(self.features(memory)).float().split(TALLIES, dim=-1)
        if len(memory):
            likely = torch.sigmoid(match)
            most = (likely[:, :, None] * present).amax(dim=1)
            sums = last_run(likely, last) @ counted
            context = context + self.told(torch.cat([most, sums], dim=-1).to(answer.dtype)).float()
        return Pointing(pointed, null, context.to(answer.dtype), match)


class RecallReadout(nn.Module):
    """Recall read-out: map question states to queries of the TTT layer; its output is added to the answer's states."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)
        self.gate = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, question: Tensor, layer: TTTLayer, state: TTTState) -> Tensor:
        """Map hidden states of question tokens (Q, D) to (D,). Does not change the state; a zero gate adds nothing."""
        recalled = layer.recall(self.query(question), state)
        return torch.tanh(self.gate) * self.out(recalled.to(question.dtype)).mean(0)
