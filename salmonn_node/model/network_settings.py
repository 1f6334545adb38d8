"""Network settings, shared by node, replay and ask: which network, which device, how much memory."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from salmonn_node.model.checkpoint_cache import TINY
from salmonn_node.model.config import PREFILLS, WEIGHTS, SalmonnConfig
from salmonn_node.model.setting import check_settings, setting

if TYPE_CHECKING:
    from salmonn_node.model.video_salmonn_s import VideoSalmonnS

AUTO, NEVER = "auto", "never"
DEVICES = (AUTO, "cpu", "cuda")
# The step is a fourth of the budget, and there is one time mark per sixteen visual tokens. These are the ratios of the
# published budgets: 16 384 tokens, a step of 4 096 and 1 024 marks.
STEP_SHARE, MARK_SHARE = 4, 16
LEAST_MARKS = 64


@dataclass(frozen=True)
class NetworkSettings:
    """Settings of a network. The metadata of each field holds its description, its choices and its closed range.

    Attributes:
        checkpoint: "tiny", a folder, a short name or a hub id, see `model/checkpoint_cache.py`.
        device: "auto" uses the GPU if there is one.
        weights: "full", "int8" or "int4", see `model/quantised_linear.py`.
        prefill: how a question reads the memory, "exact" or "cached". "auto" uses the checkpoint's setting.
        visual_tokens, audio_tokens: budgets of the memory. 0 uses the checkpoint's budgets.
        max_new_tokens: maximum length of an answer, in tokens.
        read_events: "auto" answers from events where the checkpoint brings what that needs; "never" does not.
    """

    checkpoint: str = setting(
        TINY, "Checkpoint of the network: tiny, a folder, or a name that you gave to `salmonn checkpoint get`."
    )
    device: str = setting(AUTO, "Device of the network. auto: the GPU if there is one.", choices=DEVICES)
    weights: str = setting(
        "full", "Weights of the language model. int8: half the bytes; int4: a third, less exact.", choices=WEIGHTS
    )
    prefill: str = setting(
        AUTO,
        "How questions read the memory. exact: read it anew; cached: use keys and values computed during ingest; "
        "auto: the checkpoint's setting.",
        choices=(AUTO, *PREFILLS),
    )
    visual_tokens: int = setting(0, "Memory budget for sight, in tokens. 0: the checkpoint's own.", high=1 << 20)
    audio_tokens: int = setting(0, "Memory budget for sound, in tokens. 0: the checkpoint's own.", high=1 << 20)
    max_new_tokens: int = setting(64, "Maximum length of an answer, in tokens.", low=1, high=4096)
    read_events: str = setting(
        AUTO,
        "Whether questions of known forms are answered from the event memory. auto: where the checkpoint brings what "
        "that needs; never: the network answers all.",
        choices=(AUTO, NEVER),
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def changed(self, config: SalmonnConfig) -> SalmonnConfig:
        """Apply these settings to the configuration of a checkpoint."""
        memory = config.memory
        for name in ("visual", "audio"):
            budget = getattr(self, f"{name}_tokens")
            if budget:
                step = max(1, budget // STEP_SHARE)
                memory = dataclasses.replace(memory, **{f"{name}_tokens": budget, f"{name}_step": step})
        marks = config.max_time_marks
        if self.visual_tokens:
            marks = min(marks, max(LEAST_MARKS, self.visual_tokens // MARK_SHARE))
        prefill = config.prefill if self.prefill == AUTO else self.prefill
        return config.replace(memory=memory, max_time_marks=marks, prefill=prefill, weights=self.weights)


def device_of(name: str) -> str:
    """Resolve the setting to "cuda" or "cpu".

    Raises:
        ValueError: the setting is "cuda", but torch sees no GPU.
    """
    import torch

    if name == AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: cuda, but torch sees no GPU; `salmonn doctor` says what is missing")
    return name


def load_network(settings: NetworkSettings, **changes: object) -> VideoSalmonnS:
    """Load the network that the settings describe.

    Args:
        settings: the settings.
        changes: further configuration fields to replace.

    Raises:
        ValueError: the device, the checkpoint or a value does not exist.
        FileNotFoundError: the checkpoint is not on this machine.
    """
    from salmonn_node.model.checkpoint import config_of, load

    config = settings.changed(config_of(settings.checkpoint))
    names = ("memory", "max_time_marks", "prefill", "weights")
    wanted: dict[str, Any] = {name: getattr(config, name) for name in names} | changes
    return load(settings.checkpoint, device_of(settings.device), read_events=settings.read_events != NEVER, **wanted)
