"""The timeline of a memory: counts by source and bin, the thinned path, and the moment nearest to a stamp."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.memory.kept import kept_timeline, moment_near
from salmonn_node.memory.stream_memory import StreamMemory, TokenBatch
from salmonn_node.memory.token_memory import TokenMemoryConfig
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import SECOND_NS, Interval, Pose

START_NS = 1_000 * SECOND_NS


def memory_of(seconds: list[int], source: str = "front", budget: int = 1_000) -> StreamMemory:
    """A memory that got one sound token at each second."""
    memory = StreamMemory(None, TokenMemoryConfig(budget=1_000), TokenMemoryConfig(budget=budget))
    number = memory.source_id(source)
    for index, second in enumerate(seconds):
        one = torch.tensor([index])
        memory.observe_audio(
            TokenBatch(
                torch.ones(1, 4), None, one, torch.tensor([START_NS + second * SECOND_NS]), one, torch.zeros(1),
                torch.tensor([number]), torch.tensor([-1]),
            )
        )  # fmt: skip
    return memory


def index_of(seconds: list[int], source: str = "front", poses: int = 0) -> EvidenceIndex:
    index = EvidenceIndex()
    for number in range(poses):
        turn = np.array([0, 0, 0, 1.0])
        index.add_pose(Pose(START_NS + number * SECOND_NS, "map", np.array([number, 0.0, 0.0]), turn, map_id="flat"))
    for number, second in enumerate(seconds):
        start_ns = START_NS + second * SECOND_NS
        span = Interval(start_ns, start_ns + SECOND_NS // 2)
        index.add(Moment("audio", number, number + 1, span, source, "mic", number if number < poses else -1, b""))
    return index


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=20, unique=True), st.integers(1, 50))
def test_every_kept_token_and_moment_is_counted_once(seconds: list[int], max_bins: int):
    seconds = sorted(seconds)
    found = kept_timeline(memory_of(seconds), index_of(seconds), "m", max_bins=max_bins)

    (row,) = found.rows
    assert (row.source, row.modality) == ("front", "audio")
    assert sum(row.kept_tokens) == sum(row.moments) == len(seconds)
    assert len(row.moments) == found.bins <= max_bins
    assert found.bin_ns % SECOND_NS == 0
    for second in seconds:
        assert row.moments[(START_NS + second * SECOND_NS - found.start_ns) // found.bin_ns] > 0


def test_what_was_dropped_is_still_a_moment_but_not_kept():
    seconds = list(range(20))
    found = kept_timeline(memory_of(seconds[10:]), index_of(seconds), "m")
    assert found.rows[0].moments == (2,) * 10
    assert found.rows[0].kept_tokens == (0,) * 5 + (2,) * 5


def test_a_window_leaves_out_the_rest():
    seconds = list(range(20))
    after_ns, before_ns = START_NS + 5 * SECOND_NS, START_NS + 8 * SECOND_NS
    found = kept_timeline(
        memory_of(seconds), index_of(seconds, poses=20), "m", after_ns=after_ns, before_ns=before_ns, max_poses=100
    )
    assert (found.start_ns, found.bins) == (after_ns, 2)
    assert sum(found.rows[0].kept_tokens) == 4
    assert [pose.stamp_ns for pose in found.path] == [after_ns + i * SECOND_NS for i in range(4)]


def test_the_path_is_thinned_and_of_one_map():
    index = index_of([], poses=1_000)
    index.add_pose(Pose(1, "odom", np.zeros(3), np.array([0, 0, 0, 1.0])))
    path = kept_timeline(memory_of([]), index, "m", max_poses=10).path
    assert len(path) <= 10
    assert {(pose.frame_id, pose.map_id) for pose in path} == {("map", "flat")}
    assert [pose.position[0] for pose in path] == sorted(pose.position[0] for pose in path)


@pytest.mark.parametrize(
    "wrong", [{"after_ns": -1}, {"after_ns": 5, "before_ns": 4}, {"max_bins": 1_001}, {"max_poses": 5_001}]
)
def test_arguments_out_of_range_are_named(wrong: dict[str, int]):
    with pytest.raises(ValueError, match=r"after|max_bins|max_poses"):
        kept_timeline(memory_of([1]), index_of([1]), **wrong)


def test_the_nearest_moment_of_a_source_says_whether_it_is_held():
    index = index_of([0, 10], poses=1)
    memory = memory_of([10])
    near = moment_near(memory, index, "front", START_NS + 4 * SECOND_NS)
    far = moment_near(memory, index, "front", START_NS + 7 * SECOND_NS)
    assert near is not None
    assert far is not None
    assert (near.interval.start_ns, near.score, near.pose is not None) == (START_NS, 0.0, True)
    assert (far.interval.start_ns, far.score, far.pose) == (START_NS + 10 * SECOND_NS, 1.0, None)
    assert moment_near(memory, index, "elsewhere", START_NS) is None


def test_the_path_takes_the_pose_that_settled_of_each_stamp():
    index = EvidenceIndex()
    for x in (0.0, 1.0, 2.0):
        stamp_ns = START_NS + int(x) * SECOND_NS
        for guess in (x - 0.4, x):
            index.add_pose(Pose(stamp_ns, "map", np.array([guess, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0])))
    assert [pose.position[0] for pose in index.robot_path(0, 0, 10)] == [0.0, 1.0, 2.0]
