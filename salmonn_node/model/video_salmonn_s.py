"""video-SALMONN S as a true stream: observations become memory as they arrive; a question runs the language model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.memory.event_log import EventLog
from salmonn_node.memory.event_memory import BESIDE, EventMemory
from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.memory.token_memory import TokenMemoryConfig
from salmonn_node.model.answer_generator import AnswerGenerator
from salmonn_node.model.cached_prefill import CachedPrefill
from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.event_parts import EventParts
from salmonn_node.model.memory_writer import MemoryWriter
from salmonn_node.model.network import Network
from salmonn_node.model.quantised_linear import quantise
from salmonn_node.model.released_mode import ReleasedMemoryWriter, ReleasedSceneBuilder
from salmonn_node.model.scene_builder import SceneBuilder
from salmonn_node.model.stream_encoder import StreamEncoder
from salmonn_node.model.tokenizer import TextTokenizer


@dataclass(frozen=True)
class CheckpointInfo:
    """Description of the loaded weights.

    Attributes:
        id: digest that identifies the weights.
        name: name to show to users.
        trained: False for random weights. Every answer then carries a warning that it is meaningless.
        card: path of the model card, None when there is none.
        missing: abilities that this checkpoint lacks, one sentence each.
        calibration: path of the calibration file, None when there is none.
    """

    id: str
    name: str
    trained: bool
    card: Path | None = None
    missing: tuple[str, ...] = ()
    calibration: Path | None = None


class VideoSalmonnS:
    """A network with its tokenizer, and the four parts that do the work. A node calls the methods of these parts.

    One thread observes. Any thread may ask, but only one at a time.

    Attributes:
        config, network, tokenizer, checkpoint: the components it was made of.
        event_heads: read-outs of the discard rule `events`. None if no memory uses the rule.
        event_parts: what answers from events need. With it, every memory keeps events. None: the network alone answers.
        event_log: an empty log. Every new memory gets one like it; None keeps no log.
        encoder: encodes pixels and samples into tokens. You can replace its encoders by compiled ones.
        writer: writes observations into a memory.
        scenes: builds the view of a memory that a question sees.
        answers: answers questions.
    """

    def __init__(
        self,
        config: SalmonnConfig,
        network: Network,
        tokenizer: TextTokenizer,
        checkpoint: CheckpointInfo,
        event_heads: EventHeads | None = None,
        event_parts: EventParts | None = None,
    ) -> None:
        self.config, self.network, self.tokenizer, self.checkpoint = config, network.eval(), tokenizer, checkpoint
        released = config.mode == "released"
        prefill = CachedPrefill(config, network.language, tokenizer) if config.prefill == "cached" else None
        self.event_heads, self.event_parts = event_heads, event_parts
        self.event_log: EventLog | None = None
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
        """Make a network with random weights from a seed. It reports that it is untrained."""
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
        """Make the tiny network with random weights. `changes` replaces fields of its configuration."""
        from salmonn_node.model.tiny import tiny_config, tiny_tokenizer

        return cls.untrained(tiny_config(**changes), tiny_tokenizer(), seed)

    @property
    def hears(self) -> bool:
        """Whether the network has an audio tower. Without one, sound is ignored."""
        return self.encoder.mel is not None

    def new_memory(self) -> StreamMemory:
        """Return an empty memory with this network's budgets and rules."""
        m = self.config.memory
        events = None if self.event_heads is None else EventMemory(self.event_heads)
        if events is None and self.event_parts is not None:
            events = EventMemory(self.event_parts.heads, BESIDE)
        return StreamMemory(
            self.network.ttt,
            TokenMemoryConfig(m.visual_tokens, m.visual_step, m.visual_rule),
            TokenMemoryConfig(m.audio_tokens, m.audio_step, m.audio_rule),
            slice_patches=self.config.slice_patches,
            events=events,
            log=None if self.event_log is None else self.event_log.fresh(),
        )
