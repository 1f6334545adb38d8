"""Stage 2: train the audio tower to recognise the sounds of each half second. Sound is cheap, so it gets a lot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from salmonn_node.lab.training.loop import Figures, Plan
from salmonn_node.lab.world.schedule import DENSE
from salmonn_node.lab.world.shards import Shard
from salmonn_node.lab.world.sounds import SOUNDS
from salmonn_node.lab.world.stream import World
from salmonn_node.lab.world.truth import SoundTruth
from salmonn_node.model.network import Network
from salmonn_node.model.sound import MelFrontEnd
from salmonn_node.stream.observations import SAMPLE_RATE_HZ

CLASSES = tuple(SOUNDS)
UNITS = tuple(name for name, sound in SOUNDS.items() if sound.max_repeats > 1)
TOKEN_S = 0.5
MEL_HZ = 100
MOST_ONSETS = 3  # onsets in one half second: 0, 1, 2
HEARD_S = 0.1  # minimum length of a sound within a half second to be labelled there
EXTRA_FIRST, EXTRA_COUNT, EXTRA_SECONDS = 20_000, 100, 480
HELD_OUT_FIRST, HELD_OUT_COUNT = 410_000, 6
PLAN = Plan("audio", steps=1500, rate=3e-3, warmup=50)
BATCH = 48


@dataclass
class SoundSet:
    """Sound of many streams as log-mel, with the labels of each half second.

    Attributes:
        mel: (N, mel_bins, 100 * S) float16.
        classes: (N, 2 * S, C) int8: 1 audible, 0 not, -1 doubtful.
        onsets: (N, 2 * S, U) int8: number of rings, knocks, ... that begin.
        sounds: the true sounds of each stream.
    """

    mel: npt.NDArray[np.float16]
    classes: npt.NDArray[np.int8]
    onsets: npt.NDArray[np.int8]
    sounds: list[tuple[SoundTruth, ...]]


def noisy_worlds(first: int, count: int) -> Iterable[tuple[npt.NDArray[np.float32], tuple[SoundTruth, ...]]]:
    """Yield samples and sounds of worlds with a sound every few seconds. These worlds are never rendered."""
    for seed in range(first, first + count):
        world = World(seed, EXTRA_SECONDS, True, replace(DENSE, sound_s=3.0))
        yield np.concatenate([world.microphone.second(k) for k in range(EXTRA_SECONDS)]), world.sounds


def shard_sounds(shards: Iterable[Shard]) -> Iterable[tuple[npt.NDArray[np.float32], tuple[SoundTruth, ...]]]:
    """Yield samples and sounds of rendered streams."""
    for shard in shards:
        yield shard.audio.reshape(-1).astype(np.float32) / 32767.0, shard.truth.sounds


def sound_set(
    streams: Iterable[tuple[npt.NDArray[np.float32], tuple[SoundTruth, ...]]], front_end: MelFrontEnd
) -> SoundSet:
    """Compute log-mel and labels of streams of equal length."""
    window = front_end.config.window_samples
    mels, classes, onsets, sounds = [], [], [], []
    for samples, heard in streams:
        parts = [front_end(samples[i : i + window]) for i in range(0, len(samples), window)]
        mels.append(torch.cat(parts, dim=1).half().numpy())
        tokens = round(len(samples) / SAMPLE_RATE_HZ / TOKEN_S)
        labels = [token_labels(heard, tokens)]
        classes.append(labels[0][0])
        onsets.append(labels[0][1])
        sounds.append(heard)
    return SoundSet(np.stack(mels), np.stack(classes), np.stack(onsets), sounds)


def token_labels(sounds: Iterable[SoundTruth], tokens: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """Return (tokens, C): is each class audible in each half second? And (tokens, U): number of onsets there."""
    classes = np.zeros((tokens, len(CLASSES)), np.int8)
    onsets = np.zeros((tokens, len(UNITS)), np.int8)
    edges = np.arange(tokens + 1) * TOKEN_S
    for sound in sounds:
        column = CLASSES.index(sound.name)
        overlap = np.clip(np.minimum(edges[1:], sound.end_s) - np.maximum(edges[:-1], sound.start_s), 0, None)
        plain = (overlap >= HEARD_S) & sound.clear
        doubtful = (overlap > 0) & ~plain if sound.clear or sound.faint else np.zeros(tokens, bool)
        classes[doubtful & (classes[:, column] != 1), column] = -1
        classes[plain, column] = 1
        if sound.name in UNITS and sound.clear:
            for i in range(sound.repeats):
                at = int((sound.start_s + i * SOUNDS[sound.name].next_s) / TOKEN_S)
                if at < tokens:
                    onsets[at, UNITS.index(sound.name)] = min(onsets[at, UNITS.index(sound.name)] + 1, MOST_ONSETS - 1)
    return classes, onsets


class AudioHeads(nn.Module):
    """Heads on each half second's token, for training the tower. Not part of the network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, len(CLASSES))
        self.onsets = nn.Linear(width, len(UNITS) * MOST_ONSETS)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, D) -> (B, T, C) logits, (B, T, U, 3) logits."""
        tokens = self.norm(tokens)
        return self.classes(tokens), self.onsets(tokens).unflatten(-1, (len(UNITS), MOST_ONSETS))


def modules(network: Network) -> nn.ModuleDict:
    """Return the modules that this stage trains."""
    assert network.audio is not None
    return nn.ModuleDict({"audio": network.audio, "heads": AudioHeads(network.config.hidden_size)})


Batch = tuple[Tensor, Tensor, Tensor]


def batch_of(data: SoundSet, window_s: int, rng: np.random.Generator) -> Batch:
    """Make a batch of windows that begin at any half second. Some end in silence, as at the end of a stream."""
    frames, tokens = window_s * MEL_HZ, round(window_s / TOKEN_S)
    streams = rng.integers(0, len(data.mel), BATCH)
    starts = rng.integers(0, data.classes.shape[1] - tokens + 1, BATCH)
    mel = np.stack([data.mel[s][:, t * 50 : t * 50 + frames] for s, t in zip(streams, starts, strict=True)])
    mel = mel.astype(np.float32)
    classes = np.stack([data.classes[s, t : t + tokens] for s, t in zip(streams, starts, strict=True)]).copy()
    onsets = np.stack([data.onsets[s, t : t + tokens] for s, t in zip(streams, starts, strict=True)]).copy()
    for i in (rng.random(BATCH) < 0.15).nonzero()[0]:
        cut = int(rng.integers(1, tokens))
        mel[i, :, cut * 50 :] = -1.0
        classes[i, cut - 1 :][classes[i, cut - 1 :] == 1] = -1
        classes[i, cut:], onsets[i, cut:] = 0, 0
    # Random gain. The scaling of the mel is fixed, so a gain is a shift.
    mel = np.maximum(mel + rng.normal(0, 0.05, (BATCH, 1, 1)).astype(np.float32), -1.0)
    return torch.from_numpy(mel), torch.from_numpy(classes), torch.from_numpy(onsets)


def loss_of(parts: nn.ModuleDict, batch: Batch) -> tuple[Tensor, Figures]:
    """Binary cross-entropy of the classes, and cross-entropy of onsets where their class is audible."""
    mel, classes, onsets = batch
    logits, begins = parts["heads"](parts["audio"](mel))
    known = classes >= 0
    heard = functional.binary_cross_entropy_with_logits(
        logits[known], classes[known].float(), pos_weight=torch.tensor(4.0)
    )
    active = torch.stack([classes[..., CLASSES.index(name)] == 1 for name in UNITS], dim=-1)
    # Where a class is not audible, nothing begins. A sample of such places is enough to learn that.
    count = functional.cross_entropy(begins[active], onsets[active].long()) if bool(active.any()) else heard * 0
    return 10 * heard + 0.5 * count, {"heard": float(heard.detach()), "count": float(count.detach())}


def scores(parts: nn.ModuleDict, data: SoundSet, window_s: int) -> Figures:
    """Score held-out streams: shares of clear sounds, of half seconds and of onset counts that are right."""
    tokens = round(window_s / TOKEN_S)
    named, quiet, onsets, whole = [], [], [], []
    for mel, classes, begins, sounds in zip(data.mel, data.classes, data.onsets, data.sounds, strict=True):
        windows = torch.from_numpy(mel.astype(np.float32)).unflatten(1, (-1, window_s * MEL_HZ)).transpose(0, 1)
        logits, counts = parts["heads"](parts["audio"](windows))
        assert logits.shape[1] == tokens
        probability = logits.flatten(0, 1).sigmoid()
        guess = counts.flatten(0, 1).argmax(-1)
        quiet += (probability[torch.from_numpy((classes == 0).all(1))].amax(1) < 0.5).tolist()
        for sound in sounds:
            low, high = int(sound.start_s / TOKEN_S), min(int(sound.end_s / TOKEN_S) + 1, len(classes))
            here = torch.from_numpy((classes[low:high] == 1).any(0))
            if not sound.clear or low >= high:
                continue
            mean = probability[low:high].mean(0)
            mean[here & (torch.arange(len(CLASSES)) != CLASSES.index(sound.name))] = 0  # another sound at the same time
            named.append(float(mean.argmax() == CLASSES.index(sound.name)))
            if sound.name in UNITS:
                unit = UNITS.index(sound.name)
                active = torch.from_numpy(classes[low:high, CLASSES.index(sound.name)] == 1)
                right = guess[low:high, unit] == torch.from_numpy(begins[low:high, unit].astype(np.int64))
                onsets += right[active].float().tolist()
                whole.append(float(int(guess[low:high, unit][active].sum()) == sound.repeats))
    return {
        "sounds": float(np.mean(named)),
        "quiet": float(np.mean(quiet)),
        "onsets": float(np.mean(onsets)),
        "counts": float(np.mean(whole)),
        "n": float(len(named)),
    }


def features(network: Network, samples: npt.NDArray[np.float32], front_end: MelFrontEnd) -> Tensor:
    """(2 * S, D): tokens of a stream, encoded window by window as in the node."""
    window = front_end.config.window_samples
    assert network.audio is not None
    with torch.no_grad():
        made = [network.audio(front_end(samples[i : i + window])[None])[0] for i in range(0, len(samples), window)]
    return torch.cat(made)
