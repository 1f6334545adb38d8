"""Services that manage the memory: clear, save, load, forget an interval, describe, timeline, one moment."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode

from salmonn_interfaces.srv import (
    ClearMemory,
    ForgetInterval,
    GetMemoryInfo,
    GetMoment,
    GetTimeline,
    LoadMemory,
    SaveMemory,
)
from salmonn_node.client.qos import MANY_AT_ONCE
from salmonn_node.memory.kept import kept_timeline, moment_near
from salmonn_node.messages import MessageError, RosTypes, stamp_ns
from salmonn_node.messages.answers import evidence_to_message
from salmonn_node.messages.base import time_message
from salmonn_node.messages.kept import fill_timeline
from salmonn_node.ros.parameters import MEMORY_NAME
from salmonn_node.ros.status import memory_status
from salmonn_node.runtime.build import Backend
from salmonn_node.stream.observations import Interval

if TYPE_CHECKING:
    from salmonn_node.storage.persistence import Persistence

# All services share one numbering of error codes (see SaveMemory.srv).
NOT_CONFIRMED, WRONG_STATE, INVALID_NAME, NOT_FOUND, STORAGE_ERROR, EXISTS, INCOMPATIBLE, LOCKED, INVALID_INTERVAL = (
    range(100, 109)
)
NO_STORE = "this node keeps no memory on disk (persistence is off)"


class _RefusedError(Exception):
    """The request is refused with this error code and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class MemoryServices:
    """The node's memory services. They exist as long as the node.

    Args:
        node: owner of the services.
        backend: returns the backend; None unless the node is inactive or active.
        load: replaces the running memory with a stored one; returns None unless the node is inactive.
        gone: called with the memory's id after a clear (interval None) or after an interval was forgotten.
    """

    def __init__(
        self,
        node: LifecycleNode,
        backend: Callable[[], Backend | None],
        load: Callable[[str], Backend | None],
        gone: Callable[[str, Interval | None], None] = lambda memory_id, interval: None,
    ) -> None:
        self._backend = backend
        self._load = load
        self._gone = gone
        self._types = RosTypes()
        # One at a time, so that no service sees the half-done work of another.
        group = MutuallyExclusiveCallbackGroup()
        for service_type, name, callback in (
            (ClearMemory, "clear_memory", self._on_clear),
            (SaveMemory, "save_memory", self._on_save),
            (LoadMemory, "load_memory", self._on_load),
            (ForgetInterval, "forget_interval", self._on_forget),
            (GetMemoryInfo, "get_memory_info", self._on_info),
            (GetTimeline, "get_timeline", self._on_timeline),
            (GetMoment, "get_moment", self._on_moment),
        ):
            node.create_service(
                service_type, f"~/{name}", _answering(callback), qos_profile=MANY_AT_ONCE, callback_group=group
            )

    def _on_clear(self, request: Any, response: Any) -> None:
        if not request.confirm:
            raise _RefusedError(NOT_CONFIRMED, "confirm is false: nothing was cleared")
        backend = self._running()
        if backend.persistence is not None:
            backend.persistence.clear()
        else:
            backend.observer.restart()
            backend.observer.drain()
        response.memory_id = backend.observer.memory_id
        self._gone(backend.observer.memory_id, None)

    def _on_save(self, request: Any, response: Any) -> None:
        persistence = self._stored()
        store = persistence.store
        own = store.place.name
        name = _checked(request.name) if request.name else own
        if name == own:
            if not persistence.save():
                raise _RefusedError(STORAGE_ERROR, store.problem)
        else:
            persistence.save_as(name, overwrite=request.overwrite)
        response.name = name
        response.size_bytes = _describe(store.place.root, name).size_bytes

    def _on_load(self, request: Any, response: Any) -> None:
        store = self._stored().store
        name = _checked(request.name)
        _describe(store.place.root, name)
        backend = self._load(name)
        if backend is None:
            raise _RefusedError(WRONG_STATE, "the node is not inactive: deactivate it first")
        response.status = memory_status(backend)

    def _on_forget(self, request: Any, response: Any) -> None:
        start, end = stamp_ns(request.start), stamp_ns(request.end)
        if start < 0 or end < start:
            raise _RefusedError(
                INVALID_INTERVAL, f"start ({start} ns) must not be negative or later than end ({end} ns)"
            )
        persistence = self._stored()
        try:
            forgotten = persistence.forget(Interval(start, end))
        finally:
            # Do this even if the disk write failed. `end` may lie ahead; do not include observations still to come.
            observer = persistence.observer
            interval = Interval(start, max(start, min(end, observer.newest_ns)))
            self._gone(observer.memory_id, interval)
        response.tokens_forgotten = forgotten.tokens
        response.evidence_forgotten = forgotten.evidence
        response.weights_reverted = forgotten.weights_reverted
        response.weights_from = time_message(self._types, forgotten.weights_from_ns)
        if forgotten.copies:
            # The interval is forgotten here, but not everywhere. The caller must know that.
            response.error_msg = f"other stored memories still contain the interval: {', '.join(forgotten.copies)}"

    def _on_info(self, request: Any, response: Any) -> None:
        from salmonn_node.storage.directory import list_memories

        backend = self._running()
        if backend.persistence is None:
            if request.name:
                raise _RefusedError(NOT_FOUND, NO_STORE)
            response.status = memory_status(backend)
            return
        place = backend.persistence.store.place
        name = _checked(request.name) if request.name else place.name
        stored = _describe(place.root, name)
        if name == place.name:
            response.status = memory_status(backend)
        elif stored.manifests:
            newest = stored.manifests[0]
            response.status.memory_id = name
            response.status.memory_start = time_message(self._types, newest.start_ns)
            response.status.last_observation = time_message(self._types, newest.newest_ns)
        response.stored = list_memories(place.root)
        response.snapshots = len(stored.manifests)
        response.size_bytes = stored.size_bytes

    def _on_timeline(self, request: Any, response: Any) -> None:
        observer = self._running().observer
        try:
            timeline = kept_timeline(
                observer.memory,
                observer.evidence,
                observer.memory_id,
                after_ns=stamp_ns(request.after),
                before_ns=stamp_ns(request.before),
                max_bins=request.max_bins,
                max_poses=request.max_poses,
            )
        except ValueError as error:
            raise _RefusedError(INVALID_INTERVAL, str(error)) from error
        fill_timeline(self._types, response, timeline)

    def _on_moment(self, request: Any, response: Any) -> None:
        observer = self._running().observer
        moment = moment_near(observer.memory, observer.evidence, str(request.source), stamp_ns(request.stamp))
        if moment is None:
            raise _RefusedError(NOT_FOUND, f"nothing of {request.source[:80]!r} is kept")
        response.moment = evidence_to_message(self._types, moment)

    def _running(self) -> Backend:
        backend = self._backend()
        if backend is None:
            raise _RefusedError(WRONG_STATE, "the node is neither inactive nor active")
        return backend

    def _stored(self) -> Persistence:
        persistence = self._running().persistence
        if persistence is None:
            raise _RefusedError(WRONG_STATE, NO_STORE)
        return persistence


