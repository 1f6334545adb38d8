"""Bank of streams: tokens of rendered worlds, encoded once and composed to streams of any length."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from salmonn_node.lab.training import audio, vision
from salmonn_node.lab.training.bank import WorldSet, shard_path
from salmonn_node.lab.world.shards import Shard, read_shard, read_truth
from salmonn_node.lab.world.truth import Truth, compose
from salmonn_node.model.network import Network
from salmonn_node.model.sound import MelFrontEnd

# Pieces begin and end at audio window boundaries.
CUT_S = 4
# (number of the stream, first second, second after the last)
Piece = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens of a stream or of a piece of it.

    Attributes:
        z: (P, T, D) visual tokens of each temporal patch.
        deepstack: (K, P, T, D).
        audio: (2 * S, D) tokens, two a second.
        truth: truth of the S seconds. A patch has two seconds.
    """

    z: Tensor
    deepstack: Tensor
    audio: Tensor
    truth: Truth

    def piece(self, start_s: int, stop_s: int) -> Tokens:
        """Return seconds [start_s, stop_s). Both must be even."""
        low, high = start_s // 2, stop_s // 2
        return Tokens(
            self.z[low:high],
            self.deepstack[:, low:high],
            self.audio[2 * start_s : 2 * stop_s],
            self.truth.piece(start_s, stop_s),
        )


def joined(pieces: Sequence[Tokens]) -> Tokens:
    """Join pieces into one stream."""
    if len(pieces) == 1:
        return pieces[0]
    return Tokens(
        torch.cat([p.z for p in pieces]),
        torch.cat([p.deepstack for p in pieces], dim=1),
        torch.cat([p.audio for p in pieces]),
        compose([p.truth for p in pieces]),
    )


def encode(network: Network, shard: Shard) -> Tokens:
    """Encode a shard to tokens, as in the node."""
    assert network.config.audio is not None
    z, deepstack = vision.features(network, shard)
    heard = audio.features(
        network, shard.audio.reshape(-1).astype(np.float32) / 32767.0, MelFrontEnd(network.config.audio)
    )
    return Tokens(z, deepstack, heard, shard.truth)


def mirrored(truth: Truth) -> Truth:
    """Mirror a truth."""
    moments = tuple(
        replace(m, seen=tuple(replace(s, box=(1 - s.box[2], s.box[1], 1 - s.box[0], s.box[3])) for s in m.seen))
        for m in truth.moments
    )
    return replace(truth, moments=moments)


def in_mirror(shard: Shard) -> Shard:
    """Mirror a stream, and change volume and noise: the same events in other tokens."""
    rng = np.random.default_rng([shard.seed, 9])
    gain, hiss = 10 ** rng.uniform(-0.4, 0.1), 10 ** rng.uniform(0.5, 1.5)
    sound = shard.audio * gain + hiss * rng.standard_normal(shard.audio.shape, np.float32)
    light = shard.frames[:, :, ::-1] * rng.uniform(0.85, 1.1) + 2.0 * rng.standard_normal(
        shard.frames.shape, np.float32
    )
    return replace(
        shard, frames=light.clip(0, 255).astype(np.uint8), audio=sound.clip(-32767, 32767).astype(np.int16),
        truth=mirrored(shard.truth),
    )  # fmt: skip


@dataclass(frozen=True)
class Bank:
    """Encoded streams, and compositions of their pieces.

    Attributes:
        streams: streams of the worlds, then the mirrored ones.
        dense: for each stream, whether its world is dense.
        moved: the same streams with shifted and zoomed pictures, sampled by `seen`. May be empty.
    """

    streams: Sequence[Tokens]
    dense: Sequence[bool]
    moved: Sequence[Tokens] = ()

    def seen(self, number: int, rng: np.random.Generator | None = None) -> Tokens:
        """Return stream `number`. With `rng`, pictures are moved at random."""
        moved = rng is not None and bool(self.moved) and rng.random() < 0.5
        return (self.moved if moved else self.streams)[number]

    def stream(self, pieces: Sequence[Piece], rng: np.random.Generator | None = None) -> Tokens:
        """Join pieces into one stream, each as from `seen`."""
        return joined([self.seen(number, rng).piece(start, stop) for number, start, stop in pieces])


