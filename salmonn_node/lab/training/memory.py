"""Stage 4: train the language model to read what a memory of fixed size has kept of minutes of stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salmonn_node.lab.training.evidence_tokens import PATCH_TOKENS, stamps_of
from salmonn_node.lab.training.language import Batches, filled
from salmonn_node.lab.training.lessons import Asked, Lesson, draw, known, lesson, put, some
from salmonn_node.lab.training.loop import Plan
from salmonn_node.lab.training.memories import observe
from salmonn_node.lab.training.packing import Packed
from salmonn_node.lab.training.streams import CUT_S, Bank, Pieces, quiet_seconds
from salmonn_node.lab.world.truth import Truth
from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.model.assembly import Prompt
from salmonn_node.model.config import MemoryConfig, SalmonnConfig
from salmonn_node.model.network import Network
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.tokenizer import FileTokenizer
from salmonn_node.model.video_salmonn_s import CheckpointInfo, VideoSalmonnS

PLAN = Plan("memory", steps=900, rate=1.5e-3, warmup=30)
FURTHER = Plan("further", steps=5_000, rate=1.5e-3, warmup=100)
SPAN_S = (48, 1_200)
LONG_SPAN_S = (600, 12_800)
PIECES_S = (40, 120, 240)
FLATS = (1, 2, 4, 1_000)
GROWTH = 1.6
QUESTIONS = 64  # questions per moment of asking
# (visual tokens, audio tokens, share): smaller budgets imitate longer streams.
BUDGETS = ((512, 128, 0.6), (256, 96, 0.2), (128, 64, 0.2))
SHARE = 0.6  # share of steps that read such memories; the others read whole short streams
THINNED = 0.5  # share of lessons in the last stage that randomly lose tokens, up to THINNEST of them
THINNEST = 0.6
ROWS = 5_500


def budgeted(config: SalmonnConfig, visual: int, audio: int) -> SalmonnConfig:
    """Return the configuration with other budgets, and without fast weights, which do not change the tokens here."""
    memory = MemoryConfig(visual, audio, visual // 4, audio // 4, config.memory.visual_rule, config.memory.audio_rule)
    return config.replace(memory=memory, ttt=None, recall=False)


@dataclass(frozen=True)
class StoredLesson:
    """A lesson of a long stream, without the features that the bank already holds.

    Attributes:
        tensors: rows of the prompt, bank number of each kept visual token, features of kept audio tokens.
        visual_tokens, next_position: those of the prompt.
        asked: questions, without discarded evidence.
        seconds: length of the stream.
        pieces: pieces that the stream is composed of.
    """

    tensors: dict[str, Tensor]
    visual_tokens: int
    next_position: int
    asked: tuple[Asked, ...]
    seconds: int
    pieces: tuple[tuple[int, int, int], ...]


def lessons_of(
    number: int,
    bank: Bank,
    pieces: Pieces,
    config: SalmonnConfig,
    tokenizer: FileTokenizer,
    span_s: tuple[int, int] = SPAN_S,
) -> Iterator[StoredLesson]:
    """Make the lessons of stream `number`: run it through a real memory, and ask at growing intervals.

    Args:
        number: number of the stream. It is the seed of all draws.
        bank: bank of the streams that it is composed of.
        pieces: draws the pieces.
        config: configuration of the network. The budgets of the memory are drawn.
        tokenizer: tokenizer of the prompts.
        span_s: shortest and longest stream, seconds. Questions start at the shortest length.
    """
    rng = np.random.default_rng([0, 5, number])
    seconds = int(np.exp(rng.uniform(*np.log(span_s))))
    visual, audio, _ = BUDGETS[int(rng.choice(len(BUDGETS), p=[share for *_, share in BUDGETS]))]
    # Use one flat for hours, as on a robot, or many flats, so that questions about one flat do not dominate.
    few = pieces.among(int(rng.choice(FLATS)), rng)
    chosen = few.several(seconds, int(rng.choice(PIECES_S)), rng)
    tokens = bank.stream(chosen)
    small = budgeted(config, visual, audio)
    info = CheckpointInfo("training", "tiny", trained=False)
    model = VideoSalmonnS(small, Network(small), tokenizer, info)  # encoders and language model are not used here
    memory = model.new_memory()
    base = np.cumsum([0, *((b - a) // 2 * PATCH_TOKENS for _, a, b in chosen)])
    offset = np.array([n * 10**6 + a // 2 * PATCH_TOKENS for n, a, _ in chosen])
    moments = asking_moments(tokens.truth, span_s[0], rng)
    for step, _ in enumerate(observe(model, memory, tokens), 1):
        if step * CUT_S not in moments:
            continue
        view = model.view(memory)
        now = step * CUT_S
        asked = draw(tokens.truth, QUESTIONS, int(rng.integers(90_000)), stamps_of(view), now)
        prefix = lesson(view, asked, config, tokenizer).prefix
        assert view.visual is not None
        assert view.audio is not None
        index = view.visual.index.numpy()
        part = np.searchsorted(base, index, side="right") - 1
        tensors = {
            "ids": prefix.ids.int(),
            "positions": prefix.positions.int(),
            "memory": prefix.memory.int(),
            "block": prefix.block.int(),
            "visual": torch.from_numpy(offset[part] + index - base[part]),
            "audio": view.audio.z.clone(),
        }
        yield StoredLesson(tensors, prefix.visual_tokens, prefix.next_position, tuple(asked), now, tuple(chosen))


def asking_moments(truth: Truth, first_s: int, rng: np.random.Generator) -> set[int]:
    """Choose seconds that cut no sound, each about GROWTH times the previous one. The last is the end."""
    quiet = quiet_seconds(truth)
    found = {truth.seconds}
    at = first_s * rng.uniform(1.0, GROWTH)
    while at < truth.seconds / 1.2:
        found.add(int(quiet[np.searchsorted(quiet, at)]))
        at *= GROWTH
    return found


def restored(
    stored: StoredLesson,
    bank: Bank,
    tokenizer: FileTokenizer,
    config: SalmonnConfig,
    rng: np.random.Generator | None = None,
) -> Lesson:
    """Restore a lesson with its features. `rng` samples and rewords questions, and moves pictures.

    Questions whose evidence the memory has discarded are not asked.
    """
    numbers = stored.tensors["visual"]
    z = torch.empty(len(numbers), config.hidden_size)
    deep = torch.empty(bank.streams[0].deepstack.shape[0], len(numbers), config.hidden_size)
    for stream in (numbers // 10**6).unique().tolist():
        mine = numbers // 10**6 == stream
        rows, seen = numbers[mine] % 10**6, bank.seen(stream, rng)
        z[mine] = seen.z.flatten(0, 1)[rows]
        deep[:, mine] = seen.deepstack.flatten(1, 2)[:, rows]
    audio = stored.tensors["audio"]
    view = SceneView(_bare(z, deep), torch.ones(len(z), dtype=torch.bool), _bare(audio, None),
                     torch.ones(len(audio), dtype=torch.bool), ("camera", "microphone"))  # fmt: skip
    t = {name: stored.tensors[name].long() for name in ("ids", "positions", "memory", "block")}
    prefix = Prompt(t["ids"], t["positions"], t["memory"], t["block"], len(t["ids"]), len(t["ids"]),
                    stored.next_position, stored.visual_tokens)  # fmt: skip
    asked = known(stored.asked)
    return put(view, prefix, asked if rng is None else some(asked, rng), tokenizer)


def _bare(z: Tensor, deepstack: Tensor | None) -> TokenBatch:
    rows = torch.arange(len(z))
    zero = torch.zeros_like(rows)
    return TokenBatch(z, deepstack, rows, zero, zero, zero, zero, zero)


class MixedBatches:
    """Batches of memories of long streams, mixed with batches of whole short streams.

    Memories that cannot answer any of their questions are skipped.
    """

    def __init__(
        self,
        short: Batches,
        stored: Sequence[StoredLesson],
        bring_back: Callable[[StoredLesson, np.random.Generator], Lesson],
        rows: int = ROWS,
    ) -> None:
        self.short, self.bring_back, self.rows = short, bring_back, rows
        self.stored = sorted((s for s in stored if known(s.asked)), key=_rows)

    def __call__(self, step: int) -> Packed:
        """Return the batch of a step."""
        rng = np.random.default_rng([PLAN.seed, 6, step])
        if rng.random() >= SHARE:
            return self.short(10**6 + step)
        return filled(self.stored, lambda s: self.bring_back(s, rng), 25, rng, self.rows)


def _rows(stored: StoredLesson) -> int:
    return len(stored.tensors["ids"])


def write(path: Path, stored: Sequence[StoredLesson]) -> None:
    """Write all lessons to one file of plain tensors and values."""
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
    """Read the lessons from `write`. The file may only hold tensors and plain values."""
    return [
        StoredLesson(**{**v, "asked": tuple(Asked(**a) for a in v["asked"]), "pieces": tuple(map(tuple, v["pieces"]))})
        for v in torch.load(path, weights_only=True)
    ]
