"""Stream encoder: pixels and samples to tokens, one temporal patch or one audio window per call."""

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

# Each audio token covers half a second of sound.
TOKEN_NS = SECOND_NS // 2
TOKEN_SAMPLES = 8_000


class StreamEncoder:
    """The encoders and their preprocessing. It keeps nothing between calls.

    Args:
        config: of the network.
        network: its towers are used until you replace `vision` and `audio`.

    Attributes:
        vision: (B, h * w, C) patches and their grid (h, w) -> tokens (B, T, D), deepstack rows (K, B, T, D).
        audio: log-mel (B, mel_bins, frames) -> tokens (B, T, D). None without an audio tower.
        mel: samples of a window -> log-mel (mel_bins, frames). None without an audio tower.
    """

    def __init__(self, config: SalmonnConfig, network: Network) -> None:
        self.config, self.network = config, network
        self.vision: Callable[[Tensor, tuple[int, int]], tuple[Tensor, Tensor]] = network.vision
        self.audio: Callable[[Tensor], Tensor] | None = network.audio
        self.mel = MelFrontEnd(config.audio) if config.audio else None

    def frame_size(self, image: npt.NDArray[np.uint8]) -> tuple[int, int]:
        """Height and width in pixels to which an image (H, W, 3) is resized for the vision tower."""
        high, wide, *_ = (*image.shape, 0, 0)
        vision, budget = self.config.vision, self.config.frames
        factor = vision["patch_size"] * vision["spatial_merge_size"]
        return resized(high, wide, factor, budget.min_pixels, budget.max_pixels)

    def fit(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Resize an image for the vision tower. Observing the result gives the same memory, bit for bit."""
        return fitted(image, self.frame_size(image))

    def patches(self, first: WaitingFrame, second: WaitingFrame | None) -> tuple[Tensor, tuple[int, int]]:
        """Convert two frames, or one repeated, to rows (h * w, C) for the vision encoder. Also return (h, w)."""
        vision = self.config.vision
        other = first if second is None else second
        return patchify(first.pixels, other.pixels, vision["patch_size"], vision["spatial_merge_size"])

    def merged(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Grid of tokens for a grid of patches."""
        merge = int(self.config.vision["spatial_merge_size"])
        return grid[0] // merge, grid[1] // merge

    @torch.no_grad()
    def encode_patch(self, pixels: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Encode (h * w, C) to tokens (T, D), and deepstack rows (K, T, D) or None. The batch is always one patch."""
        pixels = pixels[None].to(device=self.network.device, dtype=self.network.dtype)
        tokens, deepstack = self.vision(pixels, grid)
        return tokens[0], deepstack[:, 0] if deepstack.shape[0] else None

    @torch.no_grad()
    def encode_window(self, mel: Tensor, tokens: int | None = None) -> Tensor:
        """Encode log-mel (mel_bins, frames) to (T, D). With `tokens`, return only the first ones.

        Raises:
            ValueError: the network has no audio tower.
        """
        if self.audio is None:
            raise ValueError("mel: this network has no audio tower")
        encoded = self.audio(mel[None].to(device=self.network.device, dtype=self.network.dtype))[0]
        return encoded[:tokens]

    def encode_sound(self, sound: WaitingSound, tokens: int | None = None) -> Tensor:
        """Encode the samples of at most one window to (T, D). With `tokens`, return only the first ones."""
        if self.mel is None:
            raise ValueError("samples: this network has no audio tower")
        return self.encode_window(self.mel(sound.samples), tokens)


def sound_tokens(sound: WaitingSound) -> int:
    """Number of tokens that cover sound. The other tokens of a window would cover its padding."""
    return -(-len(sound.samples) // TOKEN_SAMPLES)


def audio_batch(following: tuple[int, int], tokens: Tensor, start_ns: int, source: int) -> TokenBatch:
    """Make a batch of the tokens (n, D) of a window. `following` is the next original index and the window number."""
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
