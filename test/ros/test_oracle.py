"""Every answer type over real rclpy: the demo's bag played into a node with an oracle in the network's place.

The oracle (oracle_node.py) reads the world's truth; all that happens to its words, options and pointers until a planner
has a typed answer is the node's own. Right answers here are no figure of a network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage

from salmonn_node.client import Memory
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.evaluation.scores import judge
from salmonn_node.lab.world.mount import CAMERA_MOUNT, GROUND_Z_M
from salmonn_node.lab.world.truth import START_NS, Truth
from salmonn_node.live.demo_recording import BAG
from salmonn_node.live.processes import end, free_domain, play, spun_node
from salmonn_node.messages.base import header_message
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome, PoseKind

from .harness import HEIGHT, PATIENCE_S, SECOND_NS, TYPES, WIDTH, NodeProcess
from .oracle_node import records, truth

pytestmark = pytest.mark.ros
TYPED = [k for k in AnswerType if k != AnswerType.ANY]
REAR_FRAMES = 8
# A localiser's noise of 0.04 m in the bag, and what interpolation between its poses adds.
POSE_ERROR_M = 0.25


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@dataclass
class Flat:
    """A node that has seen and heard the demo's bag, and eight pictures of a camera at the back."""

    memory: Memory
    truth: Truth
    records: list[QuestionRecord]

    def ask(self, text: str, kind: AnswerType = AnswerType.TEXT, **fields: object) -> Answer:
        answer = self.memory.ask(text, answer_type=kind, timeout_s=PATIENCE_S, **fields)
        assert answer.error_code == ErrorCode.NONE, answer
        return answer


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flat]:
    folder = tmp_path_factory.mktemp("oracle")
    domain = free_domain()
    parameters = {
        "use_sim_time": "true",
        "cameras": "[front, rear]",
        "microphones": "[mic]",
        "image_transport": "compressed",
        "image_reliability": "reliable",
        "image_depth": "50",
        "audio_type": "salmonn_interfaces/msg/AudioChunk",
        "audio_depth": "1000",
        "pose_type": "pose_with_covariance",
        "pose_depth": "1000",
        "map_id": "home",
        "front.mount": str(list(CAMERA_MOUNT)),
        "ground_z_m": str(GROUND_Z_M),
        "persistence": "false",
        "read_events": "never",  # the network answers, and the oracle is in its place
        "threads": "1",
    }
    node = NodeProcess(folder / "node.log", parameters, script="oracle_node.py", domain=domain)
    with spun_node("planner", domain) as planner:
        memory = Memory(planner)
        memory.startup(PATIENCE_S)
        # The camera at the back comes first: the bag's first stamps are not far behind its last.
        rear = planner.create_publisher(CompressedImage, "rear/image/compressed", 50)
        wait(lambda: rear.get_subscription_count() > 0)
        for second in range(REAR_FRAMES):
            header = header_message(TYPES, START_NS + second * SECOND_NS, "rear_optical")
            picture = cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 20 * second, np.uint8))[1].tobytes()
            rear.publish(CompressedImage(header=header, format="jpeg", data=TYPES.data(picture)))
        window = {"sources": ("rear",), "after_ns": START_NS + (REAR_FRAMES - 1) * SECOND_NS}
        wait(lambda: memory.ask("is it?", timeout_s=5.0, **window).error_code == ErrorCode.NONE)
        topics = ["/front/image/compressed", "/front/camera_info", "/mic/audio", "/pose"]
        player = play(BAG, 8.0, folder / "player.log", topics, domain=domain)
        try:
            assert player.wait(PATIENCE_S) == 0, (folder / "player.log").read_text()
            truth_ = truth()
            last = START_NS + (truth_.seconds - 1) * SECOND_NS
            for sources in (("front",), ("mic",)):
                wait(lambda s=sources: memory.ask("is it?", timeout_s=5.0, sources=s, after_ns=last).error_code == 0)
            yield Flat(memory, truth_, records())
        finally:
            end(player)
            node.end()


def window(record: QuestionRecord) -> dict[str, int]:
    """From the start of a record's evidence to its end."""
    return {
        "after_ns": min(e.start_ns for e in record.evidence),
        "before_ns": max(e.end_ns for e in record.evidence),
    }


def test_every_type_is_right_and_rests_on_the_right_evidence(flat: Flat) -> None:
    wrong, kinds = [], set()
    for record in flat.records:
        answer = flat.ask(record.text, AnswerType[record.answer_type], choices=record.choices)
        judgement = judge(record, answer)
        kinds.add((record.kind, record.answerable))
        assert answer.answer_type.name == record.answer_type
        assert answer.memory_id == "default-0"
        if not judgement.correct or judgement.evidence_hit is False:
            wrong.append((record.text, answer))
        if not record.answerable:
            assert answer.outcome == Outcome.NOT_OBSERVED
            assert (answer.evidence, answer.pose, answer.event) == ((), None, None)
        # Calibrated where the file has a temperature, and only there.
        assert math.isnan(answer.confidence) == (record.answer_type != "BINARY" or not record.answerable)
    assert not wrong, wrong
    for kind in ("existence", "colour", "count", "where_robot", "where_object", "when_first", "when_last", "how_long"):
        assert (kind, True) in kinds, kinds
    assert {r.answer_type for r in flat.records if r.answerable} == {k.name for k in TYPED}


def test_any_finds_the_type_and_answers_as_it_would(flat: Flat) -> None:
    found = set()
    for record in flat.records:
        if not record.answerable or record.answer_type == "CHOICE":
            continue
        answer = flat.ask(record.text, AnswerType.ANY)
        if answer.answer_type.name == record.answer_type:
            assert judge(record, answer).correct, (record.text, answer)
            found.add(answer.answer_type)
    assert found >= {AnswerType.BINARY, AnswerType.COUNT, AnswerType.DURATION, AnswerType.TIME, AnswerType.TEXT}


