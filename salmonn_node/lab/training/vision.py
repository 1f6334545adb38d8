"""Stage 1: train the vision tower to recognise what each of its tokens shows, from the world's boxes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from salmonn_node.lab.training.batched_vision import encode_patches
from salmonn_node.lab.training.loop import Figures, Plan
from salmonn_node.lab.training.sizes import GRID
from salmonn_node.lab.world.layout import ROOMS
from salmonn_node.lab.world.objects import COLOURS, PERSON, SHAPES
from salmonn_node.lab.world.shards import Shard
from salmonn_node.lab.world.truth import Truth, WorldMoment
from salmonn_node.model.frames import MEAN, STD, fitted
from salmonn_node.model.network import Network

SIZE_PX = (64, 128)
NONE, IGNORE = 0, -100
COLOUR = {name: i + 1 for i, name in enumerate(COLOURS)}
SHAPE = {name: i + 1 for i, name in enumerate((*SHAPES, PERSON))}
ROOM = {name: i for i, name in enumerate(ROOMS)}
MOST_THINGS = 8
COVERED = 0.12  # minimum share of a token's cell that a thing must cover to be labelled
SHIFT_PX = (6, 10)  # rows, columns
ZOOM = 0.15  # natural logarithm of the maximum zoom, for rows and columns separately
SWAPPED = 0.4
MOVED_TOGETHER, MOVED_NOISE = 6, 0.05
OTHER_ORDERS = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
PLAN = Plan("vision", steps=7000, rate=2e-3, warmup=100)
BATCH = 80


@dataclass
class PatchSet:
    """Temporal patches of many streams, with labels.

    Attributes:
        frames: (P, 2, 64, 128, 3) uint8.
        boxes: (P, M, 4) float32, x0, y0, x1, y1 as shares of the picture, mean of both frames. Zeros if unused.
        colours, shapes: (P, M) int64, 0 if unused.
        clear: (P, M) bool.
        rooms, doors, lit: (P,) int64. Doors: 0 not in view, 1 shut, 2 open.
    """

    frames: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]
    colours: npt.NDArray[np.int64]
    shapes: npt.NDArray[np.int64]
    clear: npt.NDArray[np.bool_]
    rooms: npt.NDArray[np.int64]
    doors: npt.NDArray[np.int64]
    lit: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.frames)


def patch_set(shards: Iterable[Shard]) -> PatchSet:
    """Collect all temporal patches of some streams."""
    rows: list[list[object]] = [[] for _ in range(8)]
    for shard in shards:
        small = np.stack([fitted(frame, SIZE_PX) for frame in shard.frames])
        for k in range(0, len(small) - 1, 2):
            for column, value in zip(rows, (small[k : k + 2], *_labels(shard.truth.moments[k : k + 2])), strict=True):
                column.append(value)
    return PatchSet(*(np.stack(column) for column in rows))  # type: ignore[arg-type]


def _labels(moments: tuple[WorldMoment, ...]) -> tuple[object, ...]:
    boxes, clear = np.zeros((MOST_THINGS, 4), np.float32), np.zeros(MOST_THINGS, bool)
    colours, shapes = np.zeros(MOST_THINGS, np.int64), np.zeros(MOST_THINGS, np.int64)
    views = {}
    for moment in moments:
        for seen in moment.seen:
            views.setdefault((seen.thing, seen.spot), []).append(seen)
    ordered = sorted(views.values(), key=lambda v: -max(s.share for s in v))[:MOST_THINGS]
    for i, view in enumerate(ordered):
        boxes[i] = np.mean([s.box for s in view], axis=0)
        colours[i], shapes[i] = COLOUR[view[0].thing.colour], SHAPE[view[0].thing.shape]
        clear[i] = len(view) == 2 and all(s.clear for s in view)
    states = [bool(look.state) for m in moments for look in m.looked if look.kind == "door"]
    door = IGNORE if len(set(states)) > 1 else (2 if states[0] else 1) if states else 0
    first = moments[0]
    room = ROOM[first.room] if first.room in ROOM and first.lit else IGNORE
    return boxes, colours, shapes, clear, np.int64(room), np.int64(door), np.int64(first.lit)


@dataclass
class PatchBatch:
    """A batch: pixels (B, h * w, P); colours, shapes (B, T); rooms, doors, lit (B,); `best` (B, M), a thing's token."""

    pixels: Tensor
    colours: Tensor
    shapes: Tensor
    rooms: Tensor
    doors: Tensor
    lit: Tensor
    best: Tensor


