"""What viewers are given: every topic, type and status name in config/ is one that node, demo or replay has."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.qos import QoSProfile
from rosbags.typesys import get_types_from_msg
from sensor_msgs.msg import CompressedImage

from salmonn_node.client import Memory
from salmonn_node.evaluation.answer_file import Answered
from salmonn_node.evaluation.questions import read_questions
from salmonn_node.live.demo_recording import BAG, QUESTIONS
from salmonn_node.messages import RosbagsTypes
from salmonn_node.messages.answers import answer_to_message
from salmonn_node.messages.bag_types import bag_typestore
from salmonn_node.messages.base import message_stamp_ns
from salmonn_node.messages.detections import DETECTIONS, detections_to_message
from salmonn_node.replay.bag import Bag
from salmonn_node.replay.evaluation_topics import Evaluation, said
from salmonn_node.stream.answers import Answer, ErrorCode, Evidence, Region
from salmonn_node.stream.observations import Interval

from .harness import PATIENCE_S, SECOND_NS, NodeProcess, Robot

pytestmark = pytest.mark.ros
CONFIG = Path(__file__).parents[2] / "config"
PICTURES = {"sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"}
POSES = {"nav_msgs/msg/Odometry", "geometry_msgs/msg/PoseWithCovarianceStamped"}
MARKERS = {"visualization_msgs/msg/MarkerArray"}
DISPLAYS = {"Image": PICTURES, "MarkerArray": MARKERS, "Odometry": POSES, "PoseWithCovariance": POSES}
# Fields of vision_msgs 4 (Jazzy), which is not on the package index.
VISION_TYPES = {
    "Point2D": "float64 x\nfloat64 y\n",
    "Pose2D": "vision_msgs/Point2D position\nfloat64 theta\n",
    "BoundingBox2D": "vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n",
    "ObjectHypothesis": "string class_id\nfloat64 score\n",
    "ObjectHypothesisWithPose": ("vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n"),
    "Detection2D": (
        "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\nvision_msgs/BoundingBox2D bbox\n"
        "string id\n"
    ),
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections\n",
}


@pytest.fixture(scope="module")
def live(node: NodeProcess, robot: Robot) -> dict[str, str]:
    """Topic -> type: what the node really publishes, and what the demo's bag holds."""

    def published() -> dict[str, str]:
        return {name: types[0] for name, types in robot.node.get_publisher_names_and_types_by_node(node.name, "/")}

    robot.wait(lambda: "/salmonn/evidence_image/compressed" in published(), PATIENCE_S, "the node's topics are known")
    with Bag(BAG) as bag:
        return {topic.name: topic.msgtype for topic in bag.topics} | published()


@pytest.fixture(scope="module")
def replayed() -> dict[str, str]:
    """Topic -> type of what `replay --mcap` adds to a bag."""
    record = read_questions(QUESTIONS)[0]
    picture = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    piece = Evidence(Interval(1, 2), "vision", "front", "optical", 0.5, None, picture, Region(1, 1, 2, 2, 64, 48))
    answers = [(1, Answered(record.id, "", Answer(text="yes", evidence=(piece,))))]
    evaluation = Evaluation({record.id: record}, answers, [], "x", True, 0)
    return {topic: msgtype for _, topic, msgtype, _ in said(evaluation, "/salmonn")}