def test_poses_are_those_of_the_robot_when_it_observed(flat: Flat) -> None:
    away = []
    for record in flat.records:
        if not record.answerable:
            continue
        for evidence in flat.ask(record.text, AnswerType[record.answer_type], choices=record.choices).evidence:
            pose = evidence.pose
            assert pose is not None
            assert (pose.frame_id, pose.map_id) == ("map", "home")
            # That of the patch of two pictures, or of the two seconds of sound, with which the evidence begins.
            assert evidence.interval.start_ns - 2 * SECOND_NS < pose.stamp_ns <= evidence.interval.end_ns
            assert np.linalg.eigvalsh(pose.covariance).min() >= 0.0
            second, rest = divmod((pose.stamp_ns - START_NS) / SECOND_NS, 1.0)
            one, two = (flat.truth.moments[min(int(second) + n, flat.truth.seconds - 1)].pose for n in (0, 1))
            # Between the seconds that the truth knows the robot is somewhere between them, or turns.
            true = np.array([one.x + rest * (two.x - one.x), one.y + rest * (two.y - one.y)])
            slack = 0.5 * math.hypot(two.x - one.x, two.y - one.y) if rest > 0.0 else 0.0
            away.append(np.linalg.norm(pose.position[:2] - true) - slack)
    assert len(away) > 10
    assert max(away) < POSE_ERROR_M, max(away)


def test_windows_and_sources_bound_what_is_read(flat: Flat) -> None:
    seen = [r for r in flat.records if r.answerable and r.kind in ("room", "colour") and len(r.evidence) == 1]
    record = max(seen, key=lambda r: r.evidence[0].start_ns)
    span = window(record)
    inside = flat.ask(record.text, **span)
    assert judge(record, inside).correct
    for evidence in inside.evidence:
        assert span["after_ns"] <= evidence.interval.start_ns <= evidence.interval.end_ns <= span["before_ns"]
    assert flat.ask(record.text, sources=("front",)).outcome == Outcome.ANSWERED
    elsewhere = (
        {"after_ns": span["before_ns"] + 3 * SECOND_NS},
        {"before_ns": span["after_ns"] - 3 * SECOND_NS},
        {"sources": ("rear",)},
        {"sources": ("mic",)},
        {"sources": ("rear", "mic")},
    )
    for bound in elsewhere:
        assert flat.ask(record.text, **bound).outcome == Outcome.NOT_OBSERVED, bound


def test_each_of_two_cameras_is_evidence_under_its_own_name(flat: Flat) -> None:
    for source in ("front", "rear"):
        answer = flat.ask(f"at {source} 3: what is there?", want_thumbnails=True)
        assert {e.source for e in answer.evidence} == {source}
        assert answer.evidence[0].thumbnail.startswith(b"\xff\xd8")
        other = "rear" if source == "front" else "front"
        blind = flat.ask(f"at {source} 3: what is there?", sources=(other,))
        assert blind.outcome == Outcome.NOT_OBSERVED
    wrong = flat.memory.ask("what is there?", sources=("side",), timeout_s=PATIENCE_S)
    assert (wrong.error_code, "side" in wrong.error_msg) == (ErrorCode.INVALID_REQUEST, True)


def test_two_times_or_places_that_fit_equally_are_ambiguous_and_both_given(flat: Flat) -> None:
    moments = [m for m in flat.truth.moments if m.second % 2 == 0]
    one, two = max(
        ((a, b) for a in moments for b in moments if b.second - a.second > 40),
        key=lambda pair: math.hypot(pair[0].pose.x - pair[1].pose.x, pair[0].pose.y - pair[1].pose.y),
    )
    text = f"at front {one.second} {two.second}: where or when was it?"
    for kind in (AnswerType.TIME, AnswerType.POSITION):
        answer = flat.ask(text, kind)
        assert answer.outcome == Outcome.AMBIGUOUS, answer
        starts = sorted((e.interval.start_ns - START_NS) // SECOND_NS for e in answer.evidence)
        assert starts == [one.second, two.second]
    assert flat.ask(text, AnswerType.BINARY).outcome == Outcome.ANSWERED
    assert flat.ask(f"at front {one.second}: where was it?", AnswerType.POSITION).outcome == Outcome.ANSWERED


@pytest.mark.parametrize("kind", TYPED)
def test_what_was_never_seen_is_not_observed_for_every_type(flat: Flat, kind: AnswerType) -> None:
    choices = ("a", "b") if kind == AnswerType.CHOICE else ()
    answer = flat.ask("is there a snake?", kind, choices=choices)
    assert (answer.outcome, answer.answer_type, answer.text) == (Outcome.NOT_OBSERVED, kind, "not observed")
    assert (answer.evidence, answer.pose, answer.event, answer.choice_index) == ((), None, None, -1)


def test_a_thing_has_a_place_of_its_own_and_the_robot_another(flat: Flat) -> None:
    for kind, whose in (("where_object", PoseKind.OBJECT), ("where_robot", PoseKind.OBSERVER)):
        record = next(r for r in flat.records if r.kind == kind and r.answerable)
        answer = flat.ask(record.text, AnswerType.POSITION)
        assert answer.pose_kind == whose, answer
        assert answer.map_id == "home"
        lost = flat.memory.ask(record.text, answer_type=AnswerType.POSITION, target_frame="mars", timeout_s=PATIENCE_S)
        assert lost.error_code == ErrorCode.TRANSFORM_ERROR
