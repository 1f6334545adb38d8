"""Stage 4: the language model learns to read what a memory of fixed size has kept of minutes of stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.model.assembly import Prompt
from salmonn_node.model.config import MemoryConfig, SalmonnConfig
from salmonn_node.model.network import Network
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.tokenizer import FileTokenizer
from salmonn_node.model.video_salmonn_s import CheckpointInfo, VideoSalmonnS
from salmonn_node.training.language import Batches, filled
from salmonn_node.training.lessons import PATCH_TOKENS, UNKNOWN, Asked, Lesson, draw, lesson, put, stamps_of
from salmonn_node.training.loop import Plan
from salmonn_node.training.memories import observe
from salmonn_node.training.packing import Packed
from salmonn_node.training.streams import Bank, Pieces
from salmonn_node.training.wording import reworded

PLAN = Plan("memory", steps=900, rate=1.5e-3, warmup=30)
# With streams of hours and heavier kinds it learns its own worlds better and others worse; the mean of both does best.
FURTHER = Plan("further", steps=1_250, rate=2e-3, warmup=30)
SPAN_S = (48, 1_200)
LONG_SPAN_S = (1_800, 10_800)  # a few streams of hours, for the positions that only they reach
PIECE_S = 120
QUESTIONS = 16
# (visual tokens, audio tokens, share): smaller budgets stand for longer streams.
BUDGETS = ((512, 128, 0.6), (256, 96, 0.2), (128, 64, 0.2))
SHARE = 0.6  # of the steps that read such memories; the others go on with whole short streams
ROWS = 5_500


def budgeted(config: SalmonnConfig, visual: int, audio: int) -> SalmonnConfig:
    """The configuration with other budgets, and without the fast weights, which leave the tokens as they are."""
    memory = MemoryConfig(visual, audio, visual // 4, audio // 4, config.memory.visual_rule, config.memory.audio_rule)
    return config.replace(memory=memory, ttt=None, recall=False)


@dataclass(frozen=True)
class StoredLesson:
    """A lesson of a long stream, without the features that the bank has anyway.

    Attributes:
        tensors: the prompt's rows, the bank's number of each visual token kept, features of the audio tokens kept.
        visual_tokens, next_position: of the prompt.
        asked: questions; evidence that the memory has let go is not in it.
        seconds: length of the stream.
        pieces: of which streams it was composed.
    """

    tensors: dict[str, Tensor]
    visual_tokens: int
    next_position: int
    asked: tuple[Asked, ...]
    seconds: int
    pieces: tuple[tuple[int, int, int], ...]


def make(
    number: int,
    bank: Bank,
    pieces: Pieces,
    config: SalmonnConfig,
    tokenizer: FileTokenizer,
    seed: int = 0,
    span_s: tuple[int, int] = SPAN_S,
) -> StoredLesson:
    """Lesson `number`: a stream flows through a real memory, and questions are asked at its end."""
    rng = np.random.default_rng([seed, 5, number])
    seconds = int(np.exp(rng.uniform(*np.log(span_s))))
    shares = [share for *_, share in BUDGETS]
    visual, audio, _ = BUDGETS[int(rng.choice(len(BUDGETS), p=shares))]
    chosen = pieces.several(seconds, PIECE_S, rng)
    tokens = bank.stream(chosen)
    small = budgeted(config, visual, audio)
    info = CheckpointInfo("training", "tiny", trained=False)
    model = VideoSalmonnS(small, Network(small), tokenizer, info)  # neither encoders nor language model are used here
    memory = model.new_memory()
    for _ in observe(model, memory, tokens):
        pass
    view = model.view(memory)
    asked = draw(tokens.truth, QUESTIONS, int(rng.integers(90_000)) + (seed if seed >= 100_000 else 0), stamps_of(view))
    made = lesson(view, asked, config, tokenizer)
    prefix = made.prefix
    assert view.visual is not None
    assert view.audio is not None
    base = np.cumsum([0, *((b - a) // 2 * PATCH_TOKENS for _, a, b in chosen)])
    offset = np.array([n * 10**6 + a // 2 * PATCH_TOKENS for n, a, _ in chosen])
    index = view.visual.index.numpy()
    part = np.searchsorted(base, index, side="right") - 1
    tensors = {
        "ids": prefix.ids.int(),
        "positions": prefix.positions.int(),
        "memory": prefix.memory.int(),
        "block": prefix.block.int(),
        "visual": torch.from_numpy(offset[part] + index - base[part]),
        "audio": view.audio.z,
    }
    return StoredLesson(
        tensors, prefix.visual_tokens, prefix.next_position, tuple(asked), tokens.truth.seconds, tuple(chosen)
    )


def restored(
    stored: StoredLesson,
    bank: Bank,
    tokenizer: FileTokenizer,
    config: SalmonnConfig,
    rng: np.random.Generator | None = None,
) -> Lesson:
    """The lesson with its features; with `rng` most questions in other words.

    What is answerable but no longer in memory is to be answered with "unknown".
    """
    numbers = stored.tensors["visual"]
    z = torch.empty(len(numbers), config.hidden_size)
    deep = torch.empty(bank.streams[0].deepstack.shape[0], len(numbers), config.hidden_size)
    for stream in (numbers // 10**6).unique().tolist():
        mine = numbers // 10**6 == stream
        rows = numbers[mine] % 10**6
        z[mine] = bank.streams[stream].z.flatten(0, 1)[rows]
        deep[:, mine] = bank.streams[stream].deepstack.flatten(1, 2)[:, rows]
    audio = stored.tensors["audio"]
    view = SceneView(_bare(z, deep), torch.ones(len(z), dtype=torch.bool), _bare(audio, None),
                     torch.ones(len(audio), dtype=torch.bool), ("camera", "microphone"))  # fmt: skip
    t = {name: stored.tensors[name].long() for name in ("ids", "positions", "memory", "block")}
    prefix = Prompt(t["ids"], t["positions"], t["memory"], t["block"], len(t["ids"]), len(t["ids"]),
                    stored.next_position, stored.visual_tokens)  # fmt: skip
    asked = [a if a.evidence or not a.answerable else replace(a, answer=UNKNOWN) for a in stored.asked]
    if rng is not None:
        asked = [replace(a, text=reworded(a.text, rng)) for a in asked]
    return put(view, prefix, asked, tokenizer)


def _bare(z: Tensor, deepstack: Tensor | None) -> TokenBatch:
    rows = torch.arange(len(z))
    zero = torch.zeros_like(rows)
    return TokenBatch(z, deepstack, rows, zero, zero, zero, zero, zero)


class MixedBatches:
    """Batches of long streams' memories, and between them batches of whole short streams."""

    def __init__(
        self,
        short: Batches,
        stored: Sequence[StoredLesson],
        bring_back: Callable[[StoredLesson, np.random.Generator], Lesson],
        rows: int = ROWS,
    ) -> None:
        self.short, self.stored, self.bring_back, self.rows = short, sorted(stored, key=_rows), bring_back, rows

    def __call__(self, step: int) -> Packed:
        """The batch of a step."""
        rng = np.random.default_rng([PLAN.seed, 6, step])
        if rng.random() >= SHARE:
            return self.short(10**6 + step)
        return filled(self.stored, lambda s: self.bring_back(s, rng), 25, rng, self.rows)


def _rows(stored: StoredLesson) -> int:
    return len(stored.tensors["ids"])


def write(path: Path, stored: Sequence[StoredLesson]) -> None:
    """All lessons in one file of plain tensors and values."""
    values: list[dict[str, Any]] = [
        {
            "tensors": s.tensors, "visual_tokens": s.visual_tokens, "next_position": s.next_position,
            "asked": [vars(a) for a in s.asked], "seconds": s.seconds, "pieces": list(s.pieces),
        }
        for s in stored
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(values, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def read(path: Path) -> list[StoredLesson]:
    """The inverse of `write`; the file may hold tensors and plain values only."""
    return [
        StoredLesson(**{**v, "asked": tuple(Asked(**a) for a in v["asked"]), "pieces": tuple(map(tuple, v["pieces"]))})
        for v in torch.load(path, weights_only=True)
    ]
