"""The intake: adds one admitted observation to memory and evidence (decode, get the pose, record, encode, index)."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from salmonn_node.ingest.admission import TAKEN, Admission, Observation
from salmonn_node.ingest.placed_moments import PlacedMoments
from salmonn_node.memory.album import Picture
from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.memory.thumbnail import encode_thumbnail
from salmonn_node.stream.audio_timeline import AudioTimeline
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import AudioChunk, AudioSpan, EncodedFrame, Frame, Interval, Pose

if TYPE_CHECKING:
    from salmonn_node.model.video_salmonn_s import VideoSalmonnS

ENCODE_HISTORY = 256
PENDING = "ingest"  # the part of the memory that holds input for an unfinished patch or window
MEMORY = "memory."  # prefix of the stream memory's tensors in a stored state
Recorder = Callable[[Frame | AudioSpan | Pose], None]


class Intake:
    """Adds observations to the memory and counts the results. Only one thread may use it at a time.

    `record` is called with every observation just before the memory gets it, after sampling, decoding and resampling.
    If you give the same recorded observations to a new memory, it becomes the same memory.

    Args:
        model: the network that encodes.
        memory: the stream's memory.
        evidence: index of moments and poses; a new session empties it.
        record: called with each observation for the journal, or None.

    Attributes:
        memory: the running session's memory; a new session replaces it.
        frames, audio_s, poses: how much was observed in this session; audio in seconds.
        drops: refusals by reason.
        encode_s: durations of the last encodings, seconds.
        picture_sizes: (width, height) of each camera's last picture, before scaling.
        moments: writes the evidence.
    """

    def __init__(
        self, model: VideoSalmonnS, memory: StreamMemory, evidence: EvidenceIndex, record: Recorder | None = None
    ) -> None:
        self.model, self.memory, self.record = model, memory, record
        self.frames = self.poses = 0
        self.audio_s = 0.0
        self.drops: Counter[str] = Counter()
        self.encode_s: deque[float] = deque(maxlen=ENCODE_HISTORY)
        self.picture_sizes: dict[str, tuple[int, int]] = {}
        self.moments = PlacedMoments(evidence)
        self._timelines: dict[str, AudioTimeline] = {}

    def take(self, observation: Observation | AudioSpan) -> Admission:
        """Add one observation to the memory.

        An AudioSpan comes from the journal, so it has passed its timeline already.

        Returns:
            "taken", or the reason why it was dropped, which is counted.
        """
        try:
            if isinstance(observation, Pose):
                admission = self._take_pose(observation)
            elif isinstance(observation, AudioChunk):
                admission = self._take_sound(observation)
            elif isinstance(observation, AudioSpan):
                self._hear([observation])
                admission = TAKEN
            else:
                admission = self._take_frame(observation)
        except Exception:
            self.drops["encode_failed"] += 1
            raise
        if admission != TAKEN:
            self.drops[admission] += 1
        return admission

    def finish_sound(self) -> None:
        """End all audio spans, which empties the resampler of its last tenth of a second. For the end of a bag."""
        for timeline in self._timelines.values():
            self._hear(timeline.finish())

    def start_session(self, memory: StreamMemory) -> None:
        """Start a session with another memory. Nothing of the old session reaches it."""
        self.memory = memory
        self.moments.clear()
        self._timelines.clear()
        self.frames = self.poses = 0
        self.audio_s = 0.0

    def _take_pose(self, pose: Pose) -> Admission:
        admission = self.moments.add_pose(pose)
        if admission == TAKEN:
            self.poses += 1
            self._record(pose)
            self.moments.settle(pose.stamp_ns)
        return admission

    def _take_frame(self, frame: Frame | EncodedFrame) -> Admission:
        if isinstance(frame, EncodedFrame):
            try:
                image = frame.decode()
            except ValueError:
                return "image_undecodable"
            frame = Frame(frame.stamp_ns, frame.source, image, frame.frame_id)
        if frame.image.ndim != 3 or frame.image.shape[2] != 3 or frame.image.size == 0 or frame.image.dtype != np.uint8:
            return "image_undecodable"
        self.picture_sizes[frame.source] = (frame.image.shape[1], frame.image.shape[0])
        # From here on the picture has the network's resolution. Nothing needs more, and the journal stays small.
        frame = replace(frame, image=self.model.fit(frame.image))
        self._record(frame)
        picture = encode_thumbnail(frame.image)
        if self.memory.log is not None:
            shown = Picture(self.memory.source_id(frame.source), frame.stamp_ns, picture)
            self.memory.log.add_picture(shown, frame.image)
        now = Interval(frame.stamp_ns, frame.stamp_ns)
        before = self.moments.note_newest(Moment("vision", 0, 1, now, frame.source, frame.frame_id, -1, picture))
        first = picture if before is None else before.thumbnail
        pose_id = self.moments.pose_id(frame.stamp_ns)
        for moment in self._timed(self.model.observe_frame, frame, pose_id):
            # A temporal patch spans two frames. It has the picture, the stamp and the pose of the first one.
            self.moments.add(moment, first if moment.interval.start_ns < frame.stamp_ns else picture)
        self.frames += 1
        return TAKEN

    def _take_sound(self, chunk: AudioChunk) -> Admission:
        timeline = self._timelines.setdefault(chunk.source, AudioTimeline(chunk.source))
        placed, spans = timeline.push(chunk)
        self._hear(spans)
        return placed.value

    def _hear(self, spans: list[AudioSpan]) -> None:
        for span in spans:
            self._record(span)
            now = Interval(span.start_ns, span.end_ns)
            self.moments.note_newest(Moment("audio", 0, 1, now, span.source, span.frame_id))
            if self.memory.log is not None:
                self.memory.log.add_sound(self.memory.source_id(span.source), span.start_ns, span.samples)
            for moment in self._timed(self.model.observe_audio, span):
                self.moments.add(moment)
            self.audio_s += len(span.samples) / 16_000

    def _timed(self, observe: Callable[..., Any], *arguments: Any) -> list[Moment]:
        begin = time.perf_counter()
        moments = observe(self.memory, *arguments)
        if moments:
            self.encode_s.append(time.perf_counter() - begin)
        return list(moments or ())

    def _record(self, observation: Frame | AudioSpan | Pose) -> None:
        if self.record is not None:
            self.record(observation)

    # -- state ----------------------------------------------------------------------------------------------------

    def to_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """State for `restore`, bit for bit: copies of the tensors, and JSON values.

        Sound that is still in the resampler is not included.
        """
        tensors, memory = self.memory.to_tensors()
        values: dict[str, Any] = {
            "memory": memory,
            "on_device": sorted(name for name, tensor in tensors.items() if tensor.device.type != "cpu"),
            "counts": [self.frames, self.audio_s, self.poses],
            **self.moments.to_state(),
        }
        return {MEMORY + name: tensor for name, tensor in tensors.items()}, values

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Restore the state from `to_state`. The owner of the evidence index restores the index.

        Raises:
            ValueError, KeyError, TypeError: the state does not fit the model, or a value is missing.
        """
        own, on_device, device = memory_tensors(tensors), set(values["on_device"]), self.model.network.device
        if own and bool(on_device) != (device.type != "cpu"):
            where = "a GPU" if on_device else "the CPU"
            raise ValueError(f"the state was made on {where}, but the network is on {device}")
        own = {name: tensor.to(device) if name in on_device else tensor for name, tensor in own.items()}
        self.memory = StreamMemory.from_tensors(
            own, values["memory"], self.memory.ttt, self.memory.events, self.memory.log
        )
        self.moments.restore(values)
        self._timelines.clear()
        self.frames, self.audio_s, self.poses = values["counts"]

    def forget(self, interval: Interval, earlier: dict[str, Tensor] | None) -> int:
        """Remove an interval from the memory; returns how many tokens were removed.

        The fast weights cannot forget only a part. They and the rows that their long-span term uses go back to an
        earlier state. The evidence index is not changed.

        Args:
            interval: the interval to forget, ends included.
            earlier: tensors of a stored state from before the interval; None sets the weights to their initial value.
        """
        memory = self.memory
        gone = memory.forget(interval.start_ns, interval.end_ns)
        pending = memory.parts.get(PENDING)
        memory.parts = {} if pending is None else {PENDING: pending}  # drops cached keys and values
        if pending is not None:
            self.model.writer.pending(memory).forget(interval)
        tensors, meta = memory.to_tensors()
        if memory.ttt is not None:
            initial = {f"ttt.{name}": tensor for name, tensor in memory.ttt.init_state().to_tensors().items()}
            for name, tensor in (initial if earlier is None else memory_tensors(earlier)).items():
                if name.startswith("ttt.") and not name.startswith("ttt.pending"):
                    tensors[name] = tensor
        self.memory = StreamMemory.from_tensors(tensors, meta, memory.ttt, memory.events, memory.log)
        self.moments.forget(interval)
        self._timelines.clear()
        return gone


def memory_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Select the stream memory's tensors from a stored state and remove the prefix from their names."""
    return {name[len(MEMORY) :]: tensor for name, tensor in tensors.items() if name.startswith(MEMORY)}
