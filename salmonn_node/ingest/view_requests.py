"""A view that is to be made at one point of the stream, so that a question sees the memory as it was then."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salmonn_node.memory.memory_view import MemoryView


@dataclass(eq=False)
class Look:
    """A view at `until_ns`: what is stamped later waits until it has been made; 0 holds nothing back.

    Attributes:
        done: set when `view` or, when that went wrong, `failure` has been set.
    """

    after_ns: int
    before_ns: int
    sources: tuple[str, ...]
    until_ns: int = 0
    view: MemoryView | None = None
    failure: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def made(self) -> bool:
        """Whether it is done."""
        return self.done.is_set()

    @property
    def window(self) -> tuple[int, int, tuple[str, ...]]:
        """What the view depends on, besides the point of the stream."""
        return self.after_ns, self.before_ns, self.sources
