"""What the stream memory tells others, and what others keep with it: changes of its tokens, their own state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class MemoryEvent:
    """A change of the tokens that a view shows, for whoever keeps something computed from them.

    Attributes:
        kind: `appended` (committed), `dropped`, `merged` (into another row), `changed` (its features became a mean),
            `forgotten` (removed on request), `cleared` (all of them; index is empty).
        modality: `visual` or `audio`.
        index: (n,) int64 original indices.
    """

    kind: str
    modality: str
    index: Tensor


class StatePart(Protocol):
    """State of another room that lives, is saved and is cleared with the memory."""

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON values, bit for bit."""
        ...


@dataclass(frozen=True, eq=False)
class StoredPart:
    """A part as it was read from disk, until the room that owns it makes its own of it."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What was read."""
        return self.tensors, self.meta
