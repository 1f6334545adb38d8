"""Answer cards, timeline, map and health as HTML: what they say, and that no text of the world becomes markup."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import pytest

from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Evidence, Outcome, PoseKind, Question, Region
from salmonn_node.stream.kept_timeline import KeptTimeline, SourceRow
from salmonn_node.stream.observations import SECOND_NS, Interval, Pose
from salmonn_node.ui import answer_card, health_drawing, map_drawing, timeline_drawing
from salmonn_node.ui.source import OK, STALE, WARNING, Exchange, MemoryFacts, Part, SourceState

EVIL = "<img src=x onerror=alert(1)>\"'&"
START_NS = 100 * SECOND_NS


class Tags(HTMLParser):
    """Collects tags, attributes and text; void elements aside, what is opened must be closed in order."""

    VOID = ("img", "input", "br")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def safe(self) -> bool:
        return not any(name.startswith("on") for _, attrs in self.tags for name in attrs) and all(
            attrs.get("src", "data:").startswith("data:") for tag, attrs in self.tags if tag == "img"
        )


def pose(x: float, y: float, second: float = 0.0) -> Pose:
    covariance = np.diag([0.04, 0.01, 0, 0, 0, 0.1])
    where, turn = np.array([x, y, 0.0]), np.array([0, 0, 0, 1.0])
    return Pose(START_NS + round(second * SECOND_NS), "map", where, turn, covariance, EVIL)


def piece(second: float, source: str = EVIL, modality: str = "vision") -> Evidence:
    start_ns = START_NS + round(second * SECOND_NS)
    region = Region(10, 20, 30, 40, 320, 240) if modality == "vision" else None
    picture = b"\xff\xd8jpeg" if modality == "vision" else b""
    return Evidence(
        Interval(start_ns, start_ns + SECOND_NS), modality, source, "optical", 0.5, pose(1, 2), picture, region
    )


def answer(**change: object) -> Answer:
    fields = {
        "text": EVIL, "answer_type": AnswerType.TEXT, "confidence": 0.83, "latency_s": 0.4, "memory_start_ns": START_NS,
        "last_observation_ns": START_NS + 60 * SECOND_NS, "evidence": (piece(3), piece(5, "mic", "audio")),
    }  # fmt: skip
    return Answer(**(fields | change))  # type: ignore[arg-type]


def test_a_card_says_everything_and_escapes_what_it_is_told():
    found = Tags(answer_card.card(Question(EVIL), answer(), START_NS))

    assert found.safe()
    for words in (EVIL, "Answered", "83 %", "400", "3.0 s to 4.0 s", "56 s earlier", "camera", "microphone mic"):
        assert words in found.text.replace("0.4 s", "400"), words
    assert ("rect", {"class": "over", "x": "10", "y": "20", "width": "30", "height": "40"}) in found.tags
    assert any(attrs.get("viewbox") == "0 0 320 240" for _, attrs in found.tags)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_each_outcome_has_a_word_and_a_colour(outcome: Outcome):
    found = Tags(answer_card.card(Question("q"), answer(outcome=outcome, answer_type=AnswerType.BINARY)))
    assert [attrs["class"] for _, attrs in found.tags if "badge" in (attrs.get("class") or "")]
    assert outcome.name.replace("_", " ").capitalize() in found.text


def test_an_error_says_why_and_what_to_do():
    failed = Answer(error_code=ErrorCode.TIMEOUT, error_msg=EVIL)
    found = Tags(answer_card.card(Question("q"), failed))
    assert found.safe()
    assert {"Too late", EVIL, "TIMEOUT"} <= {word.strip() for word in found.words}
    assert "Give it more seconds" in found.text


def test_copies_are_json_and_python_that_compiles():
    question = Question('say "x"\n', AnswerType.CHOICE, ("a", "b"), 5, 9, ("front",), timeout_s=3.0)
    both = json.loads(answer_card.as_json(question, answer(confidence=float("nan"))))
    assert both["question"]["answer_type"] == "CHOICE"
    assert both["answer"]["confidence"] is None
    assert both["answer"]["evidence"][0]["thumbnail"] == {"bytes": 6}
    code = answer_card.as_python(question, 'memory = Memory(node, "salmonn")')
    compile(code, "copied", "exec")
    for words in ("AnswerType.CHOICE", "after_ns=5", "before_ns=9", "sources=['front']", repr(question.text)):
        assert words in code


def timeline() -> KeptTimeline:
    front = SourceRow(EVIL, "vision", (2, 2, 0, 0, 2, 2), (8, 0, 0, 0, 16, 16), (1, 0, 0, 0, 0, 1))
    mic = SourceRow("mic", "audio", (1, 1, 0, 1, 1, 1), (4, 4, 0, 0, 4, 4), (0,) * 6)
    path = tuple(pose(i * 0.5, i * 0.2, i) for i in range(20))
    return KeptTimeline("memory-0", START_NS, 10 * SECOND_NS, (front, mic), path)


def test_the_timeline_shows_what_is_held_gaps_events_evidence_and_the_window():
    asked = (Exchange("q", answer()),)
    chosen = Interval(START_NS + 15 * SECOND_NS, START_NS + 30 * SECOND_NS)
    found = Tags(timeline_drawing.drawing(timeline(), asked, chosen, START_NS))

    assert found.safe()
    kinds = [attrs.get("class") for tag, attrs in found.tags if tag == "rect"]
    assert (kinds.count("kept"), kinds.count("event"), kinds.count("gap")) == (3 + 4, 2, 2 + 1)
    assert sum(attrs.get("class") == "mark" for _, attrs in found.tags) == 2
    styles = [attrs["style"] for _, attrs in found.tags if attrs.get("class") == "chosen"]
    assert styles == ["left:25.000%;width:25.000%"] * 2
    assert "40 tokens" in found.text
    assert [g.start_ns for g in timeline_drawing.gaps(timeline())] == [START_NS + 20 * SECOND_NS]
    assert timeline_drawing.held_within(timeline(), chosen) == (4, 4)
    assert "Nothing is remembered" in timeline_drawing.drawing(KeptTimeline("m", 0, SECOND_NS))


def test_the_map_shows_path_evidence_things_and_their_spread():
    thing = answer(answer_type=AnswerType.POSITION, pose=pose(4, 3), pose_kind=PoseKind.OBJECT)
    elsewhere = answer(evidence=(), pose=Pose(1, "odom", np.zeros(3), np.array([0, 0, 0, 1.0])))
    found = Tags(map_drawing.drawing(timeline().path, (Exchange(EVIL, thing), Exchange("q", elsewhere)), START_NS))

    assert found.safe()
    ellipses = [attrs for tag, attrs in found.tags if tag == "ellipse"]
    assert [e["class"] for e in ellipses] == ["seen", "seen", "thing"]
    assert float(ellipses[-1]["rx"] or 0) == pytest.approx(0.2 * 5.991**0.5, abs=1e-3)
    assert ellipses[-1]["cy"] == "-3.000"
    pins = [attrs["class"] for tag, attrs in found.tags if tag == "span" and "pin" in (attrs.get("class") or "")]
    assert pins == ["pin start", "pin robot", "pin mark", "pin mark", "pin thing"]
    assert "Metres in frame map, map " + EVIL in found.text
    assert "No pose" in map_drawing.drawing(())


def test_health_is_read_as_sentences():
    facts = MemoryFacts(
        memory_id=EVIL, frames=12, audio_s=90, visual_tokens=50, visual_budget=100,
        drops={"not_sampled": 7, "odd_one": 2},
        vision_backend="torch", vision_backend_reason="no plan", checkpoint_id="tiny", checkpoint_trained=False,
        persistence="on", reader="server: log and pictures go to http://10.0.0.9/v1 (ANOTHER MACHINE)",
    )  # fmt: skip
    values = {"rate_hz": "29.970", "stamp_delay_s": "0.040", "missing_share": "0.250", "dropped.queue_full": "3"}
    parts = (
        Part("node", OK, "active", {}),
        Part("input front", WARNING, EVIL, values),
        Part("input mic", STALE, "silent for 9 s", {"rate_hz": "broken"}),
        Part("questions", OK, "", {"open": "1", "latency_p50_s": "0.500", "replied.NOT_ACTIVE": "2"}),
    )
    found = Tags(health_drawing.drawing(SourceState(True, "It answers.", facts, parts, ("left out: x",))))

    assert found.safe()
    for words in (
        "50 held, budget 100 (50 %)", "UNTRAINED", "torch, because no plan", "30.0 per s", "0.04 s", "25 %",
        "Attention",
        "Silent", "lost because the encoder is too slow", "7: not looked at, which is normal", "2: odd one",
        "2 not active", "0.50 s", "left out: x", "90 s",
        "ANOTHER MACHINE",
    ):  # fmt: skip
        assert words in found.text, words
    assert health_drawing.snapshot_age(0, 1) == "none"
    assert health_drawing.snapshot_age(2 * 10**18, 2 * 10**18 + 600 * SECOND_NS) == "10.0 min old"
