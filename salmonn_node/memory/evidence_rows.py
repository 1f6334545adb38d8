"""Tables of the evidence index, and how to read moments and poses from their rows."""

from __future__ import annotations

import numpy as np

from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import Interval, Pose

SCHEMA_VERSION = 1
TABLES = """
CREATE TABLE IF NOT EXISTS poses (
    id INTEGER PRIMARY KEY, stamp_ns INTEGER NOT NULL, frame_id TEXT NOT NULL, map_id TEXT NOT NULL,
    child_frame_id TEXT NOT NULL, x REAL NOT NULL, y REAL NOT NULL, z REAL NOT NULL,
    orientation BLOB NOT NULL, covariance BLOB);
CREATE INDEX IF NOT EXISTS poses_by_place ON poses (map_id, frame_id, x);
CREATE INDEX IF NOT EXISTS poses_by_time ON poses (stamp_ns);
CREATE TABLE IF NOT EXISTS moments (
    id INTEGER PRIMARY KEY, modality TEXT NOT NULL, token_start INTEGER NOT NULL, token_end INTEGER NOT NULL,
    start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, source TEXT NOT NULL, frame_id TEXT NOT NULL,
    pose_id INTEGER, thumbnail BLOB NOT NULL, UNIQUE (modality, token_start));
CREATE INDEX IF NOT EXISTS moments_by_time ON moments (start_ns, end_ns);
CREATE INDEX IF NOT EXISTS moments_by_pose ON moments (pose_id);
"""
MOMENT_COLUMNS = "modality, token_start, token_end, start_ns, end_ns, source, frame_id, pose_id, thumbnail"


def read_pose(row: tuple) -> Pose:
    """Make a pose from a row of `poses`."""
    covariance = None if row[9] is None else np.frombuffer(row[9], "<f8").reshape(6, 6).copy()
    return Pose(
        stamp_ns=row[1],
        frame_id=row[2],
        position=np.array(row[5:8], np.float64),
        orientation=np.frombuffer(row[8], "<f8").copy(),
        covariance=covariance,
        map_id=row[3],
        child_frame_id=row[4],
    )


def read_moment(row: tuple) -> Moment:
    """Make a moment from the columns `MOMENT_COLUMNS`."""
    return Moment(
        modality=row[0],
        token_start=row[1],
        token_end=row[2],
        interval=Interval(row[3], row[4]),
        source=row[5],
        frame_id=row[6],
        pose_id=-1 if row[7] is None else row[7],
        thumbnail=row[8],
    )
