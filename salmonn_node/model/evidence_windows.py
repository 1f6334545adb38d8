"""Evidence windows: for a network without an evidence head, find the two seconds that make its answer likely.

The attention of the answer position proposes windows. For each window, the network reads the question again over the
cached memory, and sees only that window. The sufficiency of a window is the log-likelihood of the answer in that pass,
minus the log-likelihood with nothing visible. Keys and values of the memory are reused, so a window only costs the rows
of question and answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.model.answer_decoder import AnswerDecoder
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
def log_likelihoods(decoder: AnswerDecoder, rereadings: Sequence[Rereading]) -> Tensor:
    """(n,) float32: log-likelihood of each answer. Generated rows leave the cache; the rows of the prompt stay.

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
            totals.append(_pass(decoder, batch))
            batch, rows = [], 0
        batch.append(r)
        rows += length
    return torch.cat([*totals, _pass(decoder, batch)]) if batch else torch.zeros(0)


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


def grounded(decoder: AnswerDecoder, attention: Tensor, answer: Sequence[int]) -> Tensor:
    """(T,) float32: weight of each memory token as evidence for an answer. The weights sum to one, or are all zero.

    The weight of a window comes from a softmax over sufficiencies. Attention distributes it over the window's tokens.

    Args:
        decoder: decoder of the prompt.
        attention: (T,) attention of the answer position. It proposes the windows.
        answer: ids of the network's answer.
    """
    window = windows_of(decoder.view)
    numbers, place = window.unique(return_inverse=True)
    mass = torch.zeros(len(numbers)).index_add_(0, place, attention)
    best = mass.topk(min(CANDIDATES, len(numbers))).indices
    question = decoder.prompt.ids[question_row(decoder) :].tolist()
    nothing = torch.zeros(len(window), dtype=torch.bool)
    readable = [nothing, *(place == int(n) for n in best)]
    scores = log_likelihoods(decoder, [Rereading(question, answer, tokens) for tokens in readable])
    share = torch.zeros(len(numbers))
    share[best] = torch.softmax(scores[1:] - scores[0], dim=0)
    return attention * (share / mass.clamp_min(torch.finfo(mass.dtype).tiny))[place]


def windows_of(view: SceneView) -> Tensor:
    """(T,) int64: number of the two-second window in which each memory token was observed."""
    batches: list[TokenBatch] = [batch for batch in (view.visual, view.audio) if batch is not None]
    return torch.cat([batch.stamp_ns for batch in batches]).div(WINDOW_NS, rounding_mode="floor")
