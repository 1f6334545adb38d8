"""Answers from events: what is read from them, and that what is not understood is left to the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from answering.named_events import sight, sound
from safetensors.torch import save

from salmonn_node.answering.event_answers import EventAnswers
from salmonn_node.answering.event_reader import EventReading, length_s
from salmonn_node.memory.event_memory import EventMemory
from salmonn_node.memory.event_names import EventNames
from salmonn_node.memory.events import Event
from salmonn_node.memory.evidence_index import EvidenceIndex
from salmonn_node.memory.memory_view import MemoryView
from salmonn_node.model.checkpoint import load
from salmonn_node.model.event_parts import EventParts
from salmonn_node.model.question_head import QuestionHead
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.answers import Answer, AnswerType, Outcome, PoseKind, Question
from salmonn_node.stream.observations import SECOND_NS, Pose
from salmonn_node.stream.transforms import from_rpy


@pytest.fixture(scope="module")
def model() -> VideoSalmonnS:
    return load()


@pytest.fixture(scope="module")
def parts(model: VideoSalmonnS) -> EventParts:
    assert model.event_parts is not None
    return model.event_parts


@pytest.fixture(scope="module")
def seen(parts: EventParts) -> list[Event]:
    n = parts.names
    return [
        sight(n, "red", "ball", 10, 14, "kitchen"),
        sight(n, "blue", "cube", 40, 43, "office"),
        sight(n, "green", "ball", 60, 66, "office"),
        sight(n, "red", "ball", 100, 107, "bedroom"),
    ]


@pytest.fixture(scope="module")
def heard(parts: EventParts) -> list[Event]:
    n = parts.names
    return [
        sound(n, "doorbell", 20, 1.5),
        sound(n, "digit_two", 62, 1.0),
        sound(n, "knock", 102, 2.0, 3.0),
        sound(n, "alarm", 130, 6.0),
    ]


@pytest.fixture(scope="module")
def reading(parts: EventParts, seen: list[Event], heard: list[Event]) -> EventReading:
    return EventReading(parts.names, seen, heard)


RED_BALL, CUBE = {"colour": "red", "shape": "ball"}, {"colour": "blue", "shape": "cube"}
WHITE_STAR = {"colour": "white", "shape": "star"}


def test_first_and_last_are_those_of_what_was_asked(reading: EventReading, seen: list[Event]) -> None:
    assert reading.first(RED_BALL).events == (seen[0],)
    assert reading.last(RED_BALL).events == (seen[3],)
    assert reading.exists(CUBE).binary
    assert reading.room(RED_BALL).text == "bedroom"


def test_what_never_came_is_denied(reading: EventReading) -> None:
    for found in (reading.last(WHITE_STAR), reading.exists(WHITE_STAR), reading.room(WHITE_STAR)):
        assert found.events == ()
    assert reading.last({"sound": "glass"}).events == ()
    assert reading.order(RED_BALL, WHITE_STAR).events == ()
    assert reading.count_things({"shape": "cone"}).events == ()


def test_lengths_and_counts_are_read_from_what_is_stored(reading: EventReading) -> None:
    assert reading.how_long(RED_BALL).duration_s == 8.0
    assert reading.how_long({"sound": "alarm"}).duration_s == 6.0
    assert reading.count_sound({"sound": "knock"}).count == 3
    assert reading.count_things({"shape": "ball"}).count == 2


def test_what_belongs_together_is_found_by_overlap(reading: EventReading) -> None:
    assert reading.seen_when_heard({"sound": "knock"}).text == "red ball"
    assert reading.seen_when_heard({"sound": "alarm"}).events == (), "nothing was in view"
    assert reading.said_while_seeing({"colour": "green", "shape": "ball"}).text == "two"
    assert reading.said_while_seeing(CUBE).events == (), "nothing was said"
    assert reading.said_last_digit({}).text == "two"
    assert reading.colour({"shape": "ball", "room": "office"}).text == "green"


def test_order_is_that_of_the_first_stamps(reading: EventReading) -> None:
    assert reading.order(CUBE, RED_BALL).choice == 1
    assert reading.order({"sound": "doorbell"}, {"sound": "alarm"}).choice == 0


def view_of(parts: EventParts, seen: list[Event], heard: list[Event]) -> MemoryView:
    memory = EventMemory(parts.heads)
    memory.kept = {"visual": list(seen), "audio": list(heard)}
    none = torch.empty(0, dtype=torch.bool)
    left = {"visual_left": 1}
    return MemoryView(
        None, none, None, none, ("camera", "microphone"), newest_ns=200 * SECOND_NS, counters=left, events=memory
    )


def poses() -> EvidenceIndex:
    index = EvidenceIndex(":memory:")
    for second in range(140):
        index.add_pose(Pose(second * SECOND_NS, "map", torch.tensor([second, 0, 0]).numpy(), from_rpy(0, 0, 0)))
    return index


def asked(model: VideoSalmonnS, parts: EventParts, view: MemoryView, question: Question) -> Answer | None:
    kind = question.answer_type
    return EventAnswers(model, parts).answer(question, kind, view, Answer(), poses(), limit=3)


def test_a_question_in_words_gets_a_typed_answer_with_evidence(
    model: VideoSalmonnS, parts: EventParts, seen: list[Event], heard: list[Event]
) -> None:
    view = view_of(parts, seen, heard)
    when = asked(model, parts, view, Question("When did you last see the red ball?", AnswerType.TIME))
    assert when is not None
    assert when.event is not None
    assert (when.outcome, when.event.start_ns) == (Outcome.ANSWERED, 100 * SECOND_NS)
    assert when.evidence[0].source == "camera"
    choices = ("the blue cube", "the red ball")
    first = asked(model, parts, view, Question("Which did you see first, the blue cube or the red ball?",
                                               AnswerType.CHOICE, choices))  # fmt: skip
    assert first is not None
    assert (first.choice_index, first.text, len(first.evidence)) == (1, "the red ball", 2)
    where = asked(model, parts, view, Question("Where were you when you last saw the red ball?", AnswerType.POSITION))
    assert where is not None
    assert where.pose is not None
    assert (where.pose_kind, float(where.pose.position[0])) == (PoseKind.OBSERVER, 100.0)
    never = asked(model, parts, view, Question("When did you last see the white star?", AnswerType.TIME))
    assert never is not None
    assert (never.outcome, never.event) == (Outcome.NOT_OBSERVED, None)


@pytest.mark.parametrize(
    "text",
    [
        "I lost my yellow star, help me find it",
        "Which object was closest to the door?",
        "When did you see the red ball for the third time?",
        "When did you last see the green dragon?",
        "Wann hast du den roten Ball gesehen?",
        "What was behind the red ball?",
        "How many times did the phone ring?",
    ],
)
def test_other_wordings_and_other_questions_are_left_to_the_network(
    model: VideoSalmonnS, parts: EventParts, seen: list[Event], heard: list[Event], text: str
) -> None:
    view = view_of(parts, seen, heard)

    kinds = (AnswerType.TEXT, AnswerType.TIME, AnswerType.POSITION, AnswerType.COUNT)
    assert all(asked(model, parts, view, Question(text, kind)) is None for kind in kinds)


def test_the_form_must_suit_the_type_of_the_answer(
    model: VideoSalmonnS, parts: EventParts, seen: list[Event], heard: list[Event]
) -> None:
    view = view_of(parts, seen, heard)

    assert asked(model, parts, view, Question("When did you last see the red ball?", AnswerType.COUNT)) is None


def test_windows_and_sources_are_kept_and_a_full_memory_leaves_them_to_the_network(
    model: VideoSalmonnS, parts: EventParts, seen: list[Event], heard: list[Event]
) -> None:
    view = view_of(parts, seen, heard)
    question = Question("When did you last see the red ball?", AnswerType.TIME, before_ns=50 * SECOND_NS)
    early = asked(model, parts, view, question)
    assert early is not None
    assert early.event is not None
    assert early.event.start_ns == 10 * SECOND_NS
    deaf = asked(model, parts, view, replace(question, sources=("microphone",)))
    assert deaf is not None
    assert deaf.outcome == Outcome.NOT_OBSERVED
    assert view.events is not None
    view.events.dropped["visual"] = 1
    assert asked(model, parts, view, question) is None, "an event of that window may have been dropped"
    until_now = replace(question, before_ns=max(e.last_ns for e in (*seen, *heard)))
    assert asked(model, parts, view, until_now) is not None, "a window until now leaves nothing out"


def test_while_the_network_sees_everything_it_decides_what_never_was(
    model: VideoSalmonnS, parts: EventParts, seen: list[Event], heard: list[Event]
) -> None:
    view = replace(view_of(parts, seen, heard), counters={})

    assert asked(model, parts, view, Question("When did you last see the white star?", AnswerType.TIME)) is None
    assert asked(model, parts, view, Question("When did you last see the red ball?", AnswerType.TIME)) is not None


def test_events_that_began_after_the_stream_answer_nothing(
    model: VideoSalmonnS, parts: EventParts, seen: list[Event], heard: list[Event]
) -> None:
    view = view_of(parts, seen, heard)
    assert view.events is not None
    view.events.partial = True

    assert asked(model, parts, view, Question("When did you last see the white star?", AnswerType.TIME)) is None


def test_a_checkpoint_without_the_parts_answers_by_the_network_alone(tmp_path: Path) -> None:
    assert load(read_events=False).event_parts is None
    assert EventParts.load(tmp_path) is None
    assert load(read_events=False).new_memory().events is None


def test_parts_come_back_from_their_files_and_others_are_refused_by_name(
    model: VideoSalmonnS, parts: EventParts, tmp_path: Path
) -> None:
    parts.save(tmp_path)
    again = EventParts.load(tmp_path)
    assert again is not None
    assert again.names.temperature == parts.names.temperature
    ids = model.tokenizer.encode("When did you last see the red ball?")
    language = model.network.language
    assert again.questions.read(language, ids) == parts.questions.read(language, ids)
    (tmp_path / "other.safetensors").write_bytes(save({"x": torch.zeros(1)}))
    for kind in (EventNames, QuestionHead):
        with pytest.raises(ValueError, match=r"other\.safetensors"):
            kind.load(tmp_path / "other.safetensors")


def test_the_length_of_an_event_ends_with_its_last_frame_or_token(seen: list[Event], heard: list[Event]) -> None:
    assert length_s(seen[0]) == 5.0
    assert length_s(heard[0]) == 1.5
