"""The log as it is sent: whole where it fits; else narrowed by window and source, then by likeness, and it says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from salmonn_node.answering.server_log import SentLog, asked_about, write_log
from salmonn_node.answering.server_prompts import naming_messages
from salmonn_node.memory.album import Picture
from salmonn_node.memory.log_entries import SIGHT, SOUND, VIEW, LogEntry
from salmonn_node.stream.answers import AnswerType, Question
from salmonn_node.stream.observations import SECOND_NS, Pose

SOURCES = ("front", "rear", "mic")
POSE = Pose(1, "map", np.array([1.25, -3.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]))


def entry(number: int, what: str = SIGHT, kind: int = -1, source: int = 0, caption: str = "a mug") -> LogEntry:
    """An entry of four seconds, ten seconds after the one before; a view is one instant."""
    first = (1 + 10 * number) * SECOND_NS
    last = first if what == VIEW else first + 4 * SECOND_NS
    picture = Picture(source, first, b"jpeg")
    return LogEntry(f"{what}:{number}", what, source, first, last, 1, kind, 0, caption, (picture,))


def written(entries: list[LogEntry], most_chars: int) -> SentLog:
    return write_log(entries, most_chars, start_ns=SECOND_NS, sources=SOURCES, pose_of=lambda e: POSE)


# Of kind 0 there are twenty sights, of kind 1 two, and two sounds and three views among them.
ENTRIES = [
    *(entry(number, kind=0) for number in range(20)),
    entry(20, SOUND, 0, 2, ""), entry(21, VIEW), entry(22, kind=1), entry(23, VIEW), entry(24, SOUND, 0, 2, "says: go"),
    entry(25, kind=1), entry(26, VIEW),
]  # fmt: skip


def test_a_log_that_fits_is_sent_whole_one_short_line_an_entry() -> None:
    sent = written(ENTRIES, 40_000)
    lines = sent.text.splitlines()
    assert sent.narrowed == ""
    assert list(sent.entries.values()) == ENTRIES
    assert lines[0] == "1 | sight | front | 0:00:00 to 0:00:04 | at 1.2 -3.0 | kind 0 | a mug"
    assert lines[20] == "21 | sound | mic | 0:03:20 to 0:03:24 | at 1.2 -3.0 | kind 0"
    assert lines[21] == "22 | view | front | 0:03:30 | at 1.2 -3.0 | a mug"


@pytest.mark.parametrize("most_chars", [1_000, 1_400])
def test_a_log_that_does_not_fit_keeps_the_first_and_last_of_each_kind_then_the_newest(most_chars: int) -> None:
    sent = written(ENTRIES, most_chars)
    kept = [ENTRIES.index(e) for e in sent.entries.values()]
    assert len(sent.text) <= most_chars
    assert sent.narrowed == f"read {len(kept)} of {len(ENTRIES)} events"
    assert kept == sorted(kept)
    ends = {0, 19, 20, 24, 22, 25}  # of each kind of sights and sounds
    views = {21, 23, 26}  # each is a kind of its own
    assert ends | views <= set(kept)
    others = [row for row in kept if row not in ends | views]
    assert others == list(range(19 - len(others), 19))  # the newest
    assert [int(line.split(" | ")[0]) for line in sent.text.splitlines()] == list(sent.entries)


def test_lines_that_share_words_with_the_question_stay_and_of_the_same_words_the_first_and_last() -> None:
    words = ["a red mug", "a dog", "a red mug", "a red mug", "two crosses", "a red mug"]
    entries = [replace(entry(number, kind=0), caption=words[number % 6]) for number in range(60)]
    about = [row for row in range(60) if row % 6 == 4]
    for question, expected in (("Did you see a cross?", about), ("", [4, 58])):
        sent = write_log(entries, 1_000, start_ns=SECOND_NS, sources=SOURCES, pose_of=lambda e: POSE, question=question)
        kept = [entries.index(e) for e in sent.entries.values()]
        assert {0, 59, *expected} <= set(kept)
        assert question or {1, 55} <= set(kept)  # the first and the last dog


def test_window_and_sources_narrow_before_likeness_does() -> None:
    window = Question("?", after_ns=101 * SECOND_NS, before_ns=201 * SECOND_NS)
    about = asked_about(ENTRIES, window, SOURCES)
    assert [ENTRIES.index(e) for e in about] == list(range(10, 21))
    assert written(about, 1_000).narrowed == ""  # what lies outside of the window is not missed
    heard = asked_about(ENTRIES, Question("?", sources=("mic",)), SOURCES)
    assert {e.what for e in heard} == {SOUND}


def test_the_server_is_told_what_it_did_not_read() -> None:
    question = Question("Where is the mug?")
    for most_chars, words in ((40_000, ""), (1_000, "The log was too long: you read ")):
        user = naming_messages(question, AnswerType.TEXT, written(ENTRIES, most_chars), 4, "0:05:00", "")[1]["content"]
        assert ("too long" in user) == bool(words)
        assert words in user
