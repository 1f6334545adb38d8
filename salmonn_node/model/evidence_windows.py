"""Evidence of a network without an evidence head: which two seconds of the memory make its answer likely.

The answer position's attention proposes windows. For each, the question is read again over the cached memory with
only that window readable. The window's sufficiency is the log-likelihood of the answer then, less the one with nothing
readable. Keys and values of the memory are not computed again, so a window costs the rows of question and answer.
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
# Windows that are compared: the evidence is almost always among the first 8 that attention proposes.
CANDIDATES = 8


@dataclass(frozen=True)
class Rereading:
    """A question that is put once more to a memory that has been read.

    Attributes:
        question: ids of the prompt's rows after the memory, up to the answer.
        answer: ids whose log-likelihood is wanted, at least one.
        readable: (T,) bool, memory tokens of the view that the question may read.
    """

    question: Sequence[int]
    answer: Sequence[int]
    readable: Tensor


def can_reread(decoder: AnswerDecoder) -> bool:
    """Whether every layer's cache holds the same rows; the prompt-dependent reader keeps others in each layer."""
    rows = decoder.reading.rows
    return len(decoder.view) > 0 and all(index is rows[0] for index in rows)


@torch.no_grad()
def log_likelihoods(decoder: AnswerDecoder, rereadings: Sequence[Rereading]) -> Tensor:
    """(n,) float32 log-likelihood of each answer. Generated rows leave the cache; the prompt's rows stay.

    Raises:
        ValueError: an answer without tokens.
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
    """One pass over the cache; a mask keeps the rereadings apart and hides what each may not read."""
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
    """(T,) float32 weight of each memory token as evidence for an answer; sums to one, or is all zero.

    A window's weight is its share of the softmax over sufficiencies; within a window, tokens share it by attention.

    Args:
        decoder: of the prompt.
        attention: (T,) of the answer position; it proposes the windows.
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
    """(T,) int64 number of the two seconds in which each memory token was observed."""
    batches: list[TokenBatch] = [batch for batch in (view.visual, view.audio) if batch is not None]
    return torch.cat([batch.stamp_ns for batch in batches]).div(WINDOW_NS, rounding_mode="floor")
