"""Fit the read-outs that tell events apart (`memory/event_heads.py`) on encoded streams of training worlds.

Keys are linear discriminants in closed form: directions in which tokens of one appearance agree and others differ.
Presence, plainness and onsets are two small networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from salmonn_node.lab.training.audio import token_labels
from salmonn_node.lab.training.sizes import GRID
from salmonn_node.lab.training.streams import Tokens
from salmonn_node.lab.training.vision import COLOUR, COVERED, NONE, SHAPE, patch_labels
from salmonn_node.lab.world.truth import SoundTruth, Truth
from salmonn_node.memory.event_heads import EventHeads

Array = npt.NDArray[np.float64]

STEPS, BATCH, RATE = 600, 512, 3e-3
SHRINK = 0.02  # of the within-class scatter towards a sphere


def discriminants(x: Array, labels: Array, size: int) -> tuple[Array, Array]:
    """Linear discriminants of rows x (N, F) with indicator labels (N, L): weights (size, F) and bias (size,)."""
    centre = x.mean(0)
    centred = x - centre
    gram = labels.T @ labels + 0.3 * np.eye(labels.shape[1])
    explained = labels @ np.linalg.solve(gram, labels.T @ centred)
    rest = centred - explained
    within = rest.T @ rest / len(x)
    between = explained.T @ explained / len(x)
    sphere = SHRINK * np.trace(within) / len(within) * np.eye(len(within))
    # In coordinates in which the scatter within a class is a sphere, the directions that differ most between classes.
    inverse = np.linalg.inv(np.linalg.cholesky(within + sphere))
    _, vectors = np.linalg.eigh(inverse @ between @ inverse.T)
    weight = (inverse.T @ vectors[:, ::-1][:, :size]).T
    return weight, -weight @ centre


def fit(
    streams: Iterable[Tokens], sounds: Iterable[tuple[Tensor, tuple[SoundTruth, ...]]] = (), seed: int = 0
) -> EventHeads:
    """Fit the read-outs.

    Args:
        streams: encoded streams of training worlds.
        sounds: further audio tokens (T, D) with what was to be heard.
        seed: of the small networks.
    """
    streams = list(streams)
    heard = [(t.audio, t.truth.sounds) for t in streams] + list(sounds)
    first = streams[0]
    width = first.z.shape[2]
    torch.manual_seed(seed)
    heads = EventHeads(width * (1 + len(first.deepstack)), first.audio.shape[1], width)
    _fit_sights(heads, streams)
    _fit_sounds(heads, heard)
    return heads.eval()


def _fit_sights(heads: EventHeads, streams: list[Tokens]) -> None:
    features = torch.cat([heads.visual_features(torch.cat([t.z, *t.deepstack], dim=-1)).flatten(0, 1) for t in streams])
    colours, shapes, rooms = (torch.cat(part) for part in zip(*(patch_labels(t.truth) for t in streams), strict=True))
    plain = torch.cat([plainness(t.truth) for t in streams]).flatten(0, 1)
    colours, shapes = colours.flatten(), shapes.flatten()
    known = (colours > NONE) & (shapes > NONE)
    labels = np.concatenate(
        [np.eye(len(COLOUR) + 1)[colours[known]][:, 1:], np.eye(len(SHAPE) + 1)[shapes[known]][:, 1:]], axis=1
    )
    _set(heads.visual_key, *discriminants(features[known].double().numpy(), labels, heads.key_sizes[0]))
    views = features.unflatten(0, (-1, GRID[0] * GRID[1])).mean(1).double().numpy()
    _, vectors = np.linalg.eigh(np.cov(views.T))
    weight = vectors[:, ::-1][:, : heads.key_sizes[2]].T
    _set(heads.view_key, weight, -weight @ views.mean(0))
    presence = torch.where(shapes == NONE, 0.0, torch.where(shapes > NONE, 1.0, torch.nan))
    seen = (plain >= 0).all(1)
    steady = torch.where(shapes > NONE, 1.0, torch.where(shapes == NONE, torch.nan, 0.0))
    target = torch.cat(
        [presence[:, None], torch.where(seen[:, None], plain.float(), torch.nan), steady[:, None]], dim=1
    )
    # Most cells show nothing; a third of those is enough.
    keep = (shapes != NONE) | (torch.rand(len(shapes), generator=torch.Generator().manual_seed(1)) < 0.35)
    _train(heads.visual_state, features[keep], target[keep], _masked_bce)


def _fit_sounds(heads: EventHeads, heard: list[tuple[Tensor, tuple[SoundTruth, ...]]]) -> None:
    x, classes, onsets = [], [], []
    for tokens, sounds in heard:
        none = torch.zeros_like(tokens[:1])
        x.append(heads.audio_features(torch.cat([none, tokens[:-1]]), tokens, torch.cat([tokens[1:], none])))
        here, begins = token_labels(sounds, len(tokens))
        classes.append(torch.from_numpy(here))
        onsets.append(torch.from_numpy(begins).sum(1))
    features, labels, begin = torch.cat(x), torch.cat(classes), torch.cat(onsets).float()
    one = (labels == 1).sum(1) == 1
    indicators = (labels[one] == 1).double().numpy()
    _set(heads.audio_key, *discriminants(features[one].double().numpy(), indicators, heads.key_sizes[1]))
    loud = (labels == 1).any(1)
    presence = torch.where(loud, 1.0, torch.where((labels == -1).any(1), torch.nan, 0.0))
    target = torch.stack([presence, begin], dim=1)

    def loss(out: Tensor, wanted: Tensor) -> Tensor:
        return _masked_bce(out[:, :1], wanted[:, :1]) + functional.smooth_l1_loss(out[:, 1], wanted[:, 1])

    keep = loud | (torch.rand(len(loud), generator=torch.Generator().manual_seed(2)) < 0.35)
    _train(heads.audio_state, features[keep], target[keep], loss)


def plainness(truth: Truth) -> Tensor:
    """(P, T, 2) int64: in each frame of a patch, is what covers a cell in plain view; -1 where nothing covers it."""
    high, wide = GRID
    out = np.full((truth.seconds // 2, high * wide, 2), -1, np.int64)
    for patch in range(len(out)):
        for frame in range(2):
            for seen in truth.moments[2 * patch + frame].seen:
                x0, y0, x1, y1 = seen.box
                for cell in range(high * wide):
                    low, column = divmod(cell, wide)
                    x = min(x1, (column + 1) / wide) - max(x0, column / wide)
                    y = min(y1, (low + 1) / high) - max(y0, low / high)
                    large = x * y * high * wide >= COVERED or x * y >= 0.5 * (x1 - x0) * (y1 - y0)
                    if x > 0 and y > 0 and large:
                        out[patch, cell, frame] = max(out[patch, cell, frame], int(seen.clear))
    # What shows in one frame only is not in plain view in the other.
    once = (out == -1) & (out[:, :, ::-1] >= 0)
    out[once] = 0
    return torch.from_numpy(out)


def _set(layer: nn.Linear, weight: Array, bias: Array) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
        layer.bias.copy_(torch.from_numpy(bias))


def _masked_bce(out: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross-entropy over the targets that are not NaN."""
    known = ~wanted.isnan()
    return functional.binary_cross_entropy_with_logits(out[known], wanted[known])


def _train(network: nn.Module, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        value = loss(network(functional.dropout(x[rows], 0.1)), y[rows])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
