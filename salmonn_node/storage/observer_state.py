"""Everything of an observer that outlives the process: captured, put back, and brought up to date from the journal."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.storage.journal import Mark, Record
from salmonn_node.storage.store import State
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame, Interval, Pose

if TYPE_CHECKING:
    from salmonn_node.ingest.observer import Observer

# Poses older than this are not looked up again: an audio window is at most 30 s, and kept moments have theirs already.
TRACK_S = 45.0
SESSION = "session"
CLOCK_FIELDS = ("number", "start_ns", "newest_ns", "_last_ns", "_old_ns")
SAMPLER_FIELDS = ("_first_ns", "_last_ns", "_period")


def capture(observer: Observer, span: tuple[int, int]) -> State:
    """Copy the state between two observations; `span` is the first and newest stamp over all sessions.

    The caller holds the observer's memory still: it is the worker itself, or holds the memory's lock.
    """
    intake = observer.intake
    tensors, memory = intake.memory.to_tensors()
    named = {f"memory.{name}": tensor for name, tensor in tensors.items()}
    newest_ns = intake.track.newest.stamp_ns if intake.track.newest else 0
    poses = [p for p in intake.track._poses if newest_ns - p.stamp_ns <= TRACK_S * SECOND_NS]
    last = intake._last_pose
    values: dict[str, Any] = {
        "memory": memory,
        "on_device": sorted(name for name, tensor in tensors.items() if tensor.device.type != "cpu"),
        "session": observer._session,
        "clock": {name: _copied(getattr(observer.clock, name)) for name in CLOCK_FIELDS},
        "sampler": {name: _copied(getattr(observer.sampler, name)) for name in SAMPLER_FIELDS},
        "counts": [intake.frames, intake.audio_s, intake.poses],
        "track": [_pose_to_json(pose) for pose in poses],
        "newest": [_moment_to_json(moment) for moment in intake._newest.values()],
        "unsettled": [_moment_to_json(moment) for moment in intake._unsettled],
        "last_pose": None if last is None else [_pose_to_json(last[0]), last[1]],
        "span": list(span),
    }
    return State(named, values, *span)


def install(observer: Observer, tensors: dict[str, Tensor], values: dict[str, Any]) -> tuple[int, int]:
    """Put a captured state into a new observer; returns its span. Raises ValueError when it does not fit the model."""
    intake = observer.intake
    part, on_device, device = memory_part(tensors), set(values["on_device"]), observer.model.network.device
    if part and bool(on_device) != (device.type != "cpu"):
        raise ValueError(f"the state lay on {'a GPU' if on_device else 'the CPU'}, the network is on {device}")
    part = {name: tensor.to(device) if name in on_device else tensor for name, tensor in part.items()}
    intake.memory = StreamMemory.from_tensors(part, values["memory"], intake.memory.ttt)
    newest = [_moment_from_json(moment) for moment in values["newest"]]
    intake._newest = {moment.source: moment for moment in newest}
    intake._unsettled.clear()
    intake._unsettled.extend(_moment_from_json(moment) for moment in values["unsettled"])
    intake.track.clear()
    for pose in values["track"]:
        intake.track.add(_pose_from_json(pose))
    last = values["last_pose"]
    intake._last_pose = None if last is None else (_pose_from_json(last[0]), int(last[1]))
    intake.timelines.clear()
    intake.frames, intake.audio_s, intake.poses = values["counts"]
    observer._session = int(values["session"])
    if values["clock"]["number"] == observer._session:
        for name in CLOCK_FIELDS:
            setattr(observer.clock, name, _copied(values["clock"][name]))
    else:  # a session was waiting in the queue when the state was captured, and was lost with it
        observer.clock.restart()
        observer.clock.number = observer._session
    for name in SAMPLER_FIELDS:
        setattr(observer.sampler, name, _copied(values["sampler"][name]))
    return int(values["span"][0]), int(values["span"][1])


def memory_part(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The stream memory's own tensors among those of a captured state."""
    return {name[len("memory.") :]: tensor for name, tensor in tensors.items() if name.startswith("memory.")}


