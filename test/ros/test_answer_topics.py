"""The dialogue, the evidence on the map, and the traces of service calls, over real ROS."""

from __future__ import annotations

import pytest
from service_msgs.msg import ServiceEventInfo
from visualization_msgs.msg import Marker, MarkerArray

from salmonn_interfaces.msg import Answer, AnsweredQuestion, Evidence
from salmonn_interfaces.srv import ForgetInterval, Query
from salmonn_node.client import Memory
from salmonn_node.client.qos import LATCHED
from salmonn_node.messages.base import time_message
from salmonn_node.messages.markers import evidence_markers
from salmonn_node.stream.answers import ErrorCode

from .harness import PATIENCE_S, SECOND_NS, TYPES, Robot

pytestmark = pytest.mark.ros


def test_dialogue_markers_and_introspection(memory: Memory, seen: int, robot: Robot) -> None:
    said: list[AnsweredQuestion] = []
    events: list[object] = []
    robot.node.create_subscription(AnsweredQuestion, "salmonn/answers", said.append, 10)
    robot.node.create_subscription(Query.Event, "salmonn/query/_service_event", events.append, 10)
    robot.wait(lambda: robot.node.count_publishers("salmonn/answers") > 0, PATIENCE_S, "the dialogue is published")
    for _ in range(20):  # a volatile topic's first message may come before its listener is known
        answer = memory.ask("say here", after_ns=seen - SECOND_NS, timeout_s=PATIENCE_S)
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
    robot.wait(lambda: bool(arrays) and drawn(arrays) == "say here", PATIENCE_S, "the evidence on the map")
    clear, arrow, label = arrays[-1].markers[:3]
    assert clear.action == Marker.DELETEALL
    assert arrow.type == Marker.ARROW
    assert arrow.header.frame_id == "map"
    assert arrow.header.stamp.sec == 0
    assert arrow.pose.position.x == pytest.approx(2.0)
    assert label.text.startswith("say here\n")


def drawn(arrays: list[MarkerArray]) -> str:
    """The newest question whose evidence is on the map, empty when nothing is."""
    labels = [marker.text for marker in arrays[-1].markers if marker.text]
    return labels[0].split("\n")[0] if labels else ""


def forget(robot: Robot, start_ns: int, end_ns: int) -> None:
    interval = {"start": time_message(TYPES, start_ns), "end": time_message(TYPES, end_ns)}
    assert robot.call(ForgetInterval, "salmonn/forget_interval", **interval).error_code == 0


def test_markers_go_with_the_memory_that_they_are_of(memory: Memory, seen: int, robot: Robot) -> None:
    arrays: list[MarkerArray] = []
    robot.node.create_subscription(MarkerArray, "salmonn/evidence_markers", arrays.append, LATCHED)

    def show(text: str) -> None:
        answer = memory.ask(text, after_ns=seen - SECOND_NS, timeout_s=PATIENCE_S)
        assert answer.evidence[0].pose is not None, answer
        robot.wait(lambda: bool(arrays) and drawn(arrays) == text, PATIENCE_S, f"evidence of {text!r} is drawn")

    show("say one")
    forget(robot, seen + 100 * SECOND_NS, seen + 200 * SECOND_NS)  # of no concern
    assert drawn(arrays) == "say one"
    forget(robot, 1, seen)
    robot.wait(lambda: drawn(arrays) == "", PATIENCE_S, "what was forgotten is not drawn any more")
    assert [marker.action for marker in arrays[-1].markers] == [Marker.DELETEALL]
    for _ in range(2):
        stamp = robot.step()
        robot.poses.publish(robot.odometry(stamp - 50_000_000, 2.0))
        robot.poses.publish(robot.odometry(stamp + 50_000_000, 2.0))
        robot.images.publish(robot.image(stamp))
    window = {"after_ns": stamp, "before_ns": stamp}
    robot.wait(
        lambda: memory.ask("say so", timeout_s=PATIENCE_S, **window).error_code == ErrorCode.NONE,
        PATIENCE_S,
        "the images are taken",
    )
    show("say two")
    memory.clear()
    robot.wait(lambda: drawn(arrays) == "", PATIENCE_S, "nothing of a cleared memory is drawn")
    late: list[MarkerArray] = []
    robot.node.create_subscription(MarkerArray, "salmonn/evidence_markers", late.append, LATCHED)
    robot.wait(lambda: bool(late), PATIENCE_S, "who comes late hears of it")
    assert drawn(late) == ""


def _answer(memory_id: str, map_id: str, poses: int = 1) -> Answer:
    evidence = [Evidence(modality="vision", map_id=map_id, observer_pose_valid=True) for _ in range(poses)]
    return Answer(memory_id=memory_id, text="there", evidence=evidence)


def test_evidence_of_another_map_or_memory_is_not_drawn() -> None:
    answers = [("q", _answer("m-1", "home", 2)), ("q", _answer("m-1", "hall")), ("q", _answer("m-0", "home"))]
    markers = evidence_markers(TYPES, answers).markers
    assert [(m.ns, m.id) for m in markers[1:]] == [("answer_0", 0), ("answer_0", 1), ("answer_0", 2)]
    assert len(evidence_markers(TYPES, []).markers) == 1