def _checked(name: str) -> str:
    if not MEMORY_NAME.fullmatch(name):
        raise _RefusedError(INVALID_NAME, f"name must be 1 to 64 letters, digits, '-' or '_', got {name[:80]!r}")
    return name


def _describe(root: Path, name: str) -> Any:
    from salmonn_node.storage.directory import MemoryPlace, describe

    return describe(MemoryPlace(root, name))


def _answering(work: Callable[[Any, Any], None]) -> Callable[[Any, Any], Any]:
    """Wrap a callback so that exceptions become the error code and text of the response."""

    @functools.wraps(work)
    def callback(request: Any, response: Any) -> Any:
        from salmonn_node.storage.directory import LockedError
        from salmonn_node.storage.snapshot import DamagedError, IncompatibleError

        codes: tuple[tuple[type[Exception], int], ...] = (
            (FileNotFoundError, NOT_FOUND),
            (FileExistsError, EXISTS),
            (LockedError, LOCKED),
            (IncompatibleError, INCOMPATIBLE),
            (DamagedError, STORAGE_ERROR),
            (MessageError, INVALID_NAME),
            (OSError, STORAGE_ERROR),
        )
        try:
            work(request, response)
        except _RefusedError as refused:
            response.error_code, response.error_msg = refused.code, str(refused)
        except Exception as error:
            # A reply with a broad error code is better than no reply.
            response.error_code = next((code for kind, code in codes if isinstance(error, kind)), STORAGE_ERROR)
            response.error_msg = str(error)
        return response

    return callback
