"""Two heads that add what they read to the answer's hidden state: the evidence head and the recall read-out.

The evidence head points at memory tokens. The node returns its pointer as grounding, and abstains by its weight on
"nothing". The recall read-out asks the fast weights, so it can answer about tokens that were discarded. Neither is
part of video-SALMONN S.
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
RUN = 10  # tokens of one event that are told together, at most
# Log-odds from which a token is said to match: what tells lengths best on the worlds kept for calibration.
MATCHES = 1.0
LOG_TOKENS = math.log(512)


@dataclass(frozen=True)
class Pointing:
    """Where an answer points.

    Attributes:
        weights: (Q, T) probability of each memory token.
        null: (Q,) probability of none; weights and null sum to one.
        context: (Q, D) what was read, to be added to the answer's hidden states.
        match: (Q, T) log-odds of each memory token to be what is asked for, by itself, whichever is wanted of those.
    """

    weights: Tensor
    null: Tensor
    context: Tensor
    match: Tensor


def last_run(match: Tensor, last: Tensor) -> Tensor:
    """(Q, T) probability of each token to belong to the run of matches that ends at the last one, up to RUN tokens.

    Args:
        match: (Q, T) probability of each token to match by itself.
        last: (Q, T) probability of each token to be the last that does.
    """
    run = last
    for _ in range(RUN - 1):
        run = last + match * functional.pad(run[:, 1:], (0, 1))
    return run


def order_features(tokens: int) -> Tensor:
    """(T, 3) float32: place of each token in the order of time, and its logarithm from either end, about zero."""
    number = torch.arange(tokens, dtype=torch.float32)
    late, early = torch.log1p(number), torch.log1p(number.flip(0))
    features = torch.stack([number / max(1, tokens - 1), late / LOG_TOKENS, early / LOG_TOKENS], dim=1)
    return features - features.mean(dim=0)


def first_and_last(match: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probability of each token to be the first that matches and the last, and of none to match.

    Stick-breaking from either end: a token takes what the tokens before it (after it) have left. So one that does not
    match takes nothing, however many of them there are.

    Args:
        match: (Q, T) log-odds of each token to match by itself.

    Returns:
        first (Q, T), last (Q, T), none (Q,); either of the two and none sum to one.
    """
    yes, no = functional.logsigmoid(match), functional.logsigmoid(-match)
    before = no.cumsum(-1) - no
    after = no.flip(-1).cumsum(-1).flip(-1) - no
    return torch.exp(yes + before), torch.exp(yes + after), torch.exp(no.sum(-1))


class EvidenceHead(nn.Module):
    """Pointer over memory with a learned null, and a context read: half at the token, half over its frame.

    "First" and "last" compare tokens with each other, which rotary positions of hours apart do not tell. So the answer
    chooses between three ways to point: at all that matches (a softmax, to which it adds how much it wants of early
    and of late tokens), at the first match, and at the last. A token matches as far as its score exceeds the null's.

    What is to be counted is in no mean over tokens. So two tallies are read besides: the most of each feature among
    all that matches (how many different ones there were), and the sum of each over the last run of matches (how many
    knocks one knocking had).

    Two queries, and a token matches when it matches either: "the blue star or the orange cube" is no one direction,
    which a blue cube would match as well.
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
            frame: (T,) int64, tokens with equal numbers belong to one frame (or one stretch of sound).
        """
        query = self.query(answer).unflatten(-1, (QUERIES, -1)).float()
        keys = torch.cat([self.key(memory), self.null_key[None]]).float()
        scores = query @ keys.T * self.scale  # (Q, QUERIES, T + 1)
        # By how much a token exceeds "nothing" for either query: a softened maximum, of two equal ones just that.
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