def batch_of(data: PatchSet, rows: npt.NDArray[np.int64], rng: np.random.Generator | None) -> PatchBatch:
    """Make a batch for the tower. With `rng`, mirror, shift, zoom, brighten and add noise."""
    frames, boxes = data.frames[rows], data.boxes[rows].copy()
    if rng is not None:
        frames = frames.copy()
        mirrored = rng.random(len(rows)) < 0.5
        frames[mirrored] = frames[mirrored][:, :, :, ::-1]
        boxes[mirrored] = boxes[mirrored][:, :, [2, 1, 0, 3]]
        boxes[mirrored, :, 0] = 1 - boxes[mirrored, :, 0]
        boxes[mirrored, :, 2] = 1 - boxes[mirrored, :, 2]
    pixels = _normalised(frames)
    if rng is not None:
        pixels, boxes = _moved(pixels, boxes, rng)
        pixels = pixels * torch.from_numpy(rng.normal(1.0, 0.1, (len(rows), 1, 1, 1, 1)).astype(np.float32))
        # One noise field, rolled for each patch. Drawing noise for all patches costs more than the tower's first layer.
        noise = torch.from_numpy(rng.standard_normal(pixels[0].numel(), np.float32)).view(pixels[0].shape)
        for patch, shift in zip(pixels, rng.integers(0, SIZE_PX[1], len(rows)).tolist(), strict=True):
            patch.add_(noise.roll(shift, 2), alpha=0.03)
    swapped = None
    if rng is not None:
        # Permute colour channels, so that shapes are recognised in colours that training never shows.
        swapped = torch.from_numpy(rng.random(len(rows)) < SWAPPED)
        for i in swapped.nonzero()[:, 0].tolist():
            pixels[i] = pixels[i][..., OTHER_ORDERS[int(rng.integers(len(OTHER_ORDERS)))]]
    flat = _patchified(pixels)
    colours, shapes, best = _token_labels(boxes, data.colours[rows], data.shapes[rows], data.clear[rows])
    rest = [torch.from_numpy(column[rows].copy()) for column in (data.rooms, data.doors, data.lit)]
    if swapped is not None:
        colours[swapped[:, None] & (colours != NONE)] = IGNORE
        rest[0][swapped] = IGNORE
    return PatchBatch(flat, colours, shapes, *rest, best)


