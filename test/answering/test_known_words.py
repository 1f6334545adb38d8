"""A question in a language that the tiny checkpoint was not made for claims next to nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import salmonn_node
from salmonn_node.answering.confidence import read_calibration
from salmonn_node.answering.known_words import known_share
from salmonn_node.model.tokenizer import FileTokenizer
from salmonn_node.stream.answers import AnswerType

PACKAGE = Path(salmonn_node.__file__).parent
TINY = PACKAGE / "checkpoints" / "tiny"
CALIBRATION = read_calibration(TINY / "calibration.json", "58a5a915bc8e")
DEMO = (PACKAGE / "live" / "demo_data" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
STRANGE = [
    "Hast du ein blaues Kreuz gesehen?",
    "Wie viele rote Bälle waren in der Küche?",
    "Où est la boîte verte?",
    "¿Dónde está la caja roja?",
    "赤い箱はどこですか",
    "Где красная коробка?",
]


@pytest.fixture(scope="module")
def tokenizer() -> FileTokenizer:
    return FileTokenizer(Tokenizer.from_file(str(TINY / "tokenizer.json")))


@pytest.mark.parametrize("line", DEMO)
def test_the_demos_questions_are_all_known(tokenizer: FileTokenizer, line: str) -> None:
    share = known_share(tokenizer, json.loads(line)["text"])
    assert share >= 0.75
    assert CALIBRATION.confidence(AnswerType.TEXT, 0.9, share) == CALIBRATION.confidence(AnswerType.TEXT, 0.9)


@pytest.mark.parametrize("text", STRANGE)
def test_another_language_claims_next_to_nothing(tokenizer: FileTokenizer, text: str) -> None:
    share = known_share(tokenizer, text)
    assert share < 0.3
    assert CALIBRATION.confidence(AnswerType.COUNT, 0.95, share) < 0.3


@pytest.mark.parametrize("text", ["", "?", "1 2 3", "a"])
def test_without_words_nothing_is_lowered(tokenizer: FileTokenizer, text: str) -> None:
    assert known_share(tokenizer, text) == 1.0
