"""The dialogue, the evidence on the map, and the traces of service calls, over real ROS."""

from __future__ import annotations

import pytest
from service_msgs.msg import ServiceEventInfo
from visualization_msgs.msg import Marker, MarkerArray

from salmonn_interfaces.msg import Answer, AnsweredQuestion, Evidence
from salmonn_interfaces.srv import Query
from salmonn_node.ros.answer_topics import evidence_markers
from salmonn_node.ros.client import Memory
from salmonn_node.ros.status import LATCHED
from salmonn_node.stream.answers import ErrorCode

from .harness import PATIENCE_S, Robot

pytestmark = pytest.mark.ros


def test_dialogue_markers_and_introspection(memory: Memory, seen: int, robot: Robot) -> None:
    said: list[AnsweredQuestion] = []
    events: list[object] = []
    robot.node.create_subscription(AnsweredQuestion, "salmonn/answers", said.append, 10)
    robot.node.create_subscription(Query.Event, "salmonn/query/_service_event", events.append, 10)
    robot.wait(lambda: robot.node.count_publishers("salmonn/answers") > 0, PATIENCE_S, "the dialogue is published")
    for _ in range(20):  # a volatile topic's first message may come before its listener is known
        answer = memory.ask("say here", timeout_s=PATIENCE_S)
        assert answer.error_code == ErrorCode.NONE, answer
        if said and events:
            break
    robot.wait(lambda: bool(said and len(events) > 1), PATIENCE_S, "the answer and the call's events are heard")
    assert said[-1].question.text == "say here"
    assert said[-1].answer.error_code == Answer.NONE
    assert said[-1].header.stamp.sec > 0
    assert {e.info.event_type for e in events} <= {ServiceEventInfo.REQUEST_RECEIVED, ServiceEventInfo.RESPONSE_SENT}
    assert not any(e.request or e.response for e in events), "metadata tells nothing of what was asked"
    # Latched: who comes after the answer sees it, too.
    arrays: list[MarkerArray] = []
    robot.node.create_subscription(MarkerArray, "salmonn/evidence_markers", arrays.append, LATCHED)
    robot.wait(lambda: bool(arrays), PATIENCE_S, "the evidence on the map")
    clear, arrow, label = arrays[-1].markers[:3]
    assert clear.action == Marker.DELETEALL
    assert arrow.type == Marker.ARROW
    assert arrow.header.frame_id == "map"
    assert arrow.header.stamp.sec == 0
    assert arrow.pose.position.x == pytest.approx(2.0)
    assert label.text.startswith("say here\n")


def _answer(memory_id: str, map_id: str, poses: int = 1) -> Answer:
    evidence = [Evidence(modality="vision", map_id=map_id, observer_pose_valid=True) for _ in range(poses)]
    return Answer(memory_id=memory_id, text="there", evidence=evidence)


def test_evidence_of_another_map_or_memory_is_not_drawn() -> None:
    answers = [("q", _answer("m-1", "home", 2)), ("q", _answer("m-1", "hall")), ("q", _answer("m-0", "home"))]
    markers = evidence_markers(answers).markers
    assert [(m.ns, m.id) for m in markers[1:]] == [("answer_0", 0), ("answer_0", 1), ("answer_0", 2)]
    assert len(evidence_markers([]).markers) == 1
