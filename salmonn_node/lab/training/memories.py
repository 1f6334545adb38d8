"""Run encoded tokens through the real memory code, to get the node's memory after minutes or hours quickly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from salmonn_node.lab.training.sizes import GRID
from salmonn_node.lab.training.streams import CUT_S, Tokens
from salmonn_node.lab.world.truth import START_NS
from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import SECOND_NS

CAMERA, MICROPHONE = "camera", "microphone"
PIXEL_GRID = (2 * GRID[0], 2 * GRID[1])


@dataclass
class StoredEncoders:
    """Replacement for both encoders of a model: maps the number of a patch or window to its stored tokens."""

    tokens: Tokens

    def vision(self, pixels: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Look up the number (1, 1, 1) -> tokens (1, T, D), deepstack rows (K, 1, T, D)."""
        number = int(pixels.flatten()[0])
        return self.tokens.z[number][None], self.tokens.deepstack[:, number][:, None]

    def audio(self, mel: Tensor) -> Tensor:
        """Look up the number (1, 1, 1) -> tokens (1, window, D)."""
        number = int(mel.flatten()[0])
        return self.tokens.audio[None, number * 2 * CUT_S : (number + 1) * 2 * CUT_S]


def observe(model: VideoSalmonnS, memory: StreamMemory, tokens: Tokens, start_s: int = 0) -> Iterable[list[Moment]]:
    """Observe a stream with a memory. Yield the moments of each CUT_S seconds.

    Args:
        model: model whose encoders are replaced while this runs.
        memory: memory of the model.
        tokens: the stream.
        start_s: second of the memory's clock at which the stream begins.
    """
    encoders = StoredEncoders(tokens)
    was = model.encoder.vision, model.encoder.audio
    model.encoder.vision, model.encoder.audio = encoders.vision, encoders.audio
    try:
        for second in range(0, tokens.truth.seconds, CUT_S):
            moments = []
            at = START_NS + (start_s + second) * SECOND_NS
            for patch in range(second // 2, min((second + CUT_S) // 2, len(tokens.z))):
                stamp = START_NS + (start_s + 2 * patch) * SECOND_NS
                pixels = torch.tensor([[float(patch)]])
                moments.append(
                    model.writer.observe_patch(memory, pixels, PIXEL_GRID, (stamp, stamp + SECOND_NS), CAMERA, patch)
                )
            moments += model.writer.observe_window(memory, torch.tensor([[float(second // CUT_S)]]), at, MICROPHONE)
            yield moments
    finally:
        model.encoder.vision, model.encoder.audio = was
