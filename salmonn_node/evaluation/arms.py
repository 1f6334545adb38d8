"""Arms of a comparison: discard rule, fast-weight update and recall, all given the same bytes of memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import torch

from salmonn_node.memory.token_batch import COLUMNS
from salmonn_node.model.config import SalmonnConfig
from salmonn_node.ttt.layer import TTTConfig, TTTLayer

RULES = ("recent", "fifo", "uniform", "merge", "paper", "place", "ends")
# What becomes of sound where it is not kept as sight is: the paper merges it, and so did we with `place`.
SOUND = {"paper": "merge", "place": "merge"}
UPDATES = ("", "sgd", "hf", "static")
_TITLES = {"": "", "sgd": "TTT-SGD", "hf": "TTT_HF", "static": "static weights"}


@dataclass(frozen=True)
class Arm:
    """One way to remember.

    Attributes:
        rule: discard rule of both token memories, of the visual one alone where SOUND names another; `recent` is a
            window of the last four patches, which needs far fewer bytes than the others by design, `fifo` the longest
            window that fits the bytes.
        update: update of the fast weights: "" (no TTT layer), "sgd", "hf", or "static" (never updated: the control).
        recall: the question reads the fast weights directly.
    """

    rule: str
    update: str = ""
    recall: bool = False

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule {self.rule!r} is none of {', '.join(RULES)}")
        if self.update not in UPDATES:
            raise ValueError(f"update {self.update!r} is none of sgd, hf, static, or empty")
        if self.recall and not self.update:
            raise ValueError(f"arm {self.rule}: recall reads fast weights, and there are none")

    @property
    def name(self) -> str:
        """As `parse_arms` reads it: "place+hf+recall"."""
        return "+".join(p for p in (self.rule, self.update, "recall" if self.recall else "") if p)

    @property
    def title(self) -> str:
        """As a table's row says it."""
        return ", ".join(p for p in (self.rule, _TITLES[self.update], "recall" if self.recall else "") if p)


def all_arms() -> list[Arm]:
    """Every rule without fast weights, and with each update, without and with recall."""
    arms = []
    for rule in RULES:
        arms.append(Arm(rule))
        arms += [Arm(rule, update, recall) for update in ("sgd", "hf") for recall in (False, True)]
        arms.append(Arm(rule, "static", True))
    return arms


# What the claims rest on: the windows everyone has, the paper's memory, ours, and the control of each read-out.
MAIN_ARMS = (
    Arm("recent"),
    Arm("fifo"),
    Arm("uniform"),
    Arm("merge"),
    Arm("paper"),
    Arm("paper", "sgd"),
    Arm("paper", "hf"),
    Arm("ends"),
    Arm("place"),
    Arm("place", "hf"),
    Arm("place", "static", True),
    Arm("place", "sgd", True),
    Arm("place", "hf", True),
)


def parse_arms(text: str) -> list[Arm]:
    """Arms from "fifo,place+hf+recall"; "main" and "all" name sets.

    Raises:
        ValueError: a part is no rule, update or "recall".
    """
    arms: list[Arm] = []
    for word in (w.strip() for w in text.split(",")):
        if word in ("main", "all"):
            arms += MAIN_ARMS if word == "main" else all_arms()
            continue
        rule, *rest = word.split("+")
        recall = "recall" in rest
        updates = [r for r in rest if r != "recall"]
        if len(updates) > 1:
            raise ValueError(f"arm {word!r} names two updates")
        arms.append(Arm(rule, updates[0] if updates else "", recall))
    return list(dict.fromkeys(arms))


@dataclass(frozen=True)
class MemoryBytes:
    """The most that a stream's memory ever holds, in bytes.

    Attributes:
        tokens: kept visual tokens and the step over the budget, features and table.
        audio: the same of the audio memory.
        fast_weights: the TTT state and the largest partial mini-batch that waits.
    """

    tokens: int
    audio: int
    fast_weights: int

    @property
    def total(self) -> int:
        """All together."""
        return self.tokens + self.audio + self.fast_weights


