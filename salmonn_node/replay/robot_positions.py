"""Where the robot was at any stamp of a bag, for questions whose right answer is a position."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.stream.observations import Pose
from salmonn_node.stream.pose_track import PoseTrack


def robot_positions(path: Path) -> Callable[[int], tuple[float, float, float] | None]:
    """Read all poses of a bag; the function gives the position in m at a stamp in ns, or None where it is unknown."""
    track = PoseTrack(capacity=10_000_000)
    with BagStream(path) as bag:
        for _, observation in bag:
            if isinstance(observation, Pose):
                track.add(observation)

    def position_at(stamp_ns: int) -> tuple[float, float, float] | None:
        pose = track.at(stamp_ns)
        if pose is None:
            return None
        x, y, z = (float(v) for v in pose.position)
        return x, y, z

    return position_at
