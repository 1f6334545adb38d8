"""What became of a recording's messages, topic by topic: promised, read, used, left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class TopicAccount:
    """The messages of one topic.

    Attributes:
        promised: what the recording says there are; None when it cannot say.
        read: what its files gave.
        used: what became an observation, or was heard beside them (CameraInfo, tf).
        left_out: reason -> messages that were not used.
        examples: reason -> what was wrong with the first of them.
    """

    promised: int | None = None
    read: int = 0
    used: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)


class Account:
    """Counts by topic, and sentences for the user.

    Attributes:
        topics: what is counted, by topic.
        notes: what was chosen, missing or damaged, and what might have been used and is not.
        details: what else is not used.
        complete: whether the recording was read to its end.
        partial: only a stretch is read, so that what is promised of the whole says nothing.
    """

    def __init__(self) -> None:
        self.topics: dict[str, TopicAccount] = {}
        self.notes: list[str] = []
        self.details: list[str] = []
        self.complete = False
        self.partial = False

    def expect(self, topics: Iterable[tuple[str, int | None]]) -> None:
        """Count these topics anew, each with what is promised of it."""
        self.topics = {name: TopicAccount(promised) for name, promised in topics}
        self.complete = False

    def leave_out(self, topic: str, reason: str, text: str) -> None:
        """Count a message that is not used."""
        account = self.topics[topic]
        account.left_out[reason] += 1
        account.examples.setdefault(reason, text)

    @property
    def used(self) -> Counter[str]:
        """Topic -> messages that were used."""
        return Counter({name: account.used for name, account in self.topics.items() if account.used})

    @property
    def dropped(self) -> Counter[str]:
        """Reason -> messages that were read and not used."""
        total: Counter[str] = Counter()
        for account in self.topics.values():
            total.update(account.left_out)
        return total

    def differences(self) -> list[str]:
        """Where what was read is not what was promised, or was not used; empty before all has been read."""
        if not self.complete:
            return []
        found = []
        untold = [
            f"{name} {account.read}"
            for name, account in self.topics.items()
            if account.promised is None and not self.partial
        ]
        if untold:
            found.append(f"how many messages there were is not known; read were: {', '.join(untold)}")
        for name, account in self.topics.items():
            if account.promised is not None and not self.partial and account.read != account.promised:
                found.append(f"{name}: {account.read} messages read, {account.promised} promised")
            for reason, count in sorted(account.left_out.items()):
                found.append(
                    f"{name}: {count} of {account.read} messages left out, {reason}: {account.examples[reason]}"
                )
        return found

    def to_json(self) -> dict[str, Any]:
        """The counts by topic."""
        return {
            name: {
                "promised": account.promised,
                "read": account.read,
                "used": account.used,
                "left_out": dict(sorted(account.left_out.items())),
            }
            for name, account in self.topics.items()
        }
