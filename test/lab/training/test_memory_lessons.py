"""Lessons on what a memory keeps: made by the real memory, stored without features, asked in part each time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from salmonn_node.lab.training import memory
from salmonn_node.lab.training.lessons import AT_ONCE, Asked, some
from salmonn_node.lab.training.memory import MixedBatches, StoredLesson, lessons_of, restored
from salmonn_node.lab.training.sizes import network_config, tokenizer
from salmonn_node.lab.training.streams import Bank, Pieces

from .banked import tokens

CONFIG, TOKENIZER = network_config(), tokenizer()


@pytest.fixture(scope="module")
def bank() -> Bank:
    return Bank([tokens(80)], [False])


@pytest.fixture(scope="module")
def stored(bank: Bank) -> list[StoredLesson]:
    pieces = Pieces([bank.streams[0].truth], [False])
    return list(lessons_of(3, bank, pieces, CONFIG, TOKENIZER, (60, 400)))


def test_a_lesson_comes_back_with_the_features_that_the_memory_kept(bank: Bank, stored: list[StoredLesson]) -> None:
    last = stored[-1]
    lesson = restored(last, bank, TOKENIZER, CONFIG)
    assert lesson.view.visual is not None
    numbers = last.tensors["visual"]
    assert torch.equal(lesson.view.visual.z, bank.streams[0].z.flatten(0, 1)[numbers])
    assert len(numbers) <= last.visual_tokens
    assert [s.seconds for s in stored] == sorted(s.seconds for s in stored)


def test_what_was_seen_and_let_go_is_not_asked(bank: Bank, stored: list[StoredLesson]) -> None:
    first = next(a for a in stored[-1].asked if a.evidence)
    lost = replace(stored[-1], asked=(replace(first, evidence=()), *stored[-1].asked))
    asked = restored(lost, bank, TOKENIZER, CONFIG).asked
    assert all(a.evidence or not a.answerable for a in asked)
    assert any(not a.answerable for a in asked), "what never was is still asked"


def test_each_reading_asks_some_of_the_questions(bank: Bank, stored: list[StoredLesson]) -> None:
    many = max(stored, key=lambda s: len(s.asked))
    once, again, other = (restored(many, bank, TOKENIZER, CONFIG, np.random.default_rng(n)) for n in (1, 1, 2))
    assert once.tails == again.tails
    assert once.tails != other.tails
    assert len(once.asked) == min(AT_ONCE, len([a for a in many.asked if a.evidence or not a.answerable]))


def test_what_was_never_there_does_not_outnumber_the_rest() -> None:
    there = [Asked(f"is there a thing {n}", "yes", "existence", True, (n,)) for n in range(10)]
    never = [Asked(f"is there a thing {n}", "no", "existence", False, ()) for n in range(10, 90)]
    lost = [Asked(f"when was thing {n}", "unknown", "when_last", False, ()) for n in range(90, 120)]
    found = [Asked(f"when was thing {n}", "seen", "when_last", True, (n,)) for n in range(120, 140)]
    asked = [a for n in range(40) for a in some([*there, *never, *lost, *found], np.random.default_rng(n))]
    count = Counter((a.kind, a.answerable) for a in asked)
    assert count["existence", False] < 1.5 * count["existence", True]
    assert count["when_last", False] < 0.75 * count["when_last", True]
    assert len(some(never, np.random.default_rng(0))) == AT_ONCE, "of a stream that holds nothing they are asked"


def test_some_readings_see_moved_pictures(bank: Bank, stored: list[StoredLesson]) -> None:
    both = Bank(bank.streams, bank.dense, [replace(bank.streams[0], z=-bank.streams[0].z)])
    read = [restored(stored[0], both, TOKENIZER, CONFIG, np.random.default_rng(n)).view.visual for n in range(12)]
    plain = restored(stored[0], both, TOKENIZER, CONFIG).view.visual
    assert plain is not None
    assert {float((v.z * plain.z).sum().sign()) for v in read if v is not None} == {1.0, -1.0}


def test_a_memory_that_can_answer_nothing_is_no_lesson(stored: list[StoredLesson]) -> None:
    seen = next(a for a in stored[0].asked if a.evidence)
    empty = replace(stored[0], asked=(replace(seen, evidence=()),))
    mixed = MixedBatches(SimpleNamespace(), [empty, *stored], lambda lesson, rng: lesson)
    assert empty not in mixed.stored
    assert len(mixed.stored) == len(stored)


def test_lessons_come_back_from_a_file(tmp_path: Path, stored: list[StoredLesson]) -> None:
    memory.write(tmp_path / "lessons.pt", stored)
    again = memory.read(tmp_path / "lessons.pt")
    assert [a.asked for a in again] == [s.asked for s in stored]
    assert all(torch.equal(a.tensors["visual"], s.tensors["visual"]) for a, s in zip(again, stored, strict=True))
