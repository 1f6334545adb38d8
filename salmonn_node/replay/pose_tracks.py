"""What the poses of a recording show, in stretches spread over it: those of its topics, and those of tf."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from salmonn_node.messages import MessageError, pose_from_message, transforms_from_message
from salmonn_node.replay.bag import Bag
from salmonn_node.replay.pose_choice import BODIES, MIN_COVERED, NEARLY, PoseTopic
from salmonn_node.replay.topics import TF_TYPES
from salmonn_node.stream.observations import SECOND_NS

# Poses are looked at in so many stretches of so many seconds.
STRETCHES, STRETCH_S = 8, 10.0


def pose_tracks(bag: Bag, topics: Iterable[str], sensor_frames: Iterable[str] = ()) -> list[PoseTopic]:
    """What the messages of pose topics show, in stretches spread over the recording.

    Args:
        bag: the recording.
        topics: its pose topics.
        sensor_frames: frames of cameras, which move with the robot.
    """
    counts = {topic.name: topic.count for topic in bag.topics}
    poses: dict[str, list[tuple[int, Any]]] = {topic: [] for topic in topics}
    frames = dict.fromkeys(poses, "")
    stretches = _stretches(bag.start_ns, bag.end_ns)
    for start_ns, stop_ns in stretches:
        for topic, _, log_ns, data in bag.raw(start_ns, stop_ns, poses):
            try:
                pose = pose_from_message(bag.decode(topic, data))
            except (MessageError, ValueError):
                continue
            frames[topic] = frames[topic] or pose.frame_id
            poses[topic].append((log_ns, pose.position))
    riding = {frame for frame in sensor_frames if frame} | _frames_on_the_robot(bag, stretches[0])
    tracks = []
    for topic, found in poses.items():
        times = [log_ns for log_ns, _ in found]
        track = PoseTopic(
            topic,
            bag.channels[topic].msgtype,
            counts[topic],
            frames[topic],
            _rate(times),
            _covered(times, stretches),
            _moved(found),
            frames[topic] in riding,
        )
        tracks.append(track)
    return tracks


@dataclass(frozen=True)
class TfTrack:
    """Where tf says that the robot was.

    Attributes:
        fixed_frame: the frame of the poses, such as "map".
        base_frame: the robot's own, such as "base_link".
        why: what speaks for these two, in words.
    """

    fixed_frame: str
    base_frame: str
    why: str


def tf_track(bag: Bag) -> TfTrack | None:
    """The two frames between which tf tells the robot's pose; None when no transform moves the robot.

    Of the frames above the robot's base, the highest counts up to which tf covers nearly as much of the recording as
    up to any: the map, where something still places the robot in it, else odometry's frame.
    """
    parents, times = _transforms(bag)
    stretches = _stretches(bag.start_ns, bag.end_ns)
    bodies = [frame for body in BODIES for frame in sorted(parents) if frame.rpartition("/")[2] == body]
    for base in bodies:
        covered: dict[str, float] = {}
        rates: dict[str, float] = {}
        least, rate, frame = 1.0, math.inf, base
        while frame in parents and parents[frame] not in (base, *covered):
            if frame in times:
                least, rate = min(least, _covered(times[frame], stretches)), min(rate, _rate(times[frame]))
            frame = parents[frame]
            covered[frame], rates[frame] = least if math.isfinite(rate) else 0.0, rate
        best = max(covered.values(), default=0.0)
        if best >= MIN_COVERED:
            fixed = [frame for frame, share in covered.items() if share >= NEARLY * best][-1]
            why = f"{base} in {fixed}, {rates[fixed]:.1f} Hz over {100 * covered[fixed]:.0f} % of the recording"
            return TfTrack(fixed, base, why)
    return None


def _transforms(bag: Bag) -> tuple[dict[str, str], dict[str, list[int]]]:
    """Parent of each frame of tf, and log times of the transforms that move it, in stretches of the recording."""
    parents: dict[str, str] = {}
    times: dict[str, list[int]] = {}
    topics = [topic.name for topic in bag.topics if topic.msgtype in TF_TYPES]
    still = [topic for topic in topics if topic.endswith("tf_static")]
    pieces = [(bag.start_ns, bag.end_ns + 1, still)]
    pieces += [(*stretch, sorted(set(topics) - set(still))) for stretch in _stretches(bag.start_ns, bag.end_ns)]
    for start_ns, stop_ns, names in pieces:
        for topic, _, log_ns, data in bag.raw(start_ns, stop_ns, names) if names else ():
            try:
                transforms = transforms_from_message(bag.decode(topic, data))
            except (MessageError, ValueError):
                continue
            for transform in transforms:
                parents[transform.child_frame_id] = transform.frame_id
                if topic not in still:
                    times.setdefault(transform.child_frame_id, []).append(log_ns)
    return parents, times


def _frames_on_the_robot(bag: Bag, stretch: tuple[int, int]) -> set[str]:
    """Frames that tf connects below the robot's own."""
    parents: dict[str, str] = {}
    topics = [topic.name for topic in bag.topics if topic.msgtype in TF_TYPES]
    for topic, _, _, data in bag.raw(*stretch, topics):
        try:
            parents.update({t.child_frame_id: t.frame_id for t in transforms_from_message(bag.decode(topic, data))})
        except (MessageError, ValueError):
            continue
    found = set()
    for frame in parents:
        above, seen = frame, {frame}
        while (above := parents.get(above, "")) and above not in seen:
            seen.add(above)
            if above.rpartition("/")[2] in BODIES:
                found.add(frame)
                break
    return found


def _stretches(start_ns: int, end_ns: int) -> list[tuple[int, int]]:
    """Stretches (start, stop) of log time; all of a short recording."""
    length = round(STRETCH_S * SECOND_NS)
    span = end_ns + 1 - start_ns
    if span <= STRETCHES * length:
        return [(start_ns, end_ns + 1)]
    starts = [start_ns + i * (span - length) // (STRETCHES - 1) for i in range(STRETCHES)]
    return [(start, start + length) for start in starts]


def _rate(times: list[int]) -> float:
    """Messages a second, from the middle of the gaps."""
    gaps = sorted(later - earlier for earlier, later in zip(times, times[1:], strict=False))
    middle = gaps[len(gaps) // 2] if gaps else 0
    return SECOND_NS / middle if middle else 0.0


def _covered(times: list[int], stretches: list[tuple[int, int]]) -> float:
    """Share of the tenths of a second that have a message at most a second away."""
    near = total = 0
    for start, stop in stretches:
        for tenth in range(start, stop, SECOND_NS // 10):
            total += 1
            at = bisect.bisect_left(times, tenth)
            near += any(abs(times[i] - tenth) <= SECOND_NS for i in (at - 1, at) if 0 <= i < len(times))
    return near / total if total else 0.0


def _moved(found: list[tuple[int, Any]]) -> float:
    """Length of a track in metres, in steps of a second: noise of single poses does not add up."""
    moved, last = 0.0, None
    for log_ns, position in found:
        if last is None or not 0 <= log_ns - last[0] < 2 * SECOND_NS:
            last = (log_ns, position)
        elif log_ns - last[0] >= SECOND_NS:
            moved += math.dist(position, last[1])
            last = (log_ns, position)
    return moved
