"""video-SALMONN S as a true stream: observations become memory as they come; a question runs the language model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.memory.event_memory import EventMemory
from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.memory.token_memory import TokenMemoryConfig
from salmonn_node.model.answer_generator import AnswerGenerator
from salmonn_node.model.cached_prefill import CachedPrefill
from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.memory_writer import MemoryWriter
from salmonn_node.model.network import Network
from salmonn_node.model.quantised_linear import quantise
from salmonn_node.model.released_mode import ReleasedMemoryWriter, ReleasedSceneBuilder
from salmonn_node.model.scene_builder import SceneBuilder
from salmonn_node.model.stream_encoder import StreamEncoder
from salmonn_node.model.tokenizer import TextTokenizer


@dataclass(frozen=True)
class CheckpointInfo:
    """Which weights these are.

    Attributes:
        id: digest that names the weights.
        name: what people call them.
        trained: False for random weights; every answer then says that it means nothing.
        card: path of the model card, None when there is none.
        missing: what this checkpoint cannot do, one sentence each.
        calibration: path of the calibration file, None when there is none.
    """

    id: str
    name: str
    trained: bool
    card: Path | None = None
    missing: tuple[str, ...] = ()
    calibration: Path | None = None


class VideoSalmonnS:
    """A network with its tokenizer, and the four parts that do the work; what a node calls are methods of the parts.

    One thread observes. Any thread may ask, one at a time.

    Attributes:
        config, network, tokenizer, checkpoint: what it was made of.
        event_heads: read-outs of the discard rule `events`; None where no memory uses it.
        encoder: turns pixels and samples into tokens; its encoders can be replaced by compiled ones.
        writer: takes observations into a memory.
        scenes: builds what a question sees of a memory.
        answers: reads a question and answers it.
    """

    def __init__(
        self,
        config: SalmonnConfig,
        network: Network,
        tokenizer: TextTokenizer,
        checkpoint: CheckpointInfo,
        event_heads: EventHeads | None = None,
    ) -> None:
        self.config, self.network, self.tokenizer, self.checkpoint = config, network.eval(), tokenizer, checkpoint
        released = config.mode == "released"
        prefill = CachedPrefill(config, network.language, tokenizer) if config.prefill == "cached" else None
        self.event_heads = event_heads
        self.encoder = StreamEncoder(config, network)
        write, build = (ReleasedMemoryWriter, ReleasedSceneBuilder) if released else (MemoryWriter, SceneBuilder)
        self.writer = write(config, self.encoder, tokenizer, prefill)
        self.scenes = build(self.writer, network.ttt)
        self.answers = AnswerGenerator(config, network, tokenizer, prefill)
        self.fit = self.encoder.fit
        self.observe_frame, self.observe_audio = self.writer.observe_frame, self.writer.observe_audio
        self.view = self.scenes.view
        self.prompt, self.answer, self.score = self.answers.prompt, self.answers.answer, self.answers.score

    @classmethod
    def untrained(cls, config: SalmonnConfig, tokenizer: TextTokenizer, seed: int = 0) -> VideoSalmonnS:
        """A network with random weights, the same for the same seed; it says that it is untrained."""
        network = Network(config).cast(getattr(torch, config.dtype))
        network.initialise(seed)
        suffix = ""
        if config.weights != "full":
            quantise(network, config.weights)
            suffix = f"-{config.weights}"
        info = CheckpointInfo(f"untrained-{config.name}-{seed}{suffix}", f"{config.name} (untrained)", trained=False)
        return cls(config, network, tokenizer, info)

    @classmethod
    def tiny(cls, seed: int = 0, **changes: Any) -> VideoSalmonnS:
        """The tiny network with random weights; `changes` replaces fields of its configuration."""
        from salmonn_node.model.tiny import tiny_config, tiny_tokenizer

        return cls.untrained(tiny_config(**changes), tiny_tokenizer(), seed)

    @property
    def hears(self) -> bool:
        """Whether there is an audio tower; without one, sound is not taken in."""
        return self.encoder.mel is not None

    def new_memory(self) -> StreamMemory:
        """An empty memory with this network's budgets and rules."""
        m = self.config.memory
        return StreamMemory(
            self.network.ttt,
            TokenMemoryConfig(m.visual_tokens, m.visual_step, m.visual_rule),
            TokenMemoryConfig(m.audio_tokens, m.audio_step, m.audio_rule),
            slice_patches=self.config.slice_patches,
            events=None if self.event_heads is None else EventMemory(self.event_heads),
        )
