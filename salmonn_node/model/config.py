"""Network configuration: sizes of towers, fast weights and memory, and the mode (streaming or released)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from salmonn_node.model.chat_format import ChatFormat

CONFIG_FILE = "config.json"
MODES = ("streaming", "released")
TIME_MARKS = ("kept", "all")
PREFILLS = ("exact", "cached")
WEIGHTS = ("full", "int8", "int4")
# A removed setting. We still write it, because ids of checkpoints and stored memories are digests of these values.
FORMER = {"deterministic": True}


@dataclass(frozen=True)
class FrameConfig:
    """How a camera image becomes patches.

    Attributes:
        max_pixels: maximum size of a resized frame, in pixels.
        min_pixels: minimum size of a resized frame, in pixels.
    """

    max_pixels: int = 176_400
    min_pixels: int = 784


@dataclass(frozen=True)
class AudioConfig:
    """Sizes of the audio tower: a Whisper encoder, a windowed Q-Former, and a projection to the language model's width.

    Attributes:
        d_model, layers, heads, ffn: sizes of the Whisper encoder.
        mel_bins: number of log-mel channels.
        window_s: seconds of sound per window. A second has 100 mel frames and 50 encoder frames.
        pool_frames: encoder frames per token (25 frames = 0.5 s).
        qformer_hidden, qformer_layers, qformer_heads, qformer_ffn: sizes of the Q-Former.
        mel_scaling: "whisper" normalises by the loudest bin of the window. "fixed" does not depend on the window.
    """

    d_model: int = 1280
    layers: int = 32
    heads: int = 20
    ffn: int = 5120
    mel_bins: int = 128
    window_s: int = 30
    pool_frames: int = 25
    qformer_hidden: int = 3072
    qformer_layers: int = 2
    qformer_heads: int = 12
    qformer_ffn: int = 12288
    mel_scaling: str = "whisper"

    @property
    def window_samples(self) -> int:
        """Samples per window at 16 kHz."""
        return self.window_s * 16_000

    @property
    def window_tokens(self) -> int:
        """Tokens per window."""
        return self.window_s * 50 // self.pool_frames


@dataclass(frozen=True)
class MemoryConfig:
    """Budgets and rules of the token memory.

    Attributes:
        visual_tokens, audio_tokens: budget of each modality, in tokens.
        visual_step, audio_step: tokens over the budget at which the memory is cut back to it.
        visual_rule, audio_rule: discard rules. `memory/discard_rules.py: RULES` says what each does.
    """

    visual_tokens: int = 16_384
    audio_tokens: int = 4_096
    visual_step: int = 4_096
    audio_step: int = 4_096
    visual_rule: str = "paper"
    audio_rule: str = "merge"


@dataclass(frozen=True)
class ReaderConfig:
    """Settings of the prompt-dependent reader; see `model/reader.py`.

    Attributes:
        working_tokens: memory tokens that each layer keeps for a question, M. 0 turns the reader off.
        group_tokens: context tokens read at a time, including text, G.
        div_factor: diversity weight, delta. Above 0, scores are cosines, lower for tokens similar to their neighbours.
        score: "dot" is the raw product, as released. "attention" is the softmax weight of the same pass (ours).
    """

    working_tokens: int = 0
    group_tokens: int = 0
    div_factor: float = 0.0
    score: str = "dot"

    def __post_init__(self) -> None:
        for name in ("working_tokens", "group_tokens", "div_factor"):
            if getattr(self, name) < 0:
                raise ValueError(f"reader.{name}: expected 0 or more, got {getattr(self, name)}")
        if self.working_tokens and not self.group_tokens:
            raise ValueError("reader.group_tokens: expected at least 1 when working_tokens is set, got 0")
        if self.score not in ("dot", "attention"):
            raise ValueError(f"reader.score: {self.score!r} is neither dot nor attention")


@dataclass(frozen=True)
class SalmonnConfig:
    """Complete configuration of a network and its behaviour.

    You will most likely change `memory` (how much is kept, and by which rule), `weights` and `prefill`. The rest
    belongs to the weights.

    Attributes:
        name: short name of the network.
        vision: arguments of transformers' Qwen3VLVisionConfig.
        text: arguments of transformers' Qwen3VLTextConfig.
        audio: None if the network has no audio tower.
        ttt: arguments of `TTTConfig` besides `hidden_size`. None if there are no fast weights.
        mode: "streaming" (ours) or "released" (equal to the public release: padded slices train the fast weights).
        slice_patches: temporal patches per slice in released mode.
        time_marks: "kept" (a patch without a kept token adds no text) or "all".
        max_time_marks: maximum number of time marks in a streaming prompt, evenly spaced. The release has 6 000.
        prefill: "exact" or "cached", see `model/cached_prefill.py`.
        prefill_chunk: tokens the language model reads at once.
        cached_chunk: tokens that the cached prefill computes at once.
        evidence_head: add a pointer over memory tokens (see `model/evidence_head.py`).
        recall: let the question read the fast weights directly (see `model/evidence_head.py`).
        tied_embeddings: lm_head shares the embedding table.
        dtype: torch dtype name of the weights.
        weights: "full", "int8" or "int4", for the decoder layers (`model/quantised_linear.py`). Chosen when loading.
        patch_period_s: seconds between the starts of two temporal patches of a camera.
        chat: text around memory and question in the prompt, see `model/chat_format.py`. Not written to config.json.
    """

    name: str
    vision: Mapping[str, Any]
    text: Mapping[str, Any]
    audio: AudioConfig | None = None
    ttt: Mapping[str, Any] | None = None
    frames: FrameConfig = field(default_factory=FrameConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    mode: Literal["streaming", "released"] = "streaming"
    slice_patches: int = 64
    time_marks: str = "kept"
    max_time_marks: int = 1_024
    prefill: str = "exact"
    prefill_chunk: int = 1_024
    cached_chunk: int = 256
    evidence_head: bool = False
    recall: bool = False
    tied_embeddings: bool = False
    dtype: str = "bfloat16"
    weights: str = "full"
    patch_period_s: float = 2.0
    chat: ChatFormat = field(default_factory=ChatFormat)

    def __post_init__(self) -> None:
        choices = (("mode", MODES), ("time_marks", TIME_MARKS), ("prefill", PREFILLS), ("weights", WEIGHTS))
        for name, allowed in choices:
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(allowed)}")
        if self.vision["out_hidden_size"] != self.text["hidden_size"]:
            raise ValueError("vision.out_hidden_size must equal text.hidden_size")
        for name in ("slice_patches", "max_time_marks", "prefill_chunk", "cached_chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.recall and self.ttt is None:
            raise ValueError("recall needs fast weights: ttt is not set")

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return int(self.text["hidden_size"])

    @property
    def max_position(self) -> int:
        """Number of positions that the language model supports."""
        return int(self.text.get("max_position_embeddings", 262_144))

    @property
    def all_marks(self) -> bool:
        """Whether a temporal patch shows its time mark even if none of its tokens is kept, as in the release."""
        return self.time_marks == "all" or self.mode == "released"

    def replace(self, **changes: Any) -> SalmonnConfig:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = dataclasses.asdict(self) | FORMER
        del values["chat"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SalmonnConfig:
        """Make a configuration from the values of `to_dict`.

        Raises:
            ValueError: a field is unknown or out of range.
        """
        known = {f.name for f in dataclasses.fields(cls)} - {"chat"}
        unknown = sorted(set(values) - known - set(FORMER))
        if unknown:
            raise ValueError(f"unknown configuration fields: {', '.join(unknown)}")
        parts = {name: value for name, value in values.items() if name not in FORMER}
        for name, kind in (
            ("audio", AudioConfig),
            ("frames", FrameConfig),
            ("memory", MemoryConfig),
            ("reader", ReaderConfig),
        ):
            if parts.get(name) is not None:
                try:
                    parts[name] = kind(**parts[name])
                except TypeError as error:
                    raise ValueError(f"{name}: {error}") from None
        return cls(**parts)

    def save(self, folder: Path) -> None:
        """Write `config.json` into a folder."""
        (folder / CONFIG_FILE).write_text(json.dumps({"salmonn_node": self.to_dict()}, indent=1, sort_keys=True) + "\n")