def panels(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    else:
        yield from panels(tree["first"])
        yield from panels(tree["second"])


def test_the_foxglove_layout_names_what_is_published(live: dict[str, str], replayed: dict[str, str]):
    layout = json.loads((CONFIG / "foxglove_layout.json").read_text())
    named = list(panels(layout["layout"]))
    assert sorted(named) == sorted(layout["configById"])
    wanted: list[tuple[str, set[str]]] = []
    for panel, config in layout["configById"].items():
        match panel.partition("!")[0]:
            case "Image":
                mode = config["imageMode"]
                wanted.append((mode["imageTopic"], PICTURES))
                wanted += [(topic, {"foxglove_msgs/msg/ImageAnnotations"}) for topic in mode.get("annotations", {})]
                if "calibrationTopic" in mode:
                    wanted.append((mode["calibrationTopic"], {"sensor_msgs/msg/CameraInfo"}))
            case "3D":
                wanted += [(topic, MARKERS | POSES) for topic in config["topics"]]
            case "RawMessages":
                wanted.append((config["topicPath"], {"salmonn_interfaces/msg/AnsweredQuestion"}))
            case "RosOut":
                wanted.append((config["topicToRender"], {"rcl_interfaces/msg/Log"}))
            case "DiagnosticSummary":
                wanted.append((config["topicToRender"], {"diagnostic_msgs/msg/DiagnosticArray"}))
            case "Plot":
                for path in config["paths"]:
                    topic, _, field = path["value"].partition(".")
                    wanted.append((topic, {"salmonn_interfaces/msg/MemoryStatus"}))
                    assert field in bag_typestore().types[live[topic]].__dataclass_fields__
            case other:
                pytest.fail(f"a panel that this test does not know: {other}")
    for topic, types in wanted:
        assert (live | replayed)[topic] in types, topic
    assert {topic for topic, _ in wanted} - live.keys() == {"/salmonn/evidence_annotations", "/salmonn/verdicts"}
    for topic in live.keys() & replayed.keys():
        assert live[topic] == replayed[topic], "a layout fits both"


def test_the_rviz_configuration_names_what_is_published(live: dict[str, str]):
    displays = yaml.safe_load((CONFIG / "salmonn.rviz").read_text())["Visualization Manager"]["Displays"]
    found = {d["Topic"]["Value"]: d for d in displays if "Topic" in d}
    for topic, display in found.items():
        assert live[topic] in DISPLAYS[display["Class"].partition("/")[2]], topic
    assert found["/salmonn/evidence_markers"]["Topic"]["Durability Policy"] == "Transient Local"
    assert {"/front/image/compressed", "/salmonn/evidence_image/compressed", "/pose"} <= found.keys()


def test_each_diagnostic_status_belongs_to_one_analyzer(node: NodeProcess, robot: Robot):
    config = yaml.safe_load((CONFIG / "diagnostic_aggregator.yaml").read_text())
    analyzers = {k: v for k, v in config["analyzers"]["ros__parameters"].items() if isinstance(v, dict)}
    robot.wait(lambda: len(robot.diagnostics) > 6, PATIENCE_S, "the active node tells of all its parts")
    names = [name for name in robot.diagnostics if name.startswith(f"{node.name}:")]
    hits = {
        name: [
            k for k, v in analyzers.items() if name.startswith(tuple(v["startswith"])) or name in v.get("expected", ())
        ]
        for name in names
    }
    assert all(len(found) == 1 for found in hits.values()), hits
    assert {found[0] for found in hits.values()} == analyzers.keys()
    assert {name for v in analyzers.values() for name in v.get("expected", ())} <= set(names)
    assert all(v["type"].startswith("diagnostic_aggregator/") for v in analyzers.values())


def test_the_security_policy_lets_the_node_publish_what_it_publishes(node: NodeProcess, robot: Robot):
    topics = ET.parse(CONFIG / "sros2_policy.xml").findall(".//profile[@node='salmonn']/topics[@publish='ALLOW']/topic")
    allowed = {f"/{topic.text.replace('~', 'salmonn')}" for topic in topics}
    published = {name for name, _ in robot.node.get_publisher_names_and_types_by_node(node.name, "/")}
    # Those of every node are in SROS2's own common profile; those of actions come with the action.
    common = {"/rosout", "/parameter_events"}
    assert "/salmonn/evidence_markers" in published
    assert {name for name in published if "/_action/" not in name} - common <= allowed


def test_the_picture_of_the_evidence_is_published_when_it_was_asked_for(memory: Memory, seen: int, robot: Robot):
    pictures: list[CompressedImage] = []
    topic = "salmonn/evidence_image/compressed"
    robot.node.create_subscription(CompressedImage, topic, pictures.append, QoSProfile(depth=10))
    robot.wait(lambda: robot.node.count_publishers(topic) > 0, PATIENCE_S, "the picture is published")
    for _ in range(20):  # a volatile topic's first message may come before its listener is known
        answer = memory.ask("say here", after_ns=seen - SECOND_NS, timeout_s=PATIENCE_S, want_thumbnails=True)
        assert answer.error_code == ErrorCode.NONE, answer
        if pictures:
            break
    piece = next(piece for piece in answer.evidence if piece.thumbnail)
    robot.wait(lambda: bool(pictures), PATIENCE_S, "the picture is heard")
    assert message_stamp_ns(pictures[-1]) == piece.interval.start_ns
    image = cv2.imdecode(np.frombuffer(pictures[-1].data, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == cv2.imdecode(np.frombuffer(piece.thumbnail, np.uint8), cv2.IMREAD_COLOR).shape


def test_regions_of_evidence_become_detections():
    store = bag_typestore.__wrapped__()
    for name, text in VISION_TYPES.items():
        store.register(get_types_from_msg(text, f"vision_msgs/msg/{name}"))
    types = RosbagsTypes(store)
    region = Region(10, 20, 30, 40, 640, 480)
    seen = Evidence(Interval(5 * SECOND_NS, 6 * SECOND_NS), "vision", "front", "optical", 0.75, None, b"", region)
    heard = Evidence(Interval(1 * SECOND_NS, 2 * SECOND_NS), "audio", "mic", "mic", 0.25)
    answer = answer_to_message(types, Answer(text="red", evidence=(heard, seen)))

    message = detections_to_message(types, "what colour?", answer)

    read = store.deserialize_cdr(store.serialize_cdr(message, DETECTIONS), DETECTIONS)
    assert len(read.detections) == 1
    found = read.detections[0]
    assert (found.id, found.header.frame_id, message_stamp_ns(found)) == ("front", "optical", 5 * SECOND_NS)
    assert (found.bbox.center.position.x, found.bbox.center.position.y) == (25.0, 40.0)
    assert (found.bbox.size_x, found.bbox.size_y) == (30.0, 40.0)
    assert (found.results[0].hypothesis.class_id, found.results[0].hypothesis.score) == ("what colour?", 0.75)
    assert found.results[0].pose.covariance[0] == -1
    assert message_stamp_ns(read) == 5 * SECOND_NS
    assert not detections_to_message(types, "?", answer_to_message(types, Answer())).detections


def test_detections_without_vision_msgs_are_refused_by_name(robot: Robot, tmp_path: Path):
    process = NodeProcess(
        tmp_path / "node.log", {"publish_detections": "true", "diagnostics_period_s": "0.1"}, name="seer"
    )
    try:
        done = robot.call(ChangeState, "seer/change_state", transition=Transition(id=Transition.TRANSITION_CONFIGURE))
        assert not done.success
        robot.wait(
            lambda: "publish_detections" in robot.value("node", "message", "seer"), PATIENCE_S, "the reason is told"
        )
        assert "vision_msgs" in robot.value("node", "message", "seer")
        assert process.alive()
    finally:
        process.end()