def token_bytes(config: SalmonnConfig, visual: bool = True) -> int:
    """Bytes of one kept token: features, deepstack rows of a visual one, and its row of the table."""
    width = int(config.text["hidden_size"])
    layers = 1 + (len(config.vision["deepstack_visual_indexes"]) if visual else 0)
    element = torch.empty(0, dtype=getattr(torch, config.dtype)).element_size()
    return layers * width * element + 8 * len(COLUMNS)


def fast_weight_bytes(config: SalmonnConfig) -> int:
    """Bytes of the TTT state and of the tokens that wait for a whole mini-batch; 0 without a layer."""
    if config.ttt is None:
        return 0
    width = int(config.text["hidden_size"])
    with torch.device("meta"):
        layer = TTTLayer(TTTConfig(hidden_size=width, **config.ttt))
        state = layer.init_state().nbytes
    waiting = int(config.ttt.get("mini_batch", TTTConfig.mini_batch)) - 1
    return state + waiting * (width * 4 + 24 + token_bytes(config))


def memory_bytes(config: SalmonnConfig, rule: str = "") -> MemoryBytes:
    """The most that a memory of this configuration holds."""
    m = config.memory
    visual = m.visual_tokens + m.visual_step
    if (rule or m.visual_rule) == "recent":
        visual = min(visual, 5 * patch_tokens(config))
    return MemoryBytes(
        visual * token_bytes(config),
        (m.audio_tokens + m.audio_step) * token_bytes(config, visual=False),
        fast_weight_bytes(config),
    )


def patch_tokens(config: SalmonnConfig) -> int:
    """At most this many tokens in one temporal patch of a frame."""
    side = int(config.vision["patch_size"]) * int(config.vision["spatial_merge_size"])
    return max(1, config.frames.max_pixels // side**2)


def configure(config: SalmonnConfig, arm: Arm) -> SalmonnConfig:
    """The configuration of an arm, at the bytes of `config`: without fast weights, more tokens are kept instead.

    Args:
        config: the reference, with a TTT layer; its bytes are what every arm may use.
        arm: what to compare.

    Raises:
        ValueError: the reference has no TTT layer but the arm needs one, or its bytes leave no room for tokens.
    """
    if arm.update and config.ttt is None:
        raise ValueError(f"arm {arm.name} needs a TTT layer, and configuration {config.name!r} has none")
    ttt = {**(config.ttt or {}), "optimizer": arm.update} if arm.update else None
    changed = config.replace(ttt=ttt, recall=arm.recall)
    spare = memory_bytes(config, "paper").total - memory_bytes(changed, "paper").total
    tokens = config.memory.visual_tokens + spare // token_bytes(config)
    if tokens < 1:
        raise ValueError(f"arm {arm.name}: its fast weights leave no room for a single token")
    sound = SOUND.get(arm.rule, arm.rule)
    return changed.replace(memory=replace(config.memory, visual_tokens=tokens, visual_rule=arm.rule, audio_rule=sound))


def changes(config: SalmonnConfig, name: str) -> dict[str, object]:
    """What the arm of that name changes of a configuration, as `model.checkpoint.load` takes it.

    Raises:
        ValueError: as `parse_arms` and `configure` do.
    """
    made = configure(config, parse_arms(name)[0])
    return {f.name: new for f in fields(made) if (new := getattr(made, f.name)) != getattr(config, f.name)}


def bytes_table(config: SalmonnConfig, arms: Iterable[Arm]) -> str:
    """Tokens and bytes of each arm as a table in Markdown, to be printed beside every comparison."""
    rows: list[Sequence[object]] = []
    for arm in arms:
        made = configure(config, arm)
        size = memory_bytes(made)
        rows.append((arm.title, made.memory.visual_tokens, size.tokens, size.audio, size.fast_weights, size.total))
    lines = ["| arm | visual tokens | their bytes | audio bytes | fast-weight bytes | total bytes |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    lines += ["| " + " | ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in row) + " |" for row in rows]
    return "\n".join(lines)
