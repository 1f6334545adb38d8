"""A bag's CameraInfo and tf reach the grounding; a pose stream with holes gives no pose in them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from salmonn_node.answering.answerer import Answerer
from salmonn_node.answering.grounding import Grounding
from salmonn_node.commands.recording_flags import parse_mount
from salmonn_node.ingest.observer import Observer
from salmonn_node.lab.world.mount import CAMERA_MOUNT
from salmonn_node.messages.bag_writer import BagWriter
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.stream.answers import AnswerType, Evidence, Question, Region
from salmonn_node.stream.observations import SECOND_NS as S
from salmonn_node.stream.observations import Frame, Interval, Pose
from salmonn_node.stream.transforms import from_rpy, mounted

START = 1_000 * S
OPTICAL = "front_optical"


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Odometry drives a metre a second along x, with a hole of 5 s; the map is 10 m off; a picture a second."""
    path = tmp_path_factory.mktemp("space") / "bag"
    covariance = np.diag([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    with BagWriter(path, pose_topic="/odom") as writer:
        mount = mounted("base_link", OPTICAL, CAMERA_MOUNT)
        writer.transforms(START, [mount], static=True)
        for tenth in range(240):
            stamp, t = START + tenth * S // 10, tenth / 10
            if tenth % 2 == 0:
                drift = Pose(0, "map", np.array([10.0, 0.1 * t, 0.0]), from_rpy(0, 0, 0), child_frame_id="odom")
                writer.transforms(stamp, [drift])
            if not 10 <= t <= 15 and tenth % 2:
                writer.pose(Pose(stamp, "odom", np.array([t, 0.0, 0.0]), from_rpy(0, 0, 0), covariance))
            if tenth % 10 == 0:
                writer.frame(Frame(stamp, "front", np.full((90, 160, 3), tenth, np.uint8), OPTICAL))
                writer.camera_info(stamp, "front", OPTICAL, (160, 90), 120.0)
    return path


@pytest.fixture(scope="module")
def answerer(bag: Path) -> Answerer:
    observer, grounding = Observer(VideoSalmonnS.tiny(), inline=True), Grounding()
    with BagStream(bag, map_id="home", grounding=grounding) as stream:
        for _, observation in stream:
            observer.submit(observation)
        assert stream.report.dropped == {}
        assert stream.topics.ignored == {}
    return Answerer(observer, grounding=grounding)


def test_camera_and_tf_are_read(answerer: Answerer) -> None:
    grounding = answerer.grounding
    assert grounding.cameras.at("front", START).matrix[0, 0] == 120.0
    assert set(grounding.frames.frames) == {"base_link", OPTICAL, "map", "odom"}
    pose = Pose(START + S, "odom", np.array([1.0, 0.0, 0.0]), from_rpy(0, 0, 0))
    region = Region(70, 60, 20, 20, 160, 90, 10.0)
    found = grounding.object_pose(
        Evidence(Interval(START, START), "vision", "front", OPTICAL, 1.0, pose, region=region)
    )
    assert found is not None
    assert 2.0 < found.position[0] < 7.0
    assert grounding.counts == {"object": 1}


@pytest.mark.parametrize("second", [2, 6, 20])
def test_poses_are_those_of_the_picture_and_move_to_the_map(answerer: Answerer, second: int) -> None:
    window = {"after_ns": START + second * S, "before_ns": START + (second + 1) * S}
    for target, x, y in (("", second, 0.0), ("/odom", second, 0.0), ("/map", second + 10.0, 0.1 * second)):
        question = Question("where were you?", AnswerType.POSITION, target_frame=target, **window)
        answer = answerer.ask(question, deadline=math.inf)
        assert answer.error_code == 0, answer.error_msg
        # Interpolated between poses 0.1 s before and after; the transform between two that are 0.2 s apart.
        np.testing.assert_allclose(answer.pose.position, [x, y, 0.0], atol=1e-9)
        np.testing.assert_allclose(np.diag(answer.pose.covariance), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
        assert (answer.pose.frame_id, answer.map_id, answer.pose.stamp_ns) == (
            target.lstrip("/") or "odom",
            "home",
            START + second * S,
        )


def test_a_hole_in_the_poses_is_not_bridged(answerer: Answerer) -> None:
    window = {"after_ns": START + 12 * S, "before_ns": START + 13 * S}
    answer = answerer.ask(Question("where were you?", AnswerType.POSITION, **window), deadline=math.inf)
    assert answer.error_code == 0
    assert answer.evidence
    assert answer.evidence[0].pose is None
    assert answer.pose is None


def test_a_mount_on_the_command_line() -> None:
    assert parse_mount("front=0,0,1,-1.5,0,-1.5") == ("front", (0.0, 0.0, 1.0, -1.5, 0.0, -1.5))
    for wrong in ("front", "front=1,2", "front=a,b,c,d,e,f", "front=nan,0,0,0,0,0"):
        with pytest.raises(ValueError, match="--mount"):
            parse_mount(wrong)
