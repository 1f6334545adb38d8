"""The demo's bag through the real way in and out: an oracle points at things, and they get their places in the map.

The oracle stands in the network's place. It reads from the world's truth which cells of a picture a thing covers, and
nothing else; what comes back is the project's own: regions, camera, mount, poses, frames. Its errors are not those of a
network, which has to find the cells by itself.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from salmonn_node.answering.answerer import Answerer
from salmonn_node.answering.grounding import Grounding
from salmonn_node.evaluation.evidence_picture import picture_of
from salmonn_node.ingest.observer import Observer
from salmonn_node.lab.world.mount import CAMERA_MOUNT, GROUND_Z_M
from salmonn_node.lab.world.truth import Seen, WorldMoment
from salmonn_node.lab.world.truth_file import truth_from_json
from salmonn_node.live.demo_recording import BAG, TRUTH
from salmonn_node.model.generation import Generation
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, PoseKind, Question
from salmonn_node.stream.observations import Pose
from salmonn_node.stream.transforms import from_rpy

TRUE = truth_from_json(TRUTH.read_text())
# Clear views in the first picture of a temporal patch (every even second), whose pose and stamp the evidence has.
VIEWS = [(m, s) for m in TRUE.moments if m.second % 2 == 0 for s in m.seen if s.clear]


def pointing(model: Any, views: dict[str, tuple[WorldMoment, Seen]]) -> Any:
    """A network that answers "3: where ...?" by pointing at cells as far as the third view's thing covers them."""

    def answer(question: str, view: Any, **_: Any) -> Generation:
        moment, seen = views[question.partition(":")[0]]
        batch, weight = view.visual, torch.zeros(len(view))
        rows = torch.nonzero(batch.stamp_ns == moment.stamp_ns)[:, 0]
        for row in rows.tolist():
            high, wide = batch.grid[row].tolist()
            y, x = divmod(int(batch.place[row]), wide)
            left, top, right, bottom = seen.box
            across = min(right, (x + 1) / wide) - max(left, x / wide)
            down = min(bottom, (y + 1) / high) - max(top, y / high)
            weight[row] = max(0.0, across) * max(0.0, down)
        if not weight.any():
            weight[rows] = 1.0  # the memory let go of them all: nothing is left but the moment
        return Generation(seen.thing.name, [1], [-0.1], weight / weight.sum(), pointer=weight / weight.sum())

    model.answer = answer
    return model


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    model: Any = VideoSalmonnS.tiny()
    model.checkpoint = replace(model.checkpoint, id="oracle", name="oracle (no network)", trained=True)
    # A budget that keeps all of the bag: what the memory lets go is another question.
    memory = replace(model.config.memory, visual_tokens=4_000)
    model.config = replace(model.config, memory=memory)
    observer = Observer(pointing(model, {str(i): v for i, v in enumerate(VIEWS)}), inline=True)
    grounding = Grounding({"front": CAMERA_MOUNT}, ground_z_m=GROUND_Z_M)
    with BagStream(BAG, map_id="home", grounding=grounding) as stream:
        for _, observation in stream:
            if type(observation).__name__ != "AudioChunk":
                observer.submit(observation)
    return Answerer(observer, max_evidence=2, grounding=grounding)


def ask(answerer: Answerer, text: str, **fields: Any) -> Answer:
    question = Question(text, AnswerType.POSITION, want_thumbnails=True, **fields)
    return answerer.ask(question, deadline=math.inf, cancel=threading.Event())


def test_things_are_where_the_truth_says(answerer: Answerer) -> None:
    away, squares, robots = [], [], []
    for i, (moment, seen) in enumerate(VIEWS):
        answer = ask(answerer, f"{i}: where is the {seen.thing.name}?")
        assert answer.error_code == ErrorCode.NONE, answer.error_msg
        first = answer.evidence[0]
        assert (first.region.picture_width, first.region.picture_height) == (640, 360)
        true = np.array([moment.pose.x, moment.pose.y])
        robots.append(np.linalg.norm(first.pose.position[:2] - true))
        assert answer.pose_kind == PoseKind.OBJECT, answerer.grounding.counts
        assert (answer.pose.frame_id, answer.map_id, answer.pose.stamp_ns) == ("map", "home", moment.stamp_ns)
        gap = (answer.pose.position - np.array(seen.position))[:2]
        away.append(float(np.linalg.norm(gap)))
        squares.append(float(gap @ np.linalg.solve(answer.pose.covariance[:2, :2], gap)))
        assert first.later_pose is not None
        after = TRUE.moments[moment.second + 1].pose
        assert np.linalg.norm(first.later_pose.position[:2] - (after.x, after.y)) < 0.4
        turned = abs(math.remainder(after.yaw - moment.pose.yaw, math.tau)) > 0.2
        assert (math.sqrt(np.linalg.eigvalsh(answer.pose.covariance[:2, :2])[-1]) > 0.5) or not turned
        assert picture_of(first) != first.thumbnail
    print(f"{len(away)} views: median {np.median(away):.2f} m, p90 {np.quantile(away, 0.9):.2f} m")
    print(f"the robot's own poses: median {np.median(robots):.3f} m, largest {np.max(robots):.3f} m")
    assert len(away) >= 12
    assert np.median(away) < 0.5
    assert np.mean(squares) < 4.0
    assert np.max(robots) < 0.2  # the localiser's noise is 0.04 m


def test_where_the_robot_was_is_told_when_asked_or_when_the_thing_cannot_be_placed(answerer: Answerer) -> None:
    moment, seen = VIEWS[0]
    own = ask(answerer, f"0: where were you when you saw the {seen.thing.name}?")
    assert own.pose_kind == PoseKind.OBSERVER
    np.testing.assert_allclose(own.pose.position, own.evidence[0].pose.position)
    assert np.linalg.norm(own.pose.position[:2] - (moment.pose.x, moment.pose.y)) < 0.2
    grounding = answerer.grounding
    for grounding_without, reason in ((Grounding(), "no_camera_info"), (Grounding(), "no_mount")):
        if reason == "no_mount":
            grounding_without.cameras = grounding.cameras
        answerer.grounding = grounding_without
        fallen = ask(answerer, f"0: where is the {seen.thing.name}?")
        answerer.grounding = grounding
        assert fallen.pose_kind == PoseKind.OBSERVER
        assert grounding_without.counts == {reason: 1}


def test_an_answer_comes_in_the_frame_that_was_asked_for(answerer: Answerer) -> None:
    site = Pose(0, "site", np.array([100.0, 50.0, 0.0]), from_rpy(0, 0, math.pi / 2), child_frame_id="map")
    answerer.grounding.frames.add(site, static=True)
    here, there = (ask(answerer, f"0: where is the {VIEWS[0][1].thing.name}?", target_frame=f) for f in ("map", "site"))
    x, y, z = here.pose.position
    np.testing.assert_allclose(there.pose.position, [100.0 - y, 50.0 + x, z], atol=1e-9)
    np.testing.assert_allclose(there.pose.covariance[0, 0], here.pose.covariance[1, 1], rtol=1e-9)
    np.testing.assert_allclose(there.pose.covariance[1, 1], here.pose.covariance[0, 0], rtol=1e-9)
    assert (there.pose.frame_id, there.map_id, there.pose_kind) == ("site", "home", PoseKind.OBJECT)
    # The evidence tells where the robot was, in the frame in which it was observed.
    assert there.evidence[0].pose.frame_id == "map"
    lost = ask(answerer, "0: where is it?", target_frame="mars")
    assert lost.error_code == ErrorCode.TRANSFORM_ERROR
    assert "from map to mars" in lost.error_msg
