"""The interface from answering to ingest: views of the memory, the evidence, and how far the stream has come."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from salmonn_node.memory.evidence_index import EvidenceIndex
    from salmonn_node.memory.stream_memory import StreamMemory
    from salmonn_node.model.scene_view import SceneView
    from salmonn_node.model.video_salmonn_s import VideoSalmonnS


class MemorySource(Protocol):
    """A memory that receives observations. The node's implementation is in `ingest/observer.py`.

    Attributes:
        model: the network that encodes and answers.
        evidence: index of moments and poses.
    """

    model: VideoSalmonnS
    evidence: EvidenceIndex

    @property
    def memory(self) -> StreamMemory:
        """The running session's memory."""

    @property
    def memory_id(self) -> str:
        """Name of the running session's memory."""

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of the cameras and microphones so far."""

    @property
    def start_ns(self) -> int:
        """First stamp of the session, 0 before the first observation."""

    @property
    def newest_ns(self) -> int:
        """Newest stamp of the session over all sources, 0 before the first observation."""

    def wait_for_view(
        self,
        after_ns: int = 0,
        before_ns: int = 0,
        sources: Sequence[str] = (),
        *,
        deadline: float,
        cancel: threading.Event | None = None,
    ) -> SceneView | None:
        """Wait until the stream has passed `before_ns` and return the view; None at `deadline` or when cancelled."""

    def caption(self, key: str, text: str) -> bool:
        """Give an entry of the memory's log its words; returns False when there is no such entry any more."""

    def picture_size(self, source: str) -> tuple[int, int] | None:
        """(width, height) of the pictures that a camera sends, None before the first."""
