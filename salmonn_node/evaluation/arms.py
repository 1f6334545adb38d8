"""Arms of a comparison: discard rule, fast-weight update, recall, and how a question reads the memory."""

from __future__ import annotations

from dataclasses import dataclass

# The checkpoint as it is. Every other arm changes how its memory is kept.
DEFAULT_ARM = "default"
# The last part of an arm's name may set how the memory is read: "default+cached", "place+hf+exact".
PREFILLS = ("exact", "cached")
RULES = ("recent", "fifo", "uniform", "merge", "paper", "place", "ends", "events")
UPDATES = ("", "sgd", "hf", "static")
_TITLES = {"": "", "sgd": "TTT-SGD", "hf": "TTT_HF", "static": "static weights"}


@dataclass(frozen=True)
class Arm:
    """One way to keep a memory.

    Attributes:
        rule: discard rule of both token memories, or only of the visual one if SOUND names another for sound. `recent`
            is a window of the last four patches; by design it needs far fewer bytes than the others. `fifo` is the
            longest window that fits the bytes.
        update: update of the fast weights: "" (no TTT layer), "sgd", "hf", or "static" (never updated, the control).
        recall: whether the question reads the fast weights directly.
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
        """Name in the form that `parse_arms` reads, such as "place+hf+recall"."""
        return "+".join(p for p in (self.rule, self.update, "recall" if self.recall else "") if p)

    @property
    def title(self) -> str:
        """Title for a row of a table."""
        return ", ".join(p for p in (self.rule, _TITLES[self.update], "recall" if self.recall else "") if p)


def all_arms() -> list[Arm]:
    """Return all arms: each rule without fast weights, and with each update, without and with recall."""
    arms = []
    for rule in RULES:
        arms.append(Arm(rule))
        arms += [Arm(rule, update, recall) for update in ("sgd", "hf") for recall in (False, True)]
        arms.append(Arm(rule, "static", True))
    return arms


# The arms behind our claims: simple windows, the paper's memory, ours, and a control for each read-out.
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
    """Parse arms such as "fifo,place+hf+recall". "main" and "all" name sets of arms.

    Raises:
        ValueError: a part is not a rule, an update or "recall".
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


def arm_names(text: str) -> list[str]:
    """Return the names of the arms in "default,place,place+hf+recall". "main" and "all" name sets of arms.

    Raises:
        ValueError: an arm is unknown.
    """
    names: list[str] = []
    for word in (w.strip() for w in text.split(",")):
        kept, prefill = split_name(word)
        found = [DEFAULT_ARM] if kept == DEFAULT_ARM else [arm.name for arm in parse_arms(kept)]
        names += [f"{name}+{prefill}" if prefill else name for name in found]
    return list(dict.fromkeys(names))


def split_name(name: str) -> tuple[str, str]:
    """Split a name into how the memory is kept and how it is read ("" for the checkpoint's own setting)."""
    kept, _, last = name.rpartition("+")
    return (kept, last) if last in PREFILLS else (name, "")
