"""Unanswerable questions are made of a team's own by exchanging things, and never ask for what the file names."""

from __future__ import annotations

from salmonn_node.evaluation.exchanged import exchanged, things_of
from salmonn_node.evaluation.questions import Expected, QuestionRecord


def record(number: int, text: str, **values: object) -> QuestionRecord:
    given = {"id": f"q{number}", "ask_ns": 10, "text": text, "expected": Expected(text="the kitchen")} | values
    return QuestionRecord(**given)  # type: ignore[arg-type]


def test_things_are_the_words_after_an_article() -> None:
    def words(text: str) -> list[str]:
        return [" ".join(thing.words) for thing in things_of(text)]

    assert words("Where did you last see the red backpack?") == ["red backpack"]
    assert words("When was a cup on the small table near the door?") == ["cup", "small table", "door"]
    assert words("How long was my old green watering can there?") == ["old green watering"]
    assert words("When did you last hear knocking?") == []
    assert words("Where were you the last time?") == []
    assert words("What was the colour of the ring when you heard the word stop?") == ["ring"]
    assert words("The most recent time you heard the alarm: when was that?") == ["alarm"]


def test_adjectives_are_exchanged_unless_the_file_names_the_result() -> None:
    file = [
        record(1, "Where did you last see the red backpack?"),
        record(2, "Where is the blue cup?"),
        record(3, "What is beside the red cup?", expected=Expected(text="a plate")),
    ]
    made = {origin: new for new, origin in exchanged(file)}
    assert made["q1"].text == "Where did you last see the blue backpack?"
    assert "q2" not in made, "a red cup is in the file"
    assert made["q1"].answerable is False
    assert made["q1"].evidence == ()
    assert made["q1"].near_miss == "red backpack"
    assert made["q1"].id == "q1~blue-backpack"


def test_things_of_unanswerable_questions_come_first() -> None:
    file = [
        record(1, "Where is the red backpack?"),
        record(2, "Did you see a dog?", answer_type="BINARY", answerable=False, expected=Expected()),
        record(3, "Where is the blue cup?"),
    ]
    made = exchanged(file)
    assert [(new.text, origin) for new, origin in made] == [("Where is the dog?", "q1"), ("Where is the dog?", "q3")]


def test_like_is_exchanged_for_like() -> None:
    file = [
        record(1, "Is the bedroom door open?"),
        record(2, "Where is the dog?", answerable=False, expected=Expected()),
        record(3, "Is the attic door open?", answerable=False, expected=Expected()),
    ]
    assert [new.text for new, _ in exchanged(file)] == ["Is the attic door open?"]


def test_yes_or_no_and_counts_are_left_alone_and_nothing_is_made_of_nothing() -> None:
    file = [
        record(1, "How many red cups are on the small table?", answer_type="COUNT", expected=Expected(count=2)),
        record(2, "Is the blue door open?", answer_type="BINARY", expected=Expected(binary=True)),
        record(3, "What was said?"),
    ]
    assert exchanged(file) == []
    assert exchanged([]) == []
