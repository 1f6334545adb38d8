"""Arms at equal bytes: compute the maximum size of a memory, and give each arm the same number of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import torch

from salmonn_node.evaluation.arms import DEFAULT_ARM, Arm, parse_arms, split_name
from salmonn_node.memory.event_heads import KEY_SIZES
from salmonn_node.memory.event_memory import EventMemoryConfig
from salmonn_node.memory.token_batch import COLUMNS
from salmonn_node.model.checkpoint import config_of
from salmonn_node.model.config import SalmonnConfig
from salmonn_node.ttt.layer import TTTConfig, TTTLayer

# Rules for sound that differ from the rule for sight. The paper merges sound; `place` was measured with merged sound.
SOUND = {"paper": "merge", "place": "merge"}


@dataclass(frozen=True)
class MemoryBytes:
    """Maximum size of a stream's memory, in bytes.

    Attributes:
        tokens: visual tokens of the budget and one step, with features and table.
        audio: the same for the audio memory.
        fast_weights: the TTT state and the largest waiting mini-batch.
        events: the event memory of the rule `events`.
    """

    tokens: int
    audio: int
    fast_weights: int
    events: int = 0

    @property
    def total(self) -> int:
        """Total bytes."""
        return self.tokens + self.audio + self.fast_weights + self.events


def token_bytes(config: SalmonnConfig, visual: bool = True) -> int:
    """Bytes per kept token: features, deepstack rows (visual tokens only), and its row of the table."""
    width = int(config.text["hidden_size"])
    layers = 1 + (len(config.vision["deepstack_visual_indexes"]) if visual else 0)
    element = torch.empty(0, dtype=getattr(torch, config.dtype)).element_size()
    return layers * width * element + 8 * len(COLUMNS)


def fast_weight_bytes(config: SalmonnConfig) -> int:
    """Bytes of the TTT state and of the tokens that wait for a complete mini-batch. 0 without a layer."""
    if config.ttt is None:
        return 0
    width = int(config.text["hidden_size"])
    with torch.device("meta"):
        layer = TTTLayer(TTTConfig(hidden_size=width, **config.ttt))
        state = layer.init_state().nbytes
    waiting = int(config.ttt.get("mini_batch", TTTConfig.mini_batch)) - 1
    return state + waiting * (width * 4 + 24 + token_bytes(config))


def memory_bytes(config: SalmonnConfig, rule: str = "") -> MemoryBytes:
    """Return the maximum size of a memory of this configuration."""
    m = config.memory
    visual = m.visual_tokens + m.visual_step
    rule = rule or m.visual_rule
    if rule == "recent":
        visual = min(visual, 5 * patch_tokens(config))
    return MemoryBytes(
        visual * token_bytes(config),
        (m.audio_tokens + m.audio_step) * token_bytes(config, visual=False),
        fast_weight_bytes(config),
        EventMemoryConfig().most_bytes(KEY_SIZES) if rule == "events" else 0,
    )


def patch_tokens(config: SalmonnConfig) -> int:
    """Maximum number of tokens in one temporal patch."""
    side = int(config.vision["patch_size"]) * int(config.vision["spatial_merge_size"])
    return max(1, config.frames.max_pixels // side**2)


def configure(config: SalmonnConfig, arm: Arm) -> SalmonnConfig:
    """Return the configuration of an arm with the bytes of `config`. Without fast weights, it keeps more tokens.

    Args:
        config: the reference, with a TTT layer. Every arm may use its bytes.
        arm: the arm to configure.

    Raises:
        ValueError: the reference has no TTT layer but the arm needs one, or its bytes leave no room for tokens.
    """
    if arm.update and config.ttt is None:
        raise ValueError(f"arm {arm.name} needs a TTT layer, and configuration {config.name!r} has none")
    ttt = {**(config.ttt or {}), "optimizer": arm.update} if arm.update else None
    changed = config.replace(ttt=ttt, recall=arm.recall)
    # `recent` fills less than its budget by design, so it is given the tokens that any other rule has.
    full = "events" if arm.rule == "events" else "paper"
    spare = memory_bytes(config, "paper").total - memory_bytes(changed, full).total
    tokens = config.memory.visual_tokens + spare // token_bytes(config)
    if tokens < 1:
        raise ValueError(f"arm {arm.name}: its fast weights leave no room for a single token")
    sound = SOUND.get(arm.rule, arm.rule)
    return changed.replace(memory=replace(config.memory, visual_tokens=tokens, visual_rule=arm.rule, audio_rule=sound))


def changes(config: SalmonnConfig, name: str) -> dict[str, object]:
    """Return the configuration changes of an arm, for `model.checkpoint.load`.

    Raises:
        ValueError: as in `parse_arms` and `configure`.
    """
    made = configure(config, parse_arms(name)[0])
    return {f.name: new for f in fields(made) if (new := getattr(made, f.name)) != getattr(config, f.name)}


def bytes_table(config: SalmonnConfig, arms: Iterable[Arm]) -> str:
    """Return a Markdown table of tokens and bytes per arm, to print with every comparison."""
    rows: list[Sequence[object]] = []
    for arm in arms:
        made = configure(config, arm)
        size = memory_bytes(made)
        parts = (size.tokens, size.audio, size.fast_weights, size.events, size.total)
        rows.append((arm.title, made.memory.visual_tokens, *parts))
    lines = ["| arm | visual tokens | their bytes | audio bytes | fast-weight bytes | event bytes | total bytes |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    lines += ["| " + " | ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in row) + " |" for row in rows]
    return "\n".join(lines)


def arms_bytes(checkpoint: str, names: list[str]) -> str:
    """Return `bytes_table` for the arms of these names, without the checkpoint's own arm, which is the reference."""
    kept = dict.fromkeys(split_name(name)[0] for name in names)
    return bytes_table(config_of(checkpoint), [arm for n in kept if n != DEFAULT_ARM for arm in parse_arms(n)])
