"""View requests: requests for a view of the memory at one moment of the stream, and the list of those that wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salmonn_node.model.scene_view import SceneView


@dataclass(eq=False)
class ViewRequest:
    """A request for a view of the memory at one moment of the stream.

    Attributes:
        after_ns, before_ns, sources: the window that the view shows; see `Observer.wait_for_view`.
        until_ns: the moment. Observations with a later stamp wait until the view is made; with 0, none wait.
        view: the view, once it is made.
        failure: why the view could not be made; "" otherwise.
        done: set once `view` or `failure` is filled.
    """

    after_ns: int
    before_ns: int
    sources: tuple[str, ...]
    until_ns: int = 0
    view: SceneView | None = None
    failure: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def made(self) -> bool:
        """Whether the view was made or failed, so that `result` is final."""
        return self.done.is_set()

    @property
    def window(self) -> tuple[int, int, tuple[str, ...]]:
        """What the view depends on besides the moment: (after_ns, before_ns, sources)."""
        return self.after_ns, self.before_ns, self.sources

    def result(self) -> SceneView | None:
        """The view; None until it is made. Raises RuntimeError when it could not be made."""
        if self.failure:
            raise RuntimeError(self.failure)
        return self.view


class WaitingViews:
    """The requests whose moment has not passed yet, and the released ones whose view is not made yet.

    Attributes:
        passed_ns: latest moment of this session for which a view was released.
    """

    def __init__(self) -> None:
        self.passed_ns = 0
        self._requests: list[ViewRequest] = []
        self._released: set[ViewRequest] = set()

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def held_ns(self) -> int:
        """Observations stamped later than this wait for a view; 0 when none has to wait."""
        return min((request.until_ns for request in self._requests), default=0)

    def add(self, request: ViewRequest) -> None:
        """Add a request that waits for its moment."""
        self._requests.append(request)

    def release(self, reached: Callable[[int], bool]) -> Iterator[ViewRequest]:
        """Yield the requests whose moment is reached, each once. The caller makes their views next, in this order."""
        for request in self._requests:
            if request not in self._released and reached(request.until_ns):
                self.passed_ns = max(self.passed_ns, request.until_ns)
                self._released.add(request)
                yield request

    def remove(self, request: ViewRequest) -> bool:
        """Remove a request that was made or is no longer wanted; False if it is not in the list."""
        self._released.discard(request)
        if request not in self._requests:
            return False
        self._requests.remove(request)
        return True
