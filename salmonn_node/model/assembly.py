"""Prompt assembly: turn a view and a question into the language model's input, with tokens at original positions."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.model.blocks import Block
from salmonn_node.model.chat_format import ASSISTANT, END
from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.language import LanguageModel, PromptTokens
from salmonn_node.model.prompt import marked_patches
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Prompt:
    """A question's prompt before embedding.

    Attributes:
        ids: (L,) int64, token ids, with pads in place of memory tokens.
        positions: (3, L) int64, M-RoPE positions.
        memory: (L,) int64, number of the memory token in the view, -1 for text.
        block: (L,) int64, number of the block, -1 for text outside blocks.
        question_start: first row of the question, one after the token that follows the last block.
        score_end: end (exclusive) of the rows whose queries score the memory.
        next_position: position of the first generated token.
        visual_tokens: number of visual tokens in the view. Higher memory numbers are audio tokens.
    """

    ids: Tensor
    positions: Tensor
    memory: Tensor
    block: Tensor
    question_start: int
    score_end: int
    next_position: int
    visual_tokens: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def visual(self) -> Tensor:
        """(L,) bool: whether a row is a visual token."""
        return (self.memory >= 0) & (self.memory < self.visual_tokens)


_Values = int | Sequence[int] | npt.NDArray[np.int64]


class _Rows:
    """Rows of a prompt under construction: id, three positions, memory token and block of each.

    Arrays, because a prompt has hundreds of short runs, and a small tensor takes several times as long to make.
    """

    def __init__(self) -> None:
        self.runs: list[npt.NDArray[np.int64]] = []
        self.length = 0

    def add(self, count: int, ids: _Values, positions: Sequence[_Values], memory: _Values, block: int) -> None:
        run = np.empty((6, count), np.int64)
        run[0], run[1], run[2], run[3], run[4], run[5] = ids, *positions, memory, block
        self.runs.append(run)
        self.length += count

    def text(self, ids: Sequence[int], pointer: int, block: int = -1) -> None:
        where = np.arange(pointer, pointer + len(ids))
        self.add(len(ids), ids, (where, where, where), -1, block)

    def table(self) -> Tensor:
        """(6, L) int64."""
        return torch.from_numpy(np.concatenate(self.runs, axis=1))


def prompt_of(view: SceneView, question: str, tokenizer: TextTokenizer, config: SalmonnConfig) -> Prompt:
    """Build the prompt of a question about a view.

    Args:
        view: memory tokens and blocks.
        question: user text, already escaped. A `<video>` in it marks the place of the memory.
        tokenizer: tokenizer of the checkpoint.
        config: decides which blocks show their time mark (`all_marks`, `max_time_marks`) and the text around the
            memory (`chat`).
    """
    all_marks, max_marks = config.all_marks, config.max_time_marks
    specials = tokenizer.specials
    before, after = config.chat.split(question)
    opening = config.chat.opening + before
    prefix = tokenizer.encode(opening)
    visual, audio = _ranges(view.visual), view.audio
    heard = audio.index.numpy() if audio is not None else np.zeros(0, np.int64)
    heard_at = heard.tolist()
    offset = len(view.visual) if view.visual is not None else 0
    places = view.visual.place.long().numpy() if view.visual is not None else np.zeros(0, np.int64)

    shown: list[tuple[int, Block, tuple[int, int], list[tuple[int, int, int]]]] = []
    for number, block in enumerate(view.blocks):
        kept = visual.get(block.patch, (0, 0)) if block.patch >= 0 else (0, 0)
        sound = _kept_sound(block, heard_at)
        if all_marks or kept[0] < kept[1] or sound:
            shown.append((number, block, kept, sound))
    marks = set(range(len(shown))) if all_marks else set(marked_patches(len(shown), True, max_marks))

    rows = _Rows()
    if shown and shown[0][1].position == 0 and shown[0][1].marked and 0 in marks:
        # Tokenise the text before a mark together with the mark, as the release does.
        joint = tokenizer.encode(opening + shown[0][1].mark)
        start = len(joint) - shown[0][1].mark_tokens
        rows.text(joint[:start], 0)
        first_mark = joint[start:]
    else:
        start = len(prefix)
        rows.text(prefix, 0)
        first_mark = None
    for i, (number, block, (low, high), sound) in enumerate(shown):
        pointer = start + block.position
        marked = block.marked and i in marks
        if marked:
            mark = first_mark if i == 0 and first_mark is not None else tokenizer.encode(block.mark)
            rows.text([*mark, specials.vision_start] if block.grid[0] else mark, pointer, number)
        if low < high:
            at, place = start + block.video_position, places[low:high]
            where = (at, at + place // block.grid[1], at + place % block.grid[1]) if block.placed else (at + place,) * 3
            rows.add(high - low, specials.video_pad, where, np.arange(low, high), number)
        for first, last, gone in sound:
            when = heard[first:last] + (start + block.audio_position - gone)
            rows.add(last - first, specials.audio_pad, (when,) * 3, np.arange(first, last) + offset, number)
        if marked and block.grid[0]:
            rows.text([specials.vision_end], start + block.audio_position + block.audio_count, number)

    question_start = rows.length + 1
    pointer = start + view.next_position
    tail = _tail(after, tokenizer, config)
    rows.text(tail, pointer)
    table = rows.table()
    ids = table[0]
    turns = (ids == specials.im_start).nonzero()[:, 0]
    return Prompt(
        ids,
        table[1:4],
        table[4],
        table[5],
        min(question_start, rows.length - 2),
        int(turns[2]) + 2 if len(turns) >= 3 else rows.length - 1,
        pointer + len(tail),
        offset,
    )


def question_ids(question: str, tokenizer: TextTokenizer, config: SalmonnConfig) -> list[int]:
    """Ids of the rows after the memory, for a question whose memory comes first."""
    return _tail(config.chat.split(tokenizer.escape(question))[1], tokenizer, config)


def _tail(after: str, tokenizer: TextTokenizer, config: SalmonnConfig) -> list[int]:
    return tokenizer.encode(after + END) + tokenizer.encode(ASSISTANT)[: config.chat.answer_tokens]


def embed_prompt(prompt: Prompt, view: SceneView, language: LanguageModel) -> PromptTokens:
    """Embed a prompt: text from the embedding table, memory tokens in their rows, and deepstack rows."""
    device = language.lm_head.weight.device
    ids = prompt.ids.to(device)
    embeddings = language.embed(ids).clone()
    memory = prompt.memory.to(device)
    visual = prompt.visual.to(device)
    deepstack = None
    if view.visual is not None and bool(visual.any()):
        chosen = memory[visual].to(view.visual.z.device)
        embeddings[visual] = view.visual.z[chosen].to(embeddings)
        if view.visual.deepstack is not None:
            deepstack = view.visual.deepstack[:, chosen].to(embeddings)
    sound = (memory >= 0) & ~visual
    if view.audio is not None and bool(sound.any()):
        chosen = (memory[sound] - prompt.visual_tokens).to(view.audio.z.device)
        embeddings[sound] = view.audio.z[chosen].to(embeddings)
    return PromptTokens(embeddings, prompt.positions.to(device), visual, deepstack)


def _ranges(batch: TokenBatch | None) -> dict[int, tuple[int, int]]:
    """Map each patch number to the rows [low, high) of its tokens. The tokens of a patch are contiguous."""
    if batch is None:
        return {}
    patches, counts = torch.unique_consecutive(batch.patch, return_counts=True)
    ends = counts.cumsum(0)
    return {p: (e - c, e) for p, c, e in zip(patches.tolist(), counts.tolist(), ends.tolist(), strict=True)}


def _kept_sound(block: Block, heard: Sequence[int]) -> list[tuple[int, int, int]]:
    """Rows [first, last) of a block's kept audio tokens, with the offset from token index to place in the block."""
    found, passed = [], 0
    for first, count in block.audio:
        low, high = bisect_left(heard, first), bisect_left(heard, first + count)
        if low < high:
            found.append((low, high, first - passed))
        passed += count
    return found
