"""Read-outs that tell events apart: is something there, is it in plain view, what does it look or sound like.

They are small, come with a checkpoint, and are the only part of the event memory that is trained. A key is a
projection of a token's features in which one appearance, or one sound, is one direction; nothing here names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from salmonn_node.memory.readout_file import save_readout

# A sound is read with the half second before and after it.
AUDIO_CONTEXT = 3
# Sizes of the visual key, the audio key and the key of a view.
KEY_SIZES = (15, 24, 16)


class Sighted(NamedTuple):
    """What is read from the T tokens of a patch."""

    presence: Tensor  # (T,) 0..1: something is there
    clear: Tensor  # (T, 2) 0..1: it is in plain view in the first frame, in the second
    steady: Tensor  # (T,) 0..1: it is one thing, the same in both frames
    key: Tensor  # (T, K) of length 1
    view: Tensor  # (K_v,) of length 1: the whole picture, to recognise a place by


class Heard(NamedTuple):
    """What is read from one audio token."""

    presence: float  # 0..1: not silent
    onsets: float  # how many rings, knocks, barks begin in it
    key: Tensor  # (K_a,) of length 1


class EventHeads(nn.Module):
    """The read-outs of both modalities.

    Args:
        visual_width: features of a visual token, z and deepstack rows together.
        audio_width: features of an audio token.
        rows: D of the visual token, over which each of z and the deepstack rows is normalised by itself.
        keys: sizes of the visual key, the audio key and the key of a view.
        hidden: width of the hidden layers.
    """

    def __init__(
        self,
        visual_width: int,
        audio_width: int,
        rows: int,
        keys: tuple[int, int, int] = KEY_SIZES,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        self.rows = rows
        self.visual_key = nn.Linear(visual_width, keys[0])
        self.visual_state = nn.Sequential(nn.Linear(visual_width, hidden), nn.GELU(), nn.Linear(hidden, 4))
        self.view_key = nn.Linear(visual_width, keys[2])
        self.audio_key = nn.Linear(AUDIO_CONTEXT * audio_width, keys[1])
        self.audio_state = nn.Sequential(
            nn.Linear(AUDIO_CONTEXT * audio_width, hidden), nn.GELU(), nn.Linear(hidden, 2)
        )

    @property
    def key_sizes(self) -> tuple[int, int, int]:
        """Sizes of the visual key, the audio key and the key of a view."""
        return self.visual_key.out_features, self.audio_key.out_features, self.view_key.out_features

    def visual_features(self, features: Tensor) -> Tensor:
        """(..., F) features with each row of D channels normalised to mean 0 and deviation 1."""
        return _standard(features.float().unflatten(-1, (-1, self.rows))).flatten(-2)

    def audio_features(self, before: Tensor, now: Tensor, after: Tensor) -> Tensor:
        """(..., 3 D): a token with its neighbours, each normalised; zeros where there is none stay zeros."""
        return _standard(torch.stack([before, now, after], dim=-2).float()).flatten(-2)

    @torch.no_grad()
    def look(self, features: Tensor, present_above: float = -1.0) -> Sighted:
        """Read the tokens (T, F) of one patch, wherever they lie; the read-outs run on the CPU.

        Where no token has a presence above `present_above`, the keys are zeros: nobody needs them.
        """
        x = self.visual_features(features.cpu())
        state = torch.sigmoid(self.visual_state(x))
        presence, clear, steady = state[:, 0], state[:, 1:3], state[:, 3]
        visual, _, view = self.key_sizes
        if float(presence.max()) <= present_above:
            return Sighted(presence, clear, steady, torch.zeros(len(x), visual), torch.zeros(view))
        key = functional.normalize(self.visual_key(x), dim=-1)
        return Sighted(presence, clear, steady, key, functional.normalize(self.view_key(x.mean(0)), dim=-1))

    @torch.no_grad()
    def listen(self, tokens: Tensor, present_above: float = -1.0) -> list[Heard]:
        """Read audio tokens that follow one another, all but the first and the last, which are only neighbours.

        A key is zeros where there is no presence above `present_above`. What is read of a token is the same, bit for
        bit, whatever is read with it: sums over features are taken token by token.

        Args:
            tokens: (n + 2, D); zeros where there is no token.
            present_above: as above.
        """
        if len(tokens) < AUDIO_CONTEXT:
            return []
        enter, _, leave = self.audio_state
        assert isinstance(enter, nn.Linear)
        assert isinstance(leave, nn.Linear)
        key = self.audio_key
        normal = _standard(tokens.cpu().float())
        windows = normal.flatten().unfold(0, AUDIO_CONTEXT * normal.shape[1], normal.shape[1]).unbind()
        hidden = torch.stack([torch.addmv(enter.bias, enter.weight, x) for x in windows])
        out = []
        for x, row in zip(windows, functional.gelu(hidden).unbind(), strict=True):
            state = torch.addmv(leave.bias, leave.weight, row)
            presence, onsets = float(torch.sigmoid(state)[0]), max(float(state[1]), 0.0)
            if presence <= present_above:
                out.append(Heard(presence, onsets, torch.zeros(len(key.bias))))
            else:
                out.append(Heard(presence, onsets, functional.normalize(torch.addmv(key.bias, key.weight, x), dim=0)))
        return out

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        save_readout(self, path, "rows", self.rows)

    @classmethod
    def load(cls, path: Path) -> EventHeads:
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        tensors = load_file(str(path))
        with safe_open(str(path), framework="pt") as file:
            rows = int((file.metadata() or {}).get("rows", 0))
        try:
            visual, audio, view = (len(tensors[f"{name}_key.bias"]) for name in ("visual", "audio", "view"))
            width, heard = tensors["visual_key.weight"].shape[1], tensors["audio_key.weight"].shape[1] // AUDIO_CONTEXT
            hidden = len(tensors["visual_state.0.bias"])
            heads = cls(width, heard, rows or width, (visual, audio, view), hidden)
            heads.load_state_dict(tensors)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{path}: expected the read-outs of events, found other tensors ({error})") from error
        return heads.eval()


def _standard(x: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over the last dimension; zeros stay zeros."""
    x = x - x.mean(-1, keepdim=True)
    return x / (x.std(-1, keepdim=True) + 1e-5)