def _moved(
    pixels: Tensor, boxes: npt.NDArray[np.float32], rng: np.random.Generator, together: int = 1
) -> tuple[Tensor, npt.NDArray[np.float32]]:
    """Shift and zoom patches (B, 2, H, W, 3) and their boxes. Runs of patches move alike; edges are extended."""
    count = -(-len(pixels) // together)
    zoom = np.exp(rng.uniform(-ZOOM, ZOOM, (count, 2))).astype(np.float32)  # columns, rows; above 1 means larger
    reach = np.array([SHIFT_PX[1] / SIZE_PX[1], SHIFT_PX[0] / SIZE_PX[0]], np.float32)
    shift = rng.uniform(-reach, reach, (count, 2)).astype(np.float32)  # shares of the picture
    zoom, shift = (np.repeat(v, together, axis=0)[: len(pixels)] for v in (zoom, shift))
    # A point p of the old picture is at 0.5 + (p - 0.5) * zoom + shift in the new one.
    theta = np.zeros((len(pixels), 2, 3), np.float32)
    for axis in (0, 1):
        theta[:, axis, axis] = 1 / zoom[:, axis]
        theta[:, axis, 2] = -2 * shift[:, axis] / zoom[:, axis]
    flat = pixels.permute(0, 1, 4, 2, 3).flatten(1, 2)
    grid = functional.affine_grid(torch.from_numpy(theta), list(flat.shape), align_corners=False)
    flat = functional.grid_sample(flat, grid, padding_mode="border", align_corners=False)
    moved = 0.5 + (boxes - 0.5) * np.tile(zoom, 2)[:, None] + np.tile(shift, 2)[:, None]
    moved[(boxes == 0).all(-1)] = 0
    return flat.unflatten(1, pixels.shape[1:2] + (3,)).permute(0, 1, 3, 4, 2).contiguous(), moved


def _normalised(frames: npt.NDArray[np.uint8]) -> Tensor:
    """Scale (B, 2, H, W, 3) to the tower's input range."""
    return (torch.from_numpy(np.ascontiguousarray(frames)).float() / 255 - MEAN) / STD


def _patchified(pixels: Tensor, patch: int = 16, merge: int = 2) -> Tensor:
    """Batched `frames.patchify`: (B, 2, H, W, 3) -> (B, h * w, P)."""
    pixels = pixels.permute(0, 1, 4, 2, 3)
    batch, frames, channels, height, width = pixels.shape
    h, w = height // patch, width // patch
    rows = pixels.reshape(batch, frames, channels, h // merge, merge, patch, w // merge, merge, patch)
    return rows.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(batch, h * w, -1)


def _token_labels(
    boxes: npt.NDArray[np.float32],
    colours: npt.NDArray[np.int64],
    shapes: npt.NDArray[np.int64],
    clear: npt.NDArray[np.bool_],
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour and shape of what covers most of each token's cell (IGNORE if unclear), and the token of each thing."""
    high, wide = GRID
    x = np.clip(np.minimum(boxes[..., None, 2], (np.arange(wide) + 1) / wide), 0, 1)
    x = np.clip(x - np.maximum(boxes[..., None, 0], np.arange(wide) / wide), 0, None)  # (B, M, w)
    y = np.minimum(boxes[..., None, 3], (np.arange(high) + 1) / high)
    y = np.clip(y - np.maximum(boxes[..., None, 1], np.arange(high) / high), 0, None)  # (B, M, h)
    cover = (y[..., :, None] * x[..., None, :]).reshape(*boxes.shape[:2], -1) * (high * wide)  # (B, M, T)
    cover[colours == 0] = 0
    best = cover.argmax(-1)
    best[(colours == 0) | ~clear | (cover.max(-1) <= 0)] = -1
    # The token that contains most of a thing gets its label, however small the thing is.
    b, m = (best >= 0).nonzero()
    cover[b, m, best[b, m]] += 1.0
    owner = cover.argmax(1)  # (B, T)
    amount = np.take_along_axis(cover, owner[:, None], 1)[:, 0]
    out = []
    for values in (colours, shapes):
        label = np.take_along_axis(values, owner, 1)
        label = np.where(np.take_along_axis(clear, owner, 1), label, IGNORE)
        label = np.where(amount >= COVERED, label, np.where(amount > 0.01, IGNORE, NONE))
        out.append(torch.from_numpy(label))
    taken = np.take_along_axis(owner, np.maximum(best, 0), 1) == np.arange(boxes.shape[1])
    return out[0], out[1], torch.from_numpy(np.where(taken, best, -1))


def patch_labels(truth: Truth) -> tuple[Tensor, Tensor, Tensor]:
    """Labels of each patch as in `PatchBatch`: colour (P, T) and shape (P, T) of each cell, and room (P,)."""
    rows = [_labels(truth.moments[2 * k : 2 * k + 2]) for k in range(truth.seconds // 2)]
    boxes, colours, shapes, clear, rooms, *_ = (np.stack(column) for column in zip(*rows, strict=True))
    cells = _token_labels(boxes, colours, shapes, clear)
    return cells[0], cells[1], torch.from_numpy(rooms)


class VisionHeads(nn.Module):
    """Heads on the tokens, for training the tower. Not part of the network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.colour = nn.Linear(width, len(COLOURS) + 1)
        self.shape = nn.Linear(width, len(SHAPE) + 1)
        self.room = nn.Linear(width, len(ROOMS))
        self.door = nn.Linear(width, 3)
        self.lit = nn.Linear(width, 2)

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Map tokens (B, T, D) to logits: colour, shape (B, T, n), room, door, lit (B, n)."""
        tokens = self.norm(tokens)
        pooled = tokens.mean(1)
        return self.colour(tokens), self.shape(tokens), self.room(pooled), self.door(pooled), self.lit(pooled)


def modules(network: Network) -> nn.ModuleDict:
    """Return the modules that this stage trains: the tower, and heads on its tokens and deepstack rows."""
    width = network.config.hidden_size
    return nn.ModuleDict({"vision": network.vision, "heads": VisionHeads(width), "deep": VisionHeads(width)})


def loss_of(parts: nn.ModuleDict, batch: PatchBatch) -> tuple[Tensor, Figures]:
    """Cross-entropies of all heads. Tokens without a thing have a lower weight, because most tokens are such."""
    tokens, deepstack = encode_patches(parts["vision"], batch.pixels, (2 * GRID[0], 2 * GRID[1]))
    total, figures = tokens.new_zeros(()), Figures()
    for name, head, rows, weight in (("", "heads", tokens, 1.0), ("deep_", "deep", deepstack[0], 0.3)):
        colour, shape, room, door, lit = parts[head](rows)
        small = torch.ones(colour.shape[-1])
        small[NONE] = 0.3
        parts_of = {
            "colour": functional.cross_entropy(colour.flatten(0, 1), batch.colours.flatten(), small),
            "shape": functional.cross_entropy(
                shape.flatten(0, 1), batch.shapes.flatten(), torch.cat([small[:1], torch.ones(shape.shape[-1] - 1)])
            ),
            "room": 0.3 * functional.cross_entropy(room, batch.rooms),
            "door": 0.3 * functional.cross_entropy(door, batch.doors),
            "lit": 0.1 * functional.cross_entropy(lit, batch.lit),
        }
        total = total + weight * sum(parts_of.values())
        if not name:
            figures |= {key: float(value.detach()) for key, value in parts_of.items()}
    return total, figures


def scores(parts: nn.ModuleDict, data: PatchSet, most: int = 3000) -> Figures:
    """Shares of right answers on held-out patches: per thing in plain view, and per patch."""
    rows = np.linspace(0, len(data) - 1, min(most, len(data))).astype(np.int64)
    right: dict[str, list[float]] = {}
    for start in range(0, len(rows), 200):
        batch = batch_of(data, rows[start : start + 200], None)
        tokens, _ = encode_patches(parts["vision"], batch.pixels, (2 * GRID[0], 2 * GRID[1]))
        colour, shape, room, door, lit = parts["heads"](tokens)
        patch, thing = (batch.best >= 0).nonzero(as_tuple=True)
        token = batch.best[patch, thing]
        for name, logits, labels in (("colour", colour, batch.colours), ("shape", shape, batch.shapes)):
            guess = logits[patch, token, 1:].argmax(-1) + 1
            right.setdefault(name, []).extend((guess == labels[patch, token]).float().tolist())
            empty = labels == NONE
            right.setdefault(f"{name}_none", []).extend((logits.argmax(-1)[empty] == NONE).float().tolist())
        for name, logits, labels in (("room", room, batch.rooms), ("door", door, batch.doors), ("lit", lit, batch.lit)):
            known = labels != IGNORE
            right.setdefault(name, []).extend((logits.argmax(-1) == labels)[known].float().tolist())
    return {name: float(np.mean(values)) for name, values in right.items()} | {"things": float(len(right["shape"]))}


def features(network: Network, shard: Shard, rng: np.random.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Encode a stream to tokens (P, T, D) and deepstack rows (K, P, T, D), as in the node.

    With `rng`, pictures are shifted, zoomed and noisy, MOVED_TOGETHER patches at a time alike. The tower was trained on
    these streams, so it recognises their things better than those of other worlds. Moving the pictures reduces this.
    """
    data = patch_set([shard])
    made = []
    for rows in np.array_split(np.arange(len(data)), max(1, len(data) // 120)):
        pixels = _normalised(data.frames[rows])
        if rng is not None:
            pixels, _ = _moved(pixels, data.boxes[rows], rng, MOVED_TOGETHER)
            pixels += MOVED_NOISE * torch.from_numpy(rng.standard_normal(pixels.shape, np.float32))
        with torch.no_grad():
            made.append(encode_patches(network.vision, _patchified(pixels), (2 * GRID[0], 2 * GRID[1])))
    return torch.cat([m[0] for m in made]), torch.cat([m[1] for m in made], dim=1)
