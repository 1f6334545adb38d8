"""From pixels and samples to tokens: the encoders of the network, one temporal patch or one audio window a call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.frames import fitted, patchify, resized
from salmonn_node.model.network import Network
from salmonn_node.model.pending_input import WaitingFrame, WaitingSound
from salmonn_node.model.sound import MelFrontEnd
from salmonn_node.stream.observations import SECOND_NS

# One audio token is half a second of sound.
TOKEN_NS = SECOND_NS // 2
TOKEN_SAMPLES = 8_000


class StreamEncoder:
    """The encoders and what prepares their input. It keeps nothing between calls.

    Args:
        config: of the network.
        network: its towers are used until others are put in their place.

    Attributes:
        vision: (B, h * w, C) patches and their grid (h, w) -> tokens (B, T, D), deepstack rows (K, B, T, D).
        audio: log-mel (B, mel_bins, frames) -> tokens (B, T, D); None when the network does not hear.
        mel: samples of a window to log-mel (mel_bins, frames); None when the network does not hear.
    """

    def __init__(self, config: SalmonnConfig, network: Network) -> None:
        self.config, self.network = config, network
        self.vision: Callable[[Tensor, tuple[int, int]], tuple[Tensor, Tensor]] = network.vision
        self.audio: Callable[[Tensor], Tensor] | None = network.audio
        self.mel = MelFrontEnd(config.audio) if config.audio else None

    def frame_size(self, image: npt.NDArray[np.uint8]) -> tuple[int, int]:
        """Height and width in pixels at which the vision tower sees an image (H, W, 3)."""
        high, wide, *_ = (*image.shape, 0, 0)
        vision, budget = self.config.vision, self.config.frames
        factor = vision["patch_size"] * vision["spatial_merge_size"]
        return resized(high, wide, factor, budget.min_pixels, budget.max_pixels)

    def fit(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The image at the resolution of the vision tower. To observe it instead changes no bit of the memory."""
        return fitted(image, self.frame_size(image))

    def patches(self, first: WaitingFrame, second: WaitingFrame | None) -> tuple[Tensor, tuple[int, int]]:
        """Two frames, or one repeated, as rows (h * w, C) for the vision encoder, and their grid (h, w)."""
        vision = self.config.vision
        other = first if second is None else second
        return patchify(first.pixels, other.pixels, vision["patch_size"], vision["spatial_merge_size"])

    def merged(self, grid: tuple[int, int]) -> tuple[int, int]:
        """The grid of tokens that a grid of patches becomes."""
        merge = int(self.config.vision["spatial_merge_size"])
        return grid[0] // merge, grid[1] // merge

    @torch.no_grad()
    def encode_patch(self, pixels: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """(h * w, C) -> tokens (T, D), and deepstack rows (K, T, D) or None. One patch a call keeps one batch shape."""
        pixels = pixels[None].to(device=self.network.device, dtype=self.network.dtype)
        tokens, deepstack = self.vision(pixels, grid)
        return tokens[0], deepstack[:, 0] if deepstack.shape[0] else None

    @torch.no_grad()
    def encode_window(self, mel: Tensor, tokens: int | None = None) -> Tensor:
        """(mel_bins, frames) log-mel -> (T, D), the first `tokens` of them when given.

        Raises:
            ValueError: the network has no audio tower.
        """
        if self.audio is None:
            raise ValueError("mel: this network has no audio tower")
        encoded = self.audio(mel[None].to(device=self.network.device, dtype=self.network.dtype))[0]
        return encoded[:tokens]

    def encode_sound(self, sound: WaitingSound, tokens: int | None = None) -> Tensor:
        """Samples of at most one window -> (T, D), the first `tokens` of them when given."""
        if self.mel is None:
            raise ValueError("samples: this network has no audio tower")
        return self.encode_window(self.mel(sound.samples), tokens)


def sound_tokens(sound: WaitingSound) -> int:
    """How many tokens stand for sound; the rest of a window would stand for the silence that fills it up."""
    return -(-len(sound.samples) // TOKEN_SAMPLES)


def audio_batch(following: tuple[int, int], tokens: Tensor, start_ns: int, source: int) -> TokenBatch:
    """Tokens (n, D) of one window as a batch; `following` is the next original index and the window's number."""
    index, window = following
    steps = torch.arange(len(tokens))
    fill = torch.ones_like(steps)
    return TokenBatch(
        tokens,
        None,
        index + steps,
        start_ns + steps * TOKEN_NS,
        fill * window,
        torch.zeros_like(steps),
        fill * source,
        -fill,
    )