def replay(observer: Observer, record: Record) -> None:
    """Take a journal's record in, as the worker did before."""
    intake = observer.intake
    if isinstance(record, Frame):
        observer.clock.offer(record.source, record.stamp_ns)
        observer.sampler.offer(record.source, record.stamp_ns)
        intake.take(record)
        intake.picture_sizes.pop(record.source, None)  # the journal keeps pictures at the network's resolution
    elif isinstance(record, AudioSpan):
        observer.clock.offer(record.source, record.start_ns)
        intake._hear([record])
    elif isinstance(record, Pose):
        intake.take(record)
    elif record.name == SESSION:
        observer.clock.restart()
        observer.sampler.reset()
        observer.clock.number = observer._session = int(record.data["number"])
        intake.start_session(observer.model.new_memory())


def forget(observer: Observer, interval: Interval, earlier: dict[str, Tensor] | None) -> int:
    """Remove an interval from an observer that is held still; returns how many tokens left.

    The fast weights, with the rows that their long-span term looks back to, become those of `earlier`, the stream
    memory's tensors at another time, or their initial value. What was computed with the interval in sight, such as
    cached keys and values, goes as well.
    """
    intake, memory = observer.intake, observer.intake.memory
    gone = memory.forget(interval.start_ns, interval.end_ns)
    ingest = memory.parts.get("ingest")
    memory.parts = {} if ingest is None else {"ingest": ingest}
    if ingest is not None:
        ingest = observer.model.writer.pending(memory)
        for frames_of, frame in list(ingest.frames.items()):
            if interval.start_ns <= frame.stamp_ns <= interval.end_ns:
                del ingest.frames[frames_of]
        for sound_of, sound in list(ingest.sounds.items()):
            if Interval(sound.start_ns, sound.end_ns).overlaps(interval):
                del ingest.sounds[sound_of]
    tensors, meta = memory.to_tensors()
    if memory.ttt is not None:
        initial = {f"ttt.{name}": tensor for name, tensor in memory.ttt.init_state().to_tensors().items()}
        for name, tensor in (initial if earlier is None else earlier).items():
            if name.startswith("ttt.") and not name.startswith("ttt.pending"):
                tensors[name] = tensor
    intake.memory = StreamMemory.from_tensors(tensors, meta, memory.ttt)
    poses = [p for p in intake.track._poses if not interval.start_ns <= p.stamp_ns <= interval.end_ns]
    intake.track.clear()
    for pose in poses:
        intake.track.add(pose)
    intake._last_pose = None
    for source, moment in list(intake._newest.items()):
        if moment.interval.overlaps(interval):
            del intake._newest[source]
    settling = [moment for moment in intake._unsettled if not moment.interval.overlaps(interval)]
    intake._unsettled.clear()
    intake._unsettled.extend(settling)
    intake.timelines.clear()
    return gone


def session_mark(number: int) -> Mark:
    """The record of a session's beginning."""
    return Mark(SESSION, {"number": number})


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _moment_to_json(moment: Moment) -> list[Any]:
    picture = base64.b64encode(moment.thumbnail).decode()
    interval = [moment.interval.start_ns, moment.interval.end_ns]
    return [moment.modality, moment.token_start, moment.token_end, interval, moment.source, moment.frame_id,
            moment.pose_id, picture]  # fmt: skip


def _moment_from_json(values: list[Any]) -> Moment:
    modality, token_start, token_end, interval, source, frame_id, pose_id, picture = values
    where = Interval(interval[0], interval[1])
    return Moment(modality, token_start, token_end, where, source, frame_id, pose_id, base64.b64decode(picture))


def _pose_to_json(pose: Pose) -> list[Any]:
    covariance = None if pose.covariance is None else np.asarray(pose.covariance, np.float64).tolist()
    position, orientation = np.asarray(pose.position).tolist(), np.asarray(pose.orientation).tolist()
    return [pose.stamp_ns, pose.frame_id, position, orientation, covariance, pose.map_id, pose.child_frame_id]


def _pose_from_json(values: list[Any]) -> Pose:
    stamp_ns, frame_id, position, orientation, covariance, map_id, child = values
    return Pose(
        stamp_ns,
        frame_id,
        np.array(position, np.float64),
        np.array(orientation, np.float64),
        None if covariance is None else np.array(covariance, np.float64),
        map_id,
        child,
    )
