"""What the node says about what it still holds, over ROS: the timeline, the path, one moment; and their refusals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from salmonn_interfaces.srv import GetTimeline
from salmonn_node.client.managed_memory import ManagedMemory
from salmonn_node.stream.observations import SECOND_NS

from .harness import NodeProcess, Robot

pytestmark = pytest.mark.ros


@pytest.fixture
def managed(node: NodeProcess, robot: Robot) -> Iterator[ManagedMemory]:
    with ManagedMemory(robot.node) as memory:
        yield memory


def test_the_timeline_counts_what_was_seen_and_where(seen: int, managed: ManagedMemory):
    whole = managed.timeline(max_poses=100)
    rows = {row.source: row for row in whole.rows}

    assert rows["camera"].modality == "vision"
    assert sum(rows["camera"].moments) > 0
    assert sum(rows["camera"].kept_tokens) > 0
    assert whole.span is not None
    assert whole.span.start_ns <= seen - 2 * SECOND_NS
    assert whole.path
    assert whole.path[-1].position[0] == pytest.approx(2.0)

    last = managed.timeline(after_ns=seen - 2 * SECOND_NS, max_bins=5)
    assert last.bins <= 5
    assert not last.path


def test_one_moment_gives_its_picture_and_place(seen: int, managed: ManagedMemory):
    moment = managed.moment("camera", seen - 2 * SECOND_NS)
    assert moment.thumbnail.startswith(b"\xff\xd8")
    assert moment.source == "camera"
    assert abs(moment.interval.start_ns - seen) <= 4 * SECOND_NS
    assert moment.score == 1.0


def test_what_cannot_be_given_is_refused_in_words(seen: int, managed: ManagedMemory):
    with pytest.raises(RuntimeError, match="nothing of 'attic' is kept"):
        managed.moment("attic", seen)
    with pytest.raises(RuntimeError, match="after"):
        managed.timeline(after_ns=seen, before_ns=seen - 1)
    with pytest.raises(RuntimeError, match="max_bins"):
        managed.timeline(max_bins=2**16 - 1)
    assert GetTimeline.Response.INVALID_INTERVAL == 108


def test_the_client_saves_lists_and_forgets(seen: int, managed: ManagedMemory):
    from salmonn_node.stream.observations import Interval

    assert managed.save("for_the_page") == "for_the_page"
    assert "for_the_page" in managed.stored().names
    with pytest.raises(RuntimeError, match="exists"):
        managed.save("for_the_page")
    with pytest.raises(RuntimeError, match="inactive"):
        managed.load("for_the_page")
    text = managed.forget(Interval(seen - 2 * SECOND_NS, seen))
    assert "evidence were forgotten" in text
    assert "for_the_page" in text  # it still holds the interval