def read_bank(
    folder: Path,
    worlds: WorldSet,
    network: Network | None = None,
    *,
    limit: int = 0,
    twice: bool = False,
    moved: bool = False,
) -> Bank:
    """Read the encoded streams of a set of worlds.

    Args:
        folder: folder of all training data. Encoded streams are in `tokens/SET/`.
        worlds: the set of worlds.
        network: encodes missing streams.
        limit: maximum number of worlds.
        twice: add each world mirrored.
        moved: add each stream with moved pictures.

    Raises:
        FileNotFoundError: a stream has not been encoded, and there is no network to encode it.
    """
    streams, others, dense = [], [], []
    chosen = list(worlds.worlds())[: limit or None]
    for seed, is_dense, mirror in [(s, d, m) for m in ((False, True) if twice else (False,)) for s, d in chosen]:
        rendered = shard_path(folder, worlds, seed)
        truth = mirrored(read_truth(rendered)) if mirror else read_truth(rendered)
        name = f"{seed}{'_mirrored' if mirror else ''}"
        paths = [folder / "tokens" / worlds.name / f"{name}{end}.safetensors" for end in ("", "_moved")[: 1 + moved]]
        if missing := [path for path in paths if not path.exists()]:
            if network is None:
                raise FileNotFoundError(f"{missing[0]}: world {seed} has not been encoded")
            shard = in_mirror(read_shard(rendered)) if mirror else read_shard(rendered)
            for path in missing:
                _write(path, network, shard, path != paths[0])
        plain, *rest = (load_file(path) for path in paths)
        streams.append(Tokens(plain["z"], plain["deepstack"], plain["audio"], truth))
        # The sound is the same.
        others += [Tokens(m["z"], m["deepstack"], plain["audio"], truth) for m in rest]
        dense.append(is_dense)
    return Bank(streams, dense, others)


def _write(path: Path, network: Network, shard: Shard, moved: bool) -> None:
    """Encode a stream to a file, or only its visual tokens with moved pictures."""
    if moved:
        z, deepstack = vision.features(network, shard, np.random.default_rng([shard.seed, 10]))
        tensors = {"z": z, "deepstack": deepstack}
    else:
        made = encode(network, shard)
        tensors = {"z": made.z, "deepstack": made.deepstack, "audio": made.audio}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path))


class Pieces:
    """Draw pieces of streams from their truths alone.

    Args:
        truths: truths of the streams, in the order of the bank.
        dense: for each stream, whether it is dense.
    """

    def __init__(self, truths: Sequence[Truth], dense: Sequence[bool]) -> None:
        self._cuts = [quiet_seconds(truth) for truth in truths]
        self._dense = list(dense)
        self._chosen: Sequence[int] = range(len(self._dense))

    def among(self, worlds: int, rng: np.random.Generator) -> Pieces:
        """Restrict the draw to `worlds` random streams."""
        chosen = rng.choice(len(self._cuts), size=min(worlds, len(self._cuts)), replace=False).tolist()
        fewer = copy(self)
        fewer._chosen = chosen
        return fewer

    def piece(self, seconds: int, rng: np.random.Generator, dense: bool | None = None) -> Piece:
        """Draw about that many seconds of a random stream. No sound crosses the ends."""
        chosen = [i for i in self._chosen if dense is None or self._dense[i] == dense]
        for _ in range(100):
            number = chosen[int(rng.integers(len(chosen)))]
            cuts = self._cuts[number]
            start = cuts[int(rng.integers(len(cuts)))]
            stops = cuts[(cuts >= start + seconds) & (cuts <= start + seconds + 8)]
            if len(stops):
                return number, int(start), int(stops[0])
        raise ValueError(f"seconds={seconds}: no stream has such a piece")

    def several(self, seconds: int, piece_s: int, rng: np.random.Generator, dense: bool | None = None) -> list[Piece]:
        """Draw pieces of about `piece_s` seconds with a total of at least `seconds`."""
        found: list[Piece] = []
        while (total := sum(stop - start for _, start, stop in found)) < seconds:
            found.append(self.piece(min(piece_s, max(CUT_S, seconds - total)), rng, dense))
        return found


def quiet_seconds(truth: Truth) -> np.ndarray:
    """Multiples of CUT_S that no sound crosses, including both ends."""
    cuts = np.arange(0, truth.seconds + 1, CUT_S)
    busy = np.zeros(len(cuts), bool)
    for sound in truth.sounds:
        busy |= (sound.start_s < cuts) & (cuts < sound.end_s)
    return cuts[~busy]
