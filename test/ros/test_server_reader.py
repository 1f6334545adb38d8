"""A server as the reader over real rclpy. The server is a STUB: a perfect reader, or it fails as real ones do.

The demo's bag is played into the real node. Right answers here are no figure of any model; they show that log,
pictures, schema, evidence and typed fields hold together.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray

from salmonn_interfaces.msg import MemoryStatus
from salmonn_node.client import Memory
from salmonn_node.client.qos import LATCHED
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.evaluation.scores import judge
from salmonn_node.lab.perfect_reader import PerfectReader
from salmonn_node.lab.stub_server import StubServer, pictures_of, text_of
from salmonn_node.lab.world.mount import CAMERA_MOUNT, GROUND_Z_M
from salmonn_node.lab.world.truth import START_NS, Truth
from salmonn_node.live.demo_recording import BAG
from salmonn_node.live.processes import end, free_domain, play, spun_node
from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Outcome

from .harness import PATIENCE_S, SECOND_NS, NodeProcess
from .oracle_node import records, truth
from .test_oracle import wait

pytestmark = pytest.mark.ros
TIMEOUT_S = 2.0  # of the server
# The least share of answerable questions that the log of this minute lets a perfect reader answer.
LEAST_RIGHT = 0.8


@dataclass
class Flat:
    """A node that has seen and heard the demo's bag, and the server that reads for it."""

    memory: Memory
    server: StubServer
    perfect: PerfectReader
    truth: Truth
    records: list[QuestionRecord]
    node: NodeProcess
    diagnostics: dict[str, str]
    readers: list[str]  # as MemoryStatus tells it

    def ask(self, text: str, kind: AnswerType = AnswerType.TEXT, **fields: object) -> Answer:
        return self.memory.ask(text, answer_type=kind, **({"timeout_s": PATIENCE_S} | fields))

    def asked(self) -> list[dict]:
        """The requests of questions, without those of captions."""
        return [request for request in list(self.server.requests) if "The question" in text_of(request)]

    def awaits(self, key: str, value: str) -> None:
        wait(lambda: self.diagnostics.get(key, "").startswith(value))


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flat]:
    folder = tmp_path_factory.mktemp("server")
    domain = free_domain()
    found, asked = truth(), records()
    perfect = PerfectReader(found, asked)
    server = StubServer(perfect)
    parameters = {
        "use_sim_time": "true",
        "cameras": "[front]",
        "microphones": "[mic]",
        "image_transport": "compressed",
        "image_reliability": "reliable",
        "image_depth": "50",
        "audio_type": "salmonn_interfaces/msg/AudioChunk",
        "audio_depth": "1000",
        "pose_type": "pose_with_covariance",
        "pose_depth": "1000",
        "pose_reliability": "reliable",
        "map_id": "home",
        "front.mount": str(list(CAMERA_MOUNT)),
        "ground_z_m": str(GROUND_Z_M),
        "persistence": "false",
        "threads": "1",
        "diagnostics_period_s": "0.2",
        "reader": "server",
        "server_url": server.url,
        "server_model": "stub",
        "server_timeout_s": str(TIMEOUT_S),
        "server_caption_period_s": "0.05",
    }
    node = NodeProcess(folder / "node.log", parameters, scripted=False, domain=domain)
    values: dict[str, str] = {}

    def keep(array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name.endswith(": reader"):
                values.update({pair.key: pair.value for pair in status.values})

    with server, spun_node("planner", domain) as planner:
        planner.create_subscription(DiagnosticArray, "/diagnostics", keep, 10)
        readers: list[str] = []
        planner.create_subscription(
            MemoryStatus, "/salmonn/memory_status", lambda status: readers.append(status.reader), LATCHED
        )
        memory = Memory(planner)
        memory.startup(PATIENCE_S)
        topics = ["/front/image/compressed", "/front/camera_info", "/mic/audio", "/pose"]
        player = play(BAG, 8.0, folder / "player.log", topics, domain=domain)
        try:
            assert player.wait(PATIENCE_S) == 0, (folder / "player.log").read_text()
            last = START_NS + (found.seconds - 1) * SECOND_NS
            for source in ("front", "mic"):
                wait(lambda s=source: memory.ask("?", timeout_s=5.0, sources=(s,), after_ns=last).error_code != 3)
            yield Flat(memory, server, perfect, found, asked, node, values, readers)
        finally:
            end(player)
            node.end()


@pytest.fixture(autouse=True)
def works(flat: Flat) -> None:
    """Each test begins with a server that works and a breaker that is closed."""
    flat.server.fault, flat.server.script = "", flat.perfect

    def closed() -> bool:
        return flat.ask("is there a snake?").error_code == ErrorCode.NONE

    wait(closed)
    flat.server.requests.clear()


def test_a_perfect_reader_of_log_and_pictures_is_right_and_its_evidence_too(flat: Flat) -> None:
    right, answerable, wrong = 0, 0, []
    for record in flat.records:
        answer = flat.ask(record.text, AnswerType[record.answer_type], choices=record.choices, want_thumbnails=True)
        assert answer.error_code == ErrorCode.NONE, answer
        assert answer.answer_type.name == record.answer_type
        assert answer.memory_id == "default-0"
        judgement = judge(record, answer)
        if not record.answerable:
            assert answer.outcome == Outcome.NOT_OBSERVED or answer.text in ("no", "0"), (record.text, answer)
            assert answer.evidence == ()
            continue
        answerable += 1
        if judgement.correct and judgement.evidence_hit:
            right += 1
        else:
            wrong.append((record.text, answer.text, [e.interval for e in answer.evidence], record.evidence))
        for piece in answer.evidence:
            assert piece.source in ("front", "mic")
            assert piece.modality == "audio" or piece.thumbnail.startswith(b"\xff\xd8")
            assert piece.pose is not None
            assert (piece.pose.frame_id, piece.pose.map_id) == ("map", "home")
    assert right >= LEAST_RIGHT * answerable, f"{right} of {answerable}: {wrong}"
    sent = [len(pictures_of(request)) for request in flat.asked()]
    assert max(sent) <= 32
    assert flat.diagnostics["reader"].startswith("server: log and pictures go to http://127.0.0.1")


def test_times_spans_counts_and_places_come_from_events(flat: Flat) -> None:
    def script(request: dict) -> str:
        text = text_of(request)
        if "The log:" in text:
            sounds = [int(line.split()[0]) for line in text.splitlines() if "| sound |" in line]
            sights = [int(line.split()[0]) for line in text.splitlines() if "| sight |" in line]
            return json.dumps({"events": sights[:1], "counted": sounds if "how often" in text else []})
        return json.dumps({"observed": True, "text": "there", "value": None, "pictures": [1], "box": None})

    flat.server.script = script
    time_, span, place = (
        flat.ask("which?", kind) for kind in (AnswerType.TIME, AnswerType.DURATION, AnswerType.POSITION)
    )
    assert time_.event == time_.evidence[0].interval == span.evidence[0].interval
    assert span.duration_s >= (time_.event.end_ns - time_.event.start_ns) / SECOND_NS > 0
    assert place.pose is not None
    assert place.pose_kind == 0
    counted = flat.ask("how often did it sound?", AnswerType.COUNT)
    assert counted.count >= len(counted.evidence) > 0
    assert {piece.modality for piece in counted.evidence} <= {"audio", "vision"}


def test_windows_and_sources_bound_what_is_sent(flat: Flat) -> None:
    after, before = START_NS + 20 * SECOND_NS, START_NS + 30 * SECOND_NS
    flat.ask("what was there?", after_ns=after, before_ns=before, sources=("front",))
    text = text_of(flat.asked()[0])
    lines = [line for line in text.splitlines() if " | " in line and line[0].isdigit()]
    assert lines
    assert not any("| sound |" in line for line in lines)
    assert all("0:00:2" in line or "0:00:30" in line or " to 0:00:" in line for line in lines)
    nothing = flat.ask(
        "what was there?", after_ns=START_NS + 1000 * SECOND_NS, before_ns=START_NS + 1001 * SECOND_NS, timeout_s=2.0
    )
    assert nothing.error_code in (ErrorCode.EMPTY_MEMORY, ErrorCode.TIMEOUT)


def test_numbers_that_were_not_sent_are_refused(flat: Flat) -> None:
    def script(request: dict) -> str:
        if "The log:" in text_of(request):
            return '{"events": [1]}'
        return '{"observed": true, "text": "x", "pictures": [99]}'

    flat.server.script = script
    answer = flat.ask("what was there?")
    assert answer.error_code == ErrorCode.MODEL_ERROR
    assert "99" in answer.error_msg
    asked_again = text_of(flat.asked()[-1])
    assert "That cannot be used: pictures [99] were not sent" in asked_again
    # A first pass that names what is not there falls back to a cover of the log.
    flat.server.script = lambda r: (
        '{"events": [9999]}' if "The log:" in text_of(r) else '{"observed": true, "text": "x", "pictures": [1]}'
    )
    flat.server.requests.clear()
    assert flat.ask("what was there?").outcome == Outcome.ANSWERED
    assert 4 < len(pictures_of(flat.asked()[-1])) <= 32


@pytest.mark.parametrize("fault", ["memory", "html", "half", "empty"])
def test_a_failing_server_is_an_error_in_words_and_the_next_question_is_tried(flat: Flat, fault: str) -> None:
    flat.server.fault = fault
    answer = flat.ask("what was there?")
    assert answer.error_code == ErrorCode.MODEL_ERROR
    assert answer.error_msg.startswith("server: ")
    assert len(answer.error_msg) < 400
    flat.server.fault = ""
    assert flat.ask("is there a snake?").error_code == ErrorCode.NONE
    assert flat.node.alive()


def test_a_reply_that_is_no_json_is_an_error_after_one_repair(flat: Flat) -> None:
    flat.server.script = lambda request: "I would rather talk about the weather."
    answer = flat.ask("what was there?")
    assert answer.error_code == ErrorCode.MODEL_ERROR
    assert "holds no JSON object" in answer.error_msg
    assert len(flat.asked()) == 4  # two passes, each with one repair


def test_deadline_cancel_and_the_servers_own_timeout(flat: Flat) -> None:
    flat.server.fault = "slow"
    began = time.monotonic()
    late = flat.ask("what was there?", timeout_s=0.5)
    assert late.error_code == ErrorCode.TIMEOUT
    assert time.monotonic() - began < PATIENCE_S
    slow = flat.ask("what was there?")
    assert slow.error_code == ErrorCode.MODEL_ERROR
    assert "server_timeout_s" in slow.error_msg
    flat.server.fault = ""
    assert flat.ask("is there a snake?").error_code == ErrorCode.NONE


def test_a_canceled_question_breaks_its_request_off(flat: Flat) -> None:
    flat.server.fault = "slow"
    cancel, answers = threading.Event(), []
    asking = threading.Thread(target=lambda: answers.append(flat.ask("what was there?", cancel=cancel)))
    asking.start()
    wait(lambda: bool(flat.asked()))  # the server has the question, and does not reply
    cancel.set()
    asking.join(PATIENCE_S)
    assert [answer.error_code for answer in answers] == [ErrorCode.CANCELED]
    flat.server.fault = ""
    # The node goes on, and the action answers as the service does.
    by_action = flat.ask("is there a snake?", cancel=threading.Event())
    assert (by_action.error_code, by_action.outcome) == (ErrorCode.NONE, Outcome.NOT_OBSERVED)


def test_the_breaker_stands_on_diagnostics_and_closes_again(flat: Flat) -> None:
    flat.server.fault = "memory"
    wait(lambda: "left alone" in flat.ask("what was there?").error_msg)
    flat.awaits("circuit_breaker", "open")
    flat.server.fault = ""
    wait(lambda: flat.ask("is there a snake?").error_code == ErrorCode.NONE)
    flat.awaits("circuit_breaker", "closed")


def test_status_and_diagnostics_say_where_pictures_go(flat: Flat) -> None:
    where = f"server: log and pictures go to {flat.server.url} (this machine), model stub"
    wait(lambda: bool(flat.readers))
    assert set(flat.readers) == {where}
    flat.awaits("reader", where)


def test_captions_are_written_in_idle_time_and_read(flat: Flat) -> None:
    flat.server.script = lambda request: "a caption" if "The question" not in text_of(request) else '{"events": []}'
    wait(lambda: int(flat.diagnostics.get("captions.written", "0")) > 0)
    flat.ask("is there a snake?")
    assert "| a caption\n" in text_of(flat.asked()[0]) or "| a picture of a flat\n" in text_of(flat.asked()[0])
    # Sounds get none without a transcriber: a picture does not tell what was heard.
    sounds = [line for line in text_of(flat.asked()[0]).splitlines() if "| sound |" in line]
    assert sounds
    assert not any("caption" in line or "a picture" in line for line in sounds)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"server_url": "http://192.0.2.1:8000/v1"}, "server_allow_remote"), ({"server_model": "''"}, "server_model")],
)
def test_a_server_that_is_not_allowed_or_not_named_fails_configure(
    changes: dict[str, str], words: str, tmp_path: Path
) -> None:
    domain = free_domain()
    parameters = {"reader": "server", "server_model": "stub", "persistence": "false", **changes}
    node = NodeProcess(tmp_path / "node.log", parameters, scripted=False, domain=domain)
    try:
        with spun_node("planner", domain) as planner:
            memory = Memory(planner)
            with pytest.raises(Exception, match=r"\w"):
                memory.startup(PATIENCE_S)
        assert words in node.log.read_text()
    finally:
        node.end()
