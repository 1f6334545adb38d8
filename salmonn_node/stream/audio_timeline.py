"""One microphone's sound on one gap-aware 16 kHz mono timeline, bit-identical however it was cut into messages."""

from __future__ import annotations

import enum
from collections import Counter, deque
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from salmonn_node.stream.audio_segment import AudioSegment
from salmonn_node.stream.observations import SECOND_NS, AudioChunk, AudioSpan
from salmonn_node.stream.stamp_reference import StampReference

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 384_000
DEAD_NS = 25 * SECOND_NS // 1000  # differences up to this, a chunk's length, call for no correction
SETTLE_NS = SECOND_NS // 5  # so much sound must follow a jump of the stamps before it is believed
MAX_AHEAD_NS = 5 * SECOND_NS  # sound stamped so far before its place by counting was heard already
MAX_STALL_NS = 30 * SECOND_NS  # a driver that stalls for longer has lost the sound


class AudioFate(enum.StrEnum):
    """What became of a chunk; every value but TAKEN is a reason that is counted."""

    TAKEN = "taken"
    EMPTY = "audio_empty"
    STAMP_ZERO = "stamp_zero"
    OUT_OF_ORDER = "stamp_out_of_order"
    NOT_FINITE = "audio_not_finite"
    BAD_RATE = "audio_bad_rate"


@dataclass(frozen=True)
class _Piece:
    """A chunk, mixed down, with its lead: by how much its stamp is later than its place by counting."""

    stamp_ns: int
    samples: npt.NDArray[np.float32]
    rate_hz: int
    frame_id: str
    lead_ns: int = 0

    @property
    def duration_ns(self) -> int:
        return len(self.samples) * SECOND_NS // self.rate_hz


