"""The evidence index keeps, finds, bounds, rewinds and forgets."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.memory.thumbnail import encode_thumbnail
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import SECOND_NS, Interval, Pose


def pose(x: float, stamp_ns: int = 1, covariance: bool = True) -> Pose:
    matrix = np.diag(np.arange(6.0)) if covariance else None
    return Pose(stamp_ns, "map", np.array([x, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]), matrix, "house")


def moment(n: int, thumbnail: bytes = b"", modality: str = "vision", pose_id: int = -1) -> Moment:
    interval = Interval(n * 2 * SECOND_NS, n * 2 * SECOND_NS + SECOND_NS)
    return Moment(modality, n * 4, n * 4 + 4, interval, "front", "optical", pose_id, thumbnail)


def test_what_is_added_is_found_by_token_time_and_place():
    index = EvidenceIndex()
    for n in range(5):
        index.add(moment(n, b"jpg%d" % n, pose_id=index.add_pose(pose(float(n)))))
    index.add(moment(2, modality="audio"))
    assert index.of_tokens("vision", [0, 7, 19, 20]) == [
        moment(0, b"jpg0", pose_id=0), moment(1, b"jpg1", pose_id=1), moment(4, b"jpg4", pose_id=4), None,
    ]  # fmt: skip
    found = index.between(2 * SECOND_NS, 4 * SECOND_NS)
    assert [(m.modality, m.token_start) for m in found] == [("vision", 4), ("vision", 8), ("audio", 8)]
    assert index.between(9 * SECOND_NS + 1) == []
    assert len(index.between(modality="vision", limit=3)) == 3
    assert index.between(sources=("back",)) == []
    near = index.near((2.2, 0.0, 0.0), 1.0, frame_id="map", map_id="house")
    assert [m.token_start for m in near] == [8, 12]
    assert index.near((2.2, 0.0, 0.0), 1.0, frame_id="odom", map_id="house") == []


def test_pose_comes_back_exactly():
    index = EvidenceIndex()
    for given in (pose(0.1 + 0.2), pose(1.0, covariance=False)):
        back = index.pose(index.add_pose(given))
        assert back is not None
        np.testing.assert_array_equal(back.position, given.position)
        np.testing.assert_array_equal(back.orientation, given.orientation)
        if given.covariance is None:
            assert back.covariance is None
        else:
            np.testing.assert_array_equal(back.covariance, given.covariance)
        assert (back.map_id, back.frame_id, back.stamp_ns) == ("house", "map", 1)
    assert index.pose(7) is None
    assert index.pose(-1) is None


def test_bounds_drop_the_oldest():
    index = EvidenceIndex(max_moments=3, max_poses=2)
    for n in range(5):
        index.add_pose(pose(0.0))
        index.add(moment(n))
    assert [m.token_start for m in index.between()] == [8, 12, 16]
    assert index.pose(2) is None
    assert index.pose(4) is not None
    small = EvidenceIndex(max_bytes=25)
    for n in range(4):
        small.add(moment(n, b"x" * 10))
    assert small.sizes() == {"moments": 2, "poses": 0, "thumbnail_bytes": 20}


def test_bad_arguments_are_named():
    index = EvidenceIndex()
    with pytest.raises(ValueError, match="modality"):
        index.add(moment(0, modality="smell"))
    with pytest.raises(ValueError, match="token range"):
        index.add(Moment("vision", 4, 4, Interval(0, 1), "front"))
    with pytest.raises(ValueError, match="max_moments"):
        EvidenceIndex(max_moments=0)
    with pytest.raises(ValueError, match="radius_m"):
        index.near((0, 0, 0), -1.0, frame_id="map")
    assert index.sizes()["moments"] == 0


def test_rewind_and_again_gives_the_same_index(tmp_path: Path):
    index = EvidenceIndex(tmp_path / "evidence.db")
    for n in range(3):
        index.add(moment(n, b"a", pose_id=index.add_pose(pose(float(n)))))
    mark = index.position()
    for n in range(3, 6):
        index.add(moment(n, b"b", pose_id=index.add_pose(pose(float(n)))))
    whole = index.digest()
    index.close()
    index = EvidenceIndex(tmp_path / "evidence.db")
    assert index.digest() == whole
    index.rewind(mark)
    assert index.position() == mark
    assert index.digest() != whole
    for n in range(3, 6):
        index.add(moment(n, b"b", pose_id=index.add_pose(pose(float(n)))))
    assert index.digest() == whole


def test_forgotten_bytes_are_gone_from_the_files(tmp_path: Path):
    secret = b"SECRET-THUMBNAIL" * 300
    index = EvidenceIndex(tmp_path / "evidence.db")
    for n in range(10):
        index.add(moment(n, secret if n == 4 else b"public" * 300))
    assert any(secret[:16] in path.read_bytes() for path in tmp_path.iterdir())
    assert index.forget(Interval(8 * SECOND_NS, 9 * SECOND_NS)) == 1
    assert not any(secret[:16] in path.read_bytes() for path in tmp_path.iterdir())
    assert index.sizes()["moments"] == 9


def test_copies_are_whole(tmp_path: Path):
    index = EvidenceIndex(tmp_path / "evidence.db")
    index.add(moment(1, b"x", pose_id=index.add_pose(pose(1.0))))
    index.copy_to(tmp_path / "copy.db")
    other = EvidenceIndex()
    other.add(moment(7))
    other.copy_from(tmp_path / "copy.db")
    assert other.digest() == index.digest()


def test_a_newer_schema_is_refused(tmp_path: Path):
    import sqlite3

    database = sqlite3.connect(tmp_path / "evidence.db")
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(ValueError, match="schema 99"):
        EvidenceIndex(tmp_path / "evidence.db")


def test_thumbnail_is_a_small_jpeg():
    image = np.zeros((288, 544, 3), np.uint8)
    image[..., 0] = 250
    small = cv2.imdecode(np.frombuffer(encode_thumbnail(image), np.uint8), cv2.IMREAD_COLOR)
    assert small.shape == (85, 160, 3)
    assert abs(int(small[40, 80, 2]) - 250) < 8


def test_a_full_disk_loses_evidence_and_says_so(tmp_path: Path):
    index = EvidenceIndex(tmp_path / "evidence.db")
    index.add(moment(0, b"first"))
    pages = index._db.execute("PRAGMA page_count").fetchone()[0]
    index._db.execute(f"PRAGMA max_page_count={pages}")
    for n in range(1, 4):
        assert index.add_pose(pose(0.0)) == n - 1
        index.add(moment(n, b"x" * 100_000))
        assert "full" in index.problem
    assert index.failed >= 3
    assert index.sizes()["moments"] == 1
    index._db.execute("PRAGMA max_page_count=100000")
    index.add(moment(5, b"x" * 100_000))
    assert index.problem == ""
    assert [m.token_start for m in index.between()] == [0, 20]
