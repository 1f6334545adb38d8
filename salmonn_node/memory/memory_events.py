"""Memory events and state parts: how other rooms follow the tokens and store their own state with the memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True, eq=False)
class MemoryEvent:
    """A change of the tokens in a view. Listeners use it to update what they computed from those tokens.

    Attributes:
        kind: `appended` (committed), `dropped`, `merged` (into another row), `changed` (features became a mean),
            `forgotten` (removed on request) or `cleared` (all tokens; index is empty).
        modality: `visual` or `audio`.
        index: (n,) int64 original indices.
    """

    kind: str
    modality: str
    index: Tensor


class StatePart(Protocol):
    """State of another room that is saved and cleared together with the memory."""

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and JSON values that restore the state bit for bit."""
        ...


@dataclass(frozen=True, eq=False)
class StoredPart:
    """A part as read from disk. Its room replaces it by the live object at first use."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and values as they were read."""
        return self.tensors, self.meta
