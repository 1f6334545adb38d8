"""Client that also manages the memory: save, load, forget an interval, describe, what is still held, one moment."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from salmonn_interfaces.srv import ForgetInterval, GetMemoryInfo, GetMoment, GetTimeline, LoadMemory, SaveMemory
from salmonn_node.client.memory_client import Memory
from salmonn_node.messages.answers import evidence_from_message
from salmonn_node.messages.base import stamp_ns, time_message
from salmonn_node.messages.kept import timeline_from_response
from salmonn_node.stream.answers import Evidence
from salmonn_node.stream.kept_timeline import KeptTimeline
from salmonn_node.stream.observations import Interval


@dataclass(frozen=True)
class StoredMemories:
    """What the node has on disk.

    Attributes:
        names: all stored memories.
        snapshots: whole snapshots of the running one.
        size_bytes: of the running one on disk, evidence included.
    """

    names: tuple[str, ...] = ()
    snapshots: int = 0
    size_bytes: int = 0


class ManagedMemory(Memory):
    """A Memory with the services that look after it, for tools and pages. A planner needs only Memory.

    Each method raises RuntimeError with the node's sentence when it refuses, and when it does not answer in time.
    """

    more_services: ClassVar[dict[str, Any]] = {
        "save_memory": SaveMemory,
        "load_memory": LoadMemory,
        "forget_interval": ForgetInterval,
        "get_memory_info": GetMemoryInfo,
        "get_timeline": GetTimeline,
        "get_moment": GetMoment,
    }

    def save(self, name: str = "", *, overwrite: bool = False, timeout_s: float = 60.0) -> str:
        """Write a snapshot under a name (empty: the running memory's own); returns the name."""
        request = SaveMemory.Request(name=name, overwrite=overwrite)
        return str(self._manage("save_memory", request, timeout_s).name)

    def load(self, name: str, timeout_s: float = 60.0) -> str:
        """Replace the running memory with a stored one; the node must be inactive. Returns the id of the memory."""
        return str(self._manage("load_memory", LoadMemory.Request(name=name), timeout_s).status.memory_id)

    def forget(self, interval: Interval, timeout_s: float = 60.0) -> str:
        """Remove an interval from memory and disk; returns a sentence that says what went."""
        start, end = (time_message(self._types, stamp) for stamp in (interval.start_ns, interval.end_ns))
        gone = self._manage("forget_interval", ForgetInterval.Request(start=start, end=end), timeout_s)
        text = f"{gone.tokens_forgotten} tokens and {gone.evidence_forgotten} pieces of evidence were forgotten."
        if gone.weights_reverted:
            to = "their initial value" if not stamp_ns(gone.weights_from) else "an earlier snapshot"
            text += f" The fast weights went back to {to}."
        return f"{text} Attention: {gone.error_msg}." if gone.error_msg else text

    def stored(self, timeout_s: float = 5.0) -> StoredMemories:
        """What is stored on disk."""
        info = self._manage("get_memory_info", GetMemoryInfo.Request(), timeout_s)
        return StoredMemories(tuple(str(name) for name in info.stored), int(info.snapshots), int(info.size_bytes))

    def timeline(
        self,
        *,
        after_ns: int = 0,
        before_ns: int = 0,
        max_bins: int = 0,
        max_poses: int = 0,
        timeout_s: float = 5.0,
    ) -> KeptTimeline:
        """What the memory still holds, by time and source, and the robot's path; see GetTimeline.srv."""
        request = GetTimeline.Request(
            after=time_message(self._types, after_ns),
            before=time_message(self._types, before_ns),
            max_bins=max_bins,
            max_poses=max_poses,
        )
        return timeline_from_response(self._manage("get_timeline", request, timeout_s))

    def moment(self, source: str, stamp_ns: int, timeout_s: float = 5.0) -> Evidence:
        """What a camera or microphone gave at one time; score 1: the memory holds it, 0: only this trace is left."""
        request = GetMoment.Request(source=source, stamp=time_message(self._types, stamp_ns))
        return evidence_from_message(self._manage("get_moment", request, timeout_s).moment)

    def _manage(self, name: str, request: Any, timeout_s: float) -> Any:
        response = self._connection.call(self._connection.more[name], request, time.monotonic() + timeout_s)
        if response is None:
            raise RuntimeError(f"{self.server} did not answer {name} within {timeout_s:.0f} s: is it running?")
        if response.error_code:
            raise RuntimeError(str(response.error_msg))
        return response
