"""Which pose topic of a recording says where the robot is, by what its messages show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from salmonn_node.replay.topics import BARE_POSE_TYPE, ODOMETRY_TYPE, elsewhere

MIN_POSES = 3
MIN_COVERED = 0.02  # share of the recording; a pose that is known more seldom is a click or a goal, not a track
NEARLY = 0.8  # a topic that covers this share of what the best one covers may be chosen for its frame
_MAPS = ("map", "world", "earth", "utm", "enu", "site")
BODIES = ("base_link", "base_footprint", "base", "body", "chassis", "imu_link")
MOVES = 2.0  # two tracks whose lengths differ by more than this factor are not those of one robot
MIN_MOVED_M = 1.0  # shorter tracks say nothing of it


@dataclass(frozen=True)
class PoseTopic:
    """What a pose topic's messages show.

    Attributes:
        topic, msgtype: its name and type.
        count: messages.
        frame_id: frame of its poses, empty when no message could be read.
        rate_hz: poses a second, where there are any.
        covered: share (0..1) of the recording in which a pose is at most a second away.
        moved_m: length of the track in steps of a second, in metres.
        rides: the frame moves with the robot (tf connects it below the robot's base, or it is a camera's).
    """

    topic: str
    msgtype: str
    count: int
    frame_id: str
    rate_hz: float
    covered: float
    moved_m: float = 0.0
    rides: bool = False


def choose_pose(tracks: Sequence[PoseTopic]) -> tuple[str, str, Mapping[str, str]]:
    """The topic that says where the robot is.

    Goals, plans and initial poses are left out by their names; so are poses in a frame that moves with the robot, and
    those that come too seldom. Of the rest, those that cover nearly as much of the recording as the best are compared:
    a map's frame before odometry's, a pose with covariance before one without, then the higher rate.

    Returns:
        Topic ("" when none can be it), why it was chosen, and why each of the others was not.
    """
    left_out = {track.topic: reason for track in tracks if (reason := _unfit(track))}
    fit = [track for track in tracks if track.topic not in left_out]
    odometry = max((t for t in fit if t.msgtype == ODOMETRY_TYPE), key=lambda t: t.covered, default=None)
    if odometry is not None and odometry.moved_m > MIN_MOVED_M:
        for track in fit:
            if max(track.moved_m, 0.01) * MOVES < odometry.moved_m or track.moved_m > MOVES * odometry.moved_m:
                left_out[track.topic] = (
                    f"it moves {track.moved_m:.1f} m while {odometry.topic} moves {odometry.moved_m:.1f} m"
                )
        fit = [track for track in fit if track.topic not in left_out]
    if not fit:
        return "", "", left_out
    best = max(track.covered for track in fit)
    near = [track for track in fit if track.covered >= NEARLY * best]
    chosen = min(near, key=_rank)
    for track in fit:
        if track is not chosen:
            left_out[track.topic] = f"{chosen.topic} is the robot's pose"
    why = f"{chosen.rate_hz:.1f} Hz over {100 * chosen.covered:.0f} % of the recording, in frame {chosen.frame_id}"
    return chosen.topic, why, left_out


def _unfit(track: PoseTopic) -> str:
    word = elsewhere(track.topic, track.msgtype)
    if word:
        return f"its name says {word}: not where the robot is"
    if track.count < MIN_POSES:
        return f"it has {track.count} messages, a track has at least {MIN_POSES}"
    if not track.frame_id:
        return "its messages have no frame or cannot be read"
    if track.rides or track.frame_id.rpartition("/")[2] in BODIES or "optical" in track.frame_id:
        return f"its poses are in frame {track.frame_id}, which moves with the robot"
    if track.covered < MIN_COVERED:
        return f"{track.count} poses cover {100 * track.covered:.1f} % of the recording"
    return ""


def _rank(track: PoseTopic) -> tuple[bool, bool, float, str]:
    frame = track.frame_id.rpartition("/")[2].lower()
    a_map = any(word in frame for word in _MAPS)
    return not a_map, track.msgtype == BARE_POSE_TYPE, -track.rate_hz, track.topic
