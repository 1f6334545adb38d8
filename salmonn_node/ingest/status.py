"""What an observer says of itself: counters by source, drops by reason, queues, times and what the memory holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class SourceStatus:
    """What came from one camera, microphone or pose topic.

    Attributes:
        received: messages offered, good or not.
        queued: messages that were neither sampled out nor refused.
        newest_ns: newest stamp accepted by the session clock.
        last_ns: the same, but for sound the stamp after its last sample.
        longest_gap_s: longest step between two accepted stamps of this session.
        late: messages taken in after a view that should have shown them had been made.
        drops: refusals by reason.
        heard_s: the observer's clock of arrivals at the last message.
    """

    received: int = 0
    queued: int = 0
    newest_ns: int = 0
    last_ns: int = 0
    longest_gap_s: float = 0.0
    drops: Counter[str] = field(default_factory=Counter)
    late: int = 0
    heard_s: float = 0.0


@dataclass(frozen=True)
class ObserverStatus:
    """A snapshot of counters; see Intake and SourceStatus for their meaning.

    Attributes:
        queue: waiting observations by kind (frame, sound, pose).
        encode_ms: median and worst of the last encodings, milliseconds; zeros before the first.
        drops: refusals by reason, over all sources.
        tokens: kept tokens of both modalities, (visual, audio).
        budgets: at most so many.
        waiting_looks: views that wait for the stream to pass their end.
    """

    memory_id: str
    session: int
    start_ns: int
    newest_ns: int
    frames: int
    audio_s: float
    poses: int
    drops: dict[str, int]
    sources: dict[str, SourceStatus]
    queue: dict[str, int]
    encode_ms: tuple[float, float]
    tokens: tuple[int, int]
    budgets: tuple[int, int]
    waiting_looks: int = 0
