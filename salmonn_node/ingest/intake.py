"""One accepted observation into memory and evidence, one after the other: decode, place, encode, keep, record."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from salmonn_node.memory.evidence_index import EvidenceIndex, encode_thumbnail
from salmonn_node.stream.audio_timeline import AudioTimeline
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import AudioChunk, AudioSpan, EncodedFrame, Frame, Interval, Pose
from salmonn_node.stream.pose_track import PoseTrack

if TYPE_CHECKING:
    from salmonn_node.memory.memory_view import MemoryView
    from salmonn_node.memory.stream_memory import StreamMemory
    from salmonn_node.memory.token_batch import TokenBatch
    from salmonn_node.model.video_salmonn_s import VideoSalmonnS

TAKEN = "taken"
ENCODE_HISTORY = 256
UNSETTLED = 256  # moments whose pose may still become better known
Recorder = Callable[[Frame | AudioSpan | Pose], None]


@dataclass
class Intake:
    """What is needed to take observations in, and what came of them.

    `record` is called with every observation just before the memory takes it in, after sampling, decoding and
    resampling: replaying what it got into a fresh memory gives the same memory.

    Attributes:
        model: the network that encodes.
        memory: the stream's memory, replaced at a new session.
        evidence: index of moments and poses, emptied at a new session.
        record: the journal's hook, or None.
        frames, audio_s, poses: how much was taken in.
        drops: refusals by reason.
        encode_s: durations of the last encodings, seconds.
        picture_sizes: (width, height) of each camera's last picture as it came.
    """

    model: VideoSalmonnS
    memory: StreamMemory
    evidence: EvidenceIndex
    record: Recorder | None = None
    frames: int = 0
    audio_s: float = 0.0
    poses: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    encode_s: deque[float] = field(default_factory=lambda: deque(maxlen=ENCODE_HISTORY))
    picture_sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    track: PoseTrack = field(default_factory=PoseTrack)
    timelines: dict[str, AudioTimeline] = field(default_factory=dict)
    _last_pose: tuple[Pose, int] | None = None
    _newest: dict[str, Moment] = field(default_factory=dict)
    _unsettled: deque[Moment] = field(default_factory=lambda: deque(maxlen=UNSETTLED))

    def take(self, observation: Frame | EncodedFrame | AudioChunk | Pose) -> str:
        """Take one observation in; returns "taken" or the reason of the drop, which is counted."""
        try:
            if isinstance(observation, Pose):
                fate = self._take_pose(observation)
            elif isinstance(observation, AudioChunk):
                fate = self._take_sound(observation)
            else:
                fate = self._take_frame(observation)
        except Exception:
            self.drops["encode_failed"] += 1
            raise
        if fate != TAKEN:
            self.drops[fate] += 1
        return fate

    def finish_sound(self) -> None:
        """End all audio spans, so that the last tenth of a second is not left behind (end of a bag)."""
        for timeline in self.timelines.values():
            self._hear(timeline.finish())

    def start_session(self, memory: StreamMemory) -> None:
        """Go on with another memory: nothing of the old session reaches it."""
        self.memory = memory
        self.evidence.clear()
        self.track.clear()
        self.timelines.clear()
        self._last_pose = None
        self._newest.clear()
        self._unsettled.clear()
        self.frames = self.poses = 0
        self.audio_s = 0.0

    def unindexed(self, view: MemoryView) -> dict[tuple[str, str, int], tuple[Moment, Pose | None]]:
        """What is known of a view's observations that are not in the index, as their patch or window is not full.

        By modality, source and stamp. A moment's token range means nothing. The pose is not stored: a question leaves
        no trace in the index. Kept with the view, as the index learns of them when the stream goes on, and an answer
        must not depend on when it is made.
        """
        found: dict[tuple[str, str, int], tuple[Moment, Pose | None]] = {}
        tails = (("vision", view.visual, view.visual_committed), ("audio", view.audio, view.audio_committed))
        for modality, batch, committed in tails:
            if batch is None or bool(committed.all()):
                continue
            tail = batch.select(~committed)
            first = {(view.sources[s], t): i for s, t, i in zip(*_columns(tail), strict=True)}
            for (source, stamp_ns), kept in zip(first, self.evidence.of_tokens(modality, first.values()), strict=True):
                moment = self._newest.get(source)
                if kept is None and moment is not None:
                    picture = moment.thumbnail if moment.interval.start_ns == stamp_ns else b""
                    moment = replace(moment, interval=Interval(stamp_ns, stamp_ns), thumbnail=picture)
                    found[modality, source, stamp_ns] = moment, self.track.at(stamp_ns)
        return found

    def _take_pose(self, pose: Pose) -> str:
        fate = self.track.add(pose)
        if fate == TAKEN:
            self.poses += 1
            self._record(pose)
            while self._unsettled and self._unsettled[0].interval.start_ns <= pose.stamp_ns:
                moment = self._unsettled.popleft()
                self.evidence.add(replace(moment, pose_id=self.pose_id(moment.interval.start_ns)))
        return fate

    def _take_frame(self, frame: Frame | EncodedFrame) -> str:
        if isinstance(frame, EncodedFrame):
            try:
                image = frame.decode()
            except ValueError:
                return "image_undecodable"
            frame = Frame(frame.stamp_ns, frame.source, image, frame.frame_id)
        if frame.image.ndim != 3 or frame.image.shape[2] != 3 or frame.image.size == 0 or frame.image.dtype != np.uint8:
            return "image_undecodable"
        self.picture_sizes[frame.source] = (frame.image.shape[1], frame.image.shape[0])
        # At the network's resolution from here on: nothing finer is ever looked at, and the journal stays small.
        frame = replace(frame, image=self.model.fit(frame.image))
        self._record(frame)
        picture = encode_thumbnail(frame.image)
        first = self._newest[frame.source].thumbnail if frame.source in self._newest else picture
        now = Interval(frame.stamp_ns, frame.stamp_ns)
        self._newest[frame.source] = Moment("vision", 0, 1, now, frame.source, frame.frame_id, -1, picture)
        moments = self._timed(self.model.observe_frame, frame, self.pose_id(frame.stamp_ns))
        for moment in moments:
            # A temporal patch spans two frames: its picture is that of the first, as its stamp and pose are.
            self._keep(moment, first if moment.interval.start_ns < frame.stamp_ns else picture)
        self.frames += 1
        return TAKEN

    def _take_sound(self, chunk: AudioChunk) -> str:
        timeline = self.timelines.setdefault(chunk.source, AudioTimeline(chunk.source))
        fate, spans = timeline.push(chunk)
        self._hear(spans)
        return fate.value

    def _hear(self, spans: list[AudioSpan]) -> None:
        for span in spans:
            self._record(span)
            now = Interval(span.start_ns, span.end_ns)
            self._newest[span.source] = Moment("audio", 0, 1, now, span.source, span.frame_id)
            for moment in self._timed(self.model.observe_audio, span):
                self._keep(moment)
            self.audio_s += len(span.samples) / 16_000

    def _timed(self, observe: Callable[..., Any], *arguments: Any) -> list[Moment]:
        begin = time.perf_counter()
        moments = observe(self.memory, *arguments)
        if moments:
            self.encode_s.append(time.perf_counter() - begin)
        return list(moments or ())

    def _keep(self, moment: Moment, picture: bytes = b"") -> None:
        """Put a moment in the index; its pose is looked up again when the poses around it have come."""
        stamp_ns = moment.interval.start_ns
        moment = replace(moment, pose_id=self.pose_id(stamp_ns), thumbnail=moment.thumbnail or picture)
        self.evidence.add(moment)
        if not self.track.settled(stamp_ns):
            self._unsettled.append(moment)

    def pose_id(self, stamp_ns: int) -> int:
        """Id of the robot's pose at `stamp_ns` in the evidence index, stored at first use; -1 when unknown."""
        pose = self.track.at(stamp_ns)
        if pose is None:
            return -1
        if self._last_pose is None or not _same(self._last_pose[0], pose):
            self._last_pose = (pose, self.evidence.add_pose(pose))
        return self._last_pose[1]

    def _record(self, observation: Frame | AudioSpan | Pose) -> None:
        if self.record is not None:
            self.record(observation)


def _columns(batch: TokenBatch) -> tuple[list[int], list[int], list[int]]:
    return batch.source.tolist(), batch.stamp_ns.tolist(), batch.index.tolist()


def _same(one: Pose, other: Pose) -> bool:
    return one.stamp_ns == other.stamp_ns and bool((one.position == other.position).all())
