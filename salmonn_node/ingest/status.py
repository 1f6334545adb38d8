"""The observer's status: counters by source, drops by reason, queues, encoding times and token counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salmonn_node.ingest.intake import Intake


@dataclass
class SourceStatus:
    """Counters of one camera, microphone or pose topic.

    Attributes:
        received: messages offered, good or not.
        queued: messages that were neither sampled out nor refused.
        newest_ns: newest stamp accepted by the session clock.
        last_ns: the same; for sound, the stamp after its last sample.
        longest_gap_s: longest step between two accepted stamps of this session.
        late: messages queued too late for a view that should have shown them.
        drops: refusals by reason.
        clock: what is wrong with the source's clock, in words; "" when it is fine.
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
    clock: str = ""

    def copy(self) -> SourceStatus:
        """A copy of the current counters."""
        return replace(self, drops=Counter(self.drops))


@dataclass(frozen=True)
class ObserverStatus:
    """A snapshot of the counters; see Intake and SourceStatus for their meaning.

    Attributes:
        queue: waiting observations by kind (frame, sound, pose).
        encode_ms: median and maximum of the last encoding times, milliseconds; zeros before the first.
        drops: refusals by reason, over all sources.
        tokens: number of kept tokens, (visual, audio).
        budgets: upper bounds of `tokens`.
        waiting_tokens: number of tokens above the budgets, which wait for the next discard step, (visual, audio).
        waiting_views: view requests that wait for their moment of the stream.
        clock_steps: backward steps of the ROS clock that were too small for a new session.
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
    waiting_views: int = 0
    clock_steps: int = 0
    waiting_tokens: tuple[int, int] = (0, 0)

    @property
    def clock_faults(self) -> list[str]:
        """What is wrong with the clocks of sources, one sentence per source."""
        return [f"{name}: {source.clock}" for name, source in sorted(self.sources.items()) if source.clock]


def observer_status(
    memory_id: str,
    session: int,
    span_ns: tuple[int, int],
    sources: dict[str, SourceStatus],
    queue: dict[str, int],
    waiting_views: int,
    intake: Intake,
) -> ObserverStatus:
    """Build the status from the observer's counters; `span_ns` is the first and the newest stamp."""
    drops = Counter(intake.drops)
    for source in sources.values():
        drops.update(source.drops)
    encode = sorted(intake.encode_s) or [0.0]
    visual, audio = intake.memory.configs
    tokens, waiting_tokens = intake.memory.token_counts()
    return ObserverStatus(
        memory_id,
        session,
        *span_ns,
        intake.frames,
        intake.audio_s,
        intake.poses,
        dict(drops),
        sources,
        queue,
        (1e3 * encode[len(encode) // 2], 1e3 * encode[-1]),
        tokens,
        (visual.budget, audio.budget),
        waiting_views,
        waiting_tokens=waiting_tokens,
    )