class AudioTimeline:
    """Resamples, mixes down and places the chunks of one microphone.

    Sound is placed by counting samples. Stamps are a reference that corrects the count slowly (`StampReference`):
    drivers stamp on arrival, deliver in bursts, and sound cards drift. When a stamp jumps ahead by more than stamps
    usually differ, the next 0.2 s of sound decide. If the count catches up with the stamps, the chunks were only
    late, and sound goes on. If it does not, sound is missing: a gap of up to `max_gap_s` becomes silence, a longer one
    ends the span and starts a new one. The start of a span is decided in the same way, by its earliest stamps.

    Attributes:
        counts: events by name: gaps_filled, spans_started, rate_changes, and the refusals of AudioFate.
        silence_s: seconds of silence filled in so far.
    """

    def __init__(self, source: str, *, max_gap_s: float = 1.0, jitter_s: float = 0.04, not_before_ns: int = 0) -> None:
        """Make an empty timeline; sound is never placed before `not_before_ns`.

        Raises ValueError unless 0 <= jitter_s <= max_gap_s.
        """
        if not 0 <= jitter_s <= max_gap_s:
            raise ValueError(f"jitter_s must lie in 0..max_gap_s, got jitter_s={jitter_s}, max_gap_s={max_gap_s}")
        self.source = source
        self.counts: Counter[str] = Counter()
        self.silence_s = 0.0
        self._max_gap_ns = round(max_gap_s * SECOND_NS)
        self._jitter_ns = round(jitter_s * SECOND_NS)
        self._not_before_ns = not_before_ns
        self._segment: AudioSegment | None = None
        self._reference = StampReference(min(DEAD_NS, self._jitter_ns))
        self._held: list[_Piece] = []  # chunks since a jump of the stamps that is not decided yet
        self._last: AudioChunk | None = None
        self._frame_id = ""

    @property
    def end_ns(self) -> int:
        """Stamp just after the last sample that was taken in; 0 before the first."""
        if self._segment is not None:
            return self._segment.end_ns + sum(piece.duration_ns for piece in self._held)
        return self._held[0].stamp_ns + sum(piece.duration_ns for piece in self._held) if self._held else 0

    def push(self, chunk: AudioChunk) -> tuple[AudioFate, list[AudioSpan]]:
        """Take one chunk in; returns its fate and the pieces that became ready, in order.

        Consecutive pieces of one span touch exactly: the next one's `start_ns` is the last one's `end_ns`.
        A refused chunk leaves the timeline unchanged.
        """
        fate = _refusal(chunk)
        if fate is None and (self._repeats(chunk) or (self.end_ns and chunk.stamp_ns < self.end_ns - MAX_AHEAD_NS)):
            fate = AudioFate.OUT_OF_ORDER
        if fate is not None:
            self.counts[fate.value] += 1
            return fate, []
        self._last = chunk
        return AudioFate.TAKEN, self._place(_Piece(chunk.stamp_ns, _mono(chunk.samples), chunk.rate_hz, chunk.frame_id))

    def finish(self) -> list[AudioSpan]:
        """End the span: returns what was still waiting. The next chunk starts a new span."""
        return self._place() + self._end_segment()

    def _place(self, *pieces: _Piece) -> list[AudioSpan]:
        """Take pieces in, or hold them while a jump of the stamps is not decided; without pieces all is decided."""
        spans: list[AudioSpan] = []
        todo = deque(pieces)
        while todo or (not pieces and self._held):
            if todo:
                piece = todo.popleft()
                piece = replace(piece, lead_ns=piece.stamp_ns - self.end_ns if self.end_ns else 0)
                if self._segment is not None and not self._held and piece.lead_ns <= self._usual_ns:
                    spans += self._take(piece)
                    continue
                self._held.append(piece)
            if self._is_decided() or not (pieces or todo):
                decided, undecided = self._decide()
                spans += decided
                todo.extendleft(reversed(undecided))
        return spans

    @property
    def _usual_ns(self) -> int:
        """Leads up to this one are no jump."""
        return min(self._jitter_ns + self._reference.highest_ns, 5 * self._jitter_ns, self._max_gap_ns)

    def _is_decided(self) -> bool:
        """Whether enough is known of the sound that followed a jump of the stamps."""
        first, last = self._held[0], self._held[-1]
        started = self._segment is not None
        if started and last.lead_ns <= self._usual_ns:
            return True  # the count has caught up with the stamps
        if last.lead_ns > first.lead_ns + self._jitter_ns:
            return True  # another jump: the first one was real
        if first.duration_ns >= SETTLE_NS and not (started and first.lead_ns <= self._max_gap_ns):
            return True  # a recording that comes as one message: perhaps no other will follow
        waited_ns = sum(piece.duration_ns for piece in self._held[:-1])
        if waited_ns > (MAX_STALL_NS if started else MAX_AHEAD_NS):
            return True
        catching_up = last.lead_ns <= first.lead_ns - waited_ns // 2
        return waited_ns >= SETTLE_NS and not catching_up

    def _decide(self) -> tuple[list[AudioSpan], list[_Piece]]:
        """Place the held sound; returns what became ready, and what is to be looked at again."""
        held, self._held = self._held, []
        leads = [piece.lead_ns for piece in held]
        if self._segment is not None and leads[-1] <= self._usual_ns:
            return self._take(*held), []
        lowest = min(leads)
        # Good stamps agree, and the first one is exact; late ones do not, and the one that waited least is right.
        at = 0 if leads[0] - lowest <= DEAD_NS else leads.index(lowest)
        return self._jump(leads[at], held[0]) + self._take(*held[: at + 1]), held[at + 1 :]

    def _jump(self, gap_ns: int, first: _Piece) -> list[AudioSpan]:
        """Go on after a gap: with silence, or in a new span that begins with `first`."""
        self._reference.clear()
        if self._segment is not None and gap_ns <= self._max_gap_ns:
            self.counts["gaps_filled"] += 1
            silence = round(gap_ns * self._segment.rate_hz / SECOND_NS)
            self.silence_s += silence / self._segment.rate_hz
            return self._spans(self._segment.push(np.zeros(silence, np.float32)))
        start_ns = gap_ns + (self._segment.end_ns if self._segment is not None else first.stamp_ns)
        spans = self._end_segment()
        self.counts["spans_started"] += 1
        self._segment = AudioSegment(max(start_ns, self._not_before_ns), first.rate_hz)
        return spans

    def _take(self, *pieces: _Piece) -> list[AudioSpan]:
        """Append pieces to the running segment."""
        assert self._segment is not None
        # Of pieces that came late together only the last one's stamp tells something: the others waited for it.
        late = pieces[0].lead_ns - pieces[-1].lead_ns > 4 * self._jitter_ns
        end_ns = self._segment.end_ns
        for piece in pieces:
            known = not late or piece is pieces[-1]
            self._reference.note(piece.duration_ns, piece.stamp_ns - end_ns if known else None)
            end_ns += piece.duration_ns
        return [span for piece in pieces for span in self._append(piece)]

    def _append(self, piece: _Piece) -> list[AudioSpan]:
        spans: list[AudioSpan] = []
        segment = self._segment
        assert segment is not None
        self._frame_id = piece.frame_id
        if segment.rate_hz != piece.rate_hz:
            # The span goes on: the new rate's samples follow the flushed ones on the same 16 kHz grid.
            self.counts["rate_changes"] += 1
            spans += self._spans(segment.flush())
            segment = self._segment = AudioSegment(segment.output_end_ns, piece.rate_hz)
        before_ns = segment.slipped_ns
        spans += self._spans(segment.push(piece.samples, self._reference.due_ns))
        self._reference.moved(segment.slipped_ns - before_ns)
        return spans

    def _end_segment(self) -> list[AudioSpan]:
        segment, self._segment = self._segment, None
        if segment is None:
            return []
        spans = self._spans(segment.flush())
        self._not_before_ns = segment.output_end_ns
        return spans

    def _spans(self, pieces: list[tuple[int, npt.NDArray[np.float32]]]) -> list[AudioSpan]:
        return [AudioSpan(start_ns, self.source, samples, self._frame_id) for start_ns, samples in pieces]

    def _repeats(self, chunk: AudioChunk) -> bool:
        """Whether this is the last message once more, as two publishers on a topic give; silence may repeat."""
        last = self._last
        return (
            last is not None
            and chunk.stamp_ns == last.stamp_ns
            and np.array_equal(chunk.samples, last.samples)
            and bool((chunk.samples != chunk.samples[0]).any())
        )


def _refusal(chunk: AudioChunk) -> AudioFate | None:
    if chunk.stamp_ns <= 0:
        return AudioFate.STAMP_ZERO
    if not MIN_RATE_HZ <= chunk.rate_hz <= MAX_RATE_HZ:
        return AudioFate.BAD_RATE
    if chunk.samples.size == 0:
        return AudioFate.EMPTY
    if not np.isfinite(chunk.samples).all():
        return AudioFate.NOT_FINITE
    return None


def _mono(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mean over channels of (n, channels) or (n,), clipped to -1..1; column by column, so that no cut changes a sum."""
    if samples.ndim == 1:
        return np.clip(samples, -1.0, 1.0).astype(np.float32, copy=False)
    total = samples[:, 0].astype(np.float32)
    for channel in range(1, samples.shape[1]):
        total = total + samples[:, channel]
    return np.clip(total / np.float32(samples.shape[1]), -1.0, 1.0)
