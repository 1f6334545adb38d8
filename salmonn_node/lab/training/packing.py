"""Packing: combine lessons into one batch for the language model. Each question sees only the memory and itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from salmonn_node.lab.training.lessons import Asked, Lesson
from salmonn_node.model.network import Network


@dataclass(frozen=True, eq=False)
class PackedQuestion:
    """Location of a question in its row of the batch.

    Attributes:
        start: first row of the question. The opening of the answer's turn ends just before `first`.
        first: row after the prompt. The row before it predicts the first token of the answer.
        targets: (n,), ids of the answer.
        evidence: rows of the memory tokens that show the answer, numbered as in the view.
        asked: the question.
    """

    start: int
    first: int
    targets: Tensor
    evidence: Tensor
    asked: Asked


@dataclass(frozen=True, eq=False)
class Packed:
    """B lessons, padded to L rows.

    Attributes:
        ids: (B, L) int64.
        positions: (3, B, L) int64.
        mask: (B, 1, L, L) bool, True where a row may attend.
        memory_rows: for each lesson, (T,) rows of its memory tokens, in prompt order.
        memory_numbers: for each lesson, (T,) numbers of its memory tokens in the view.
        frames: for each lesson, (T,) blocks of its memory tokens.
        visual: (B, L) bool.
        z: (N, D), features of all memory tokens, in order of lesson and row.
        deepstack: (K, V, D), deepstack rows of the visual tokens.
        questions: for each lesson, its questions.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    memory_rows: list[Tensor]
    memory_numbers: list[Tensor]
    frames: list[Tensor]
    visual: Tensor
    z: Tensor
    deepstack: Tensor
    questions: list[list[PackedQuestion]]


def pack(lessons: Sequence[Lesson]) -> Packed:
    """Pack lessons into one batch."""
    length, count = max(lesson.rows for lesson in lessons), len(lessons)
    ids = torch.zeros(count, length, dtype=torch.int64)
    positions = torch.zeros(3, count, length, dtype=torch.int64)
    part = torch.full((count, length), -1, dtype=torch.int64)  # 0 memory, n question n, -1 padding
    visual = torch.zeros(count, length, dtype=torch.bool)
    rows, numbers, frames, features, deep = [], [], [], [], []
    questions: list[list[PackedQuestion]] = []
    for b, lesson in enumerate(lessons):
        prefix, view = lesson.prefix, lesson.view
        at = len(prefix)
        ids[b, :at], positions[:, b, :at], part[b, :at] = prefix.ids, prefix.positions, 0
        where = (prefix.memory >= 0).nonzero()[:, 0]
        number = prefix.memory[where]
        seen = number < prefix.visual_tokens
        visual[b, where[seen]] = True
        rows.append(where)
        numbers.append(number)
        frames.append(prefix.block[where])
        table = torch.cat([batch.z for batch in (view.visual, view.audio) if batch is not None])
        features.append(table[number])
        if view.visual is not None and view.visual.deepstack is not None:
            deep.append(view.visual.deepstack[:, number[seen]])
        placed = []
        for n, (tail, answer, asked) in enumerate(zip(lesson.tails, lesson.answers, lesson.asked, strict=True), 1):
            text = [*tail, *answer[:-1]]
            stop = at + len(text)
            ids[b, at:stop] = torch.tensor(text)
            positions[:, b, at:stop] = prefix.next_position + torch.arange(len(text))
            part[b, at:stop] = n
            evidence = torch.tensor(asked.evidence, dtype=torch.int64)
            placed.append(PackedQuestion(at, at + len(tail), torch.tensor(answer), evidence, asked))
            at = stop
        questions.append(placed)
    order = torch.arange(length)
    mask = order[None, :, None] >= order[None, None, :]
    mask = mask & ((part[:, None, :] == 0) | (part[:, None, :] == part[:, :, None])) & (part[:, None, :] >= 0)
    mask = mask | torch.eye(length, dtype=torch.bool)[None]  # padding attends to itself, so that nothing is NaN
    return Packed(
        ids, positions, mask[:, None], rows, numbers, frames, visual, torch.cat(features),
        torch.cat(deep, dim=1) if deep else torch.zeros(0, 0, 0), questions,
    )  # fmt: skip


def hidden_states(network: Network, packed: Packed, noise: float = 0.0) -> Tensor:
    """(B, L, D): normed hidden states, equal to those of `LanguageModel.forward` for each question alone.

    Args:
        network: network whose language model reads the batch.
        packed: the batch.
        noise: standard deviation of noise on memory tokens, relative to that of the features. For training.
    """
    language = network.language
    z = packed.z
    if noise:
        z = z + noise * z.std() * torch.randn_like(z)
    embeddings = language.embed(packed.ids)
    batch = torch.cat([torch.full_like(rows, b) for b, rows in enumerate(packed.memory_rows)])
    embeddings = embeddings.index_put((batch, torch.cat(packed.memory_rows)), z)
    deepstack = list(packed.deepstack) if packed.deepstack.shape[0] and bool(packed.visual.any()) else None
    out = language.decoder(
        inputs_embeds=embeddings,
        attention_mask=packed.mask,
        position_ids=packed.positions,
        use_cache=False,
        visual_pos_masks=packed.visual if deepstack else None,
        deepstack_visual_embeds=deepstack,
    )
    return out.last_hidden_state
