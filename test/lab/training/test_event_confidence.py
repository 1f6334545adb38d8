"""Temperatures of confidences of answers from events: which streams are asked about, and which answers count."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from lab.training.banked import tokens

from salmonn_node.lab.training import event_confidence
from salmonn_node.lab.training.eval_scores import arm_model, fingerprint
from salmonn_node.lab.training.evaluate import perfect


def test_a_flat_is_asked_about_at_several_ends_and_in_pieces() -> None:
    flat = tokens(80)
    assert [(t.truth.seconds, questions) for t, questions in event_confidence.asked_of(flat, 0)] == [
        (80, 150), (64, 150), (48, 150), (32, 150), (20, 150),
    ]  # fmt: skip
    again = [t.truth for t, _ in event_confidence.asked_of(flat, 0)]
    assert again == [t.truth for t, _ in event_confidence.asked_of(flat, 0)]


def test_only_answers_from_events_count(monkeypatch: pytest.MonkeyPatch) -> None:
    model = arm_model("tiny", "default")
    parts, before = model.event_parts, fingerprint(model)
    assert parts is not None

    def answered(_: object, stream: Any, asked: Any, raw: object) -> list[Any]:
        """Answers from events that are all right and said to be so with .7; the network's are all wrong."""
        right = [replace(a, answer=replace(a.answer, confidence=0.7)) for a in perfect(stream, asked)]
        wrong = [replace(a, null_weight=0.1, answer=replace(a.answer, confidence=0.7, text="?")) for a in right]
        return [*right, *wrong]

    monkeypatch.setattr(event_confidence, "answered", answered)
    figures = event_confidence.fit_temperatures(model, parts, [tokens(80)], most=20)
    assert figures["right"] == 1.0
    assert set(parts.names.temperature) >= {"BINARY", "COUNT", "TIME"}
    for temperature in parts.names.temperature.values():
        confidence = 1 / (1 + math.exp(-math.log(0.7 / 0.3) / temperature))
        assert 0.9 < confidence < 0.995  # always right, and still not certain
    assert fingerprint(model) != before
