"""Texts for the question head: many wordings of each form, none of them held out."""

from __future__ import annotations

import numpy as np
import pytest

from salmonn_node.lab.training.paraphrases import choices, drawn, frames_of, normalised, size, written_out
from salmonn_node.lab.training.question_texts import KEPT, KEPT_EVERY, draw, wordings
from salmonn_node.lab.world.phrasings import TEMPLATES

FORMS = sorted(TEMPLATES)


@pytest.mark.parametrize("form", FORMS)
def test_the_held_out_wording_is_never_drawn(form: str) -> None:
    kept_out = {normalised(templates[-1]) for templates in TEMPLATES.values()}
    rng = np.random.default_rng(1)
    for wording in wordings(form):
        assert not kept_out & {normalised(drawn(wording, rng)) for _ in range(min(200, 4 * size(wording)))}


@pytest.mark.parametrize("form", FORMS)
def test_a_frame_gives_all_its_sentences_but_the_held_out_one(form: str) -> None:
    rng = np.random.default_rng(2)
    held_out = TEMPLATES[form][-1]
    assert {drawn(f"[{held_out}|What else?]", rng) for _ in range(30)} == {"What else?"}
    with pytest.raises(ValueError, match="not held out"):
        drawn(held_out.lower().rstrip("?"), rng)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_many_wordings(form: str) -> None:
    assert len(frames_of(form)) >= 15
    assert sum(size(frame) for frame in frames_of(form)) >= 150


def test_choices_are_written_out_and_counted() -> None:
    frame = written_out("[how |]<when> did [it|<X>] go", choices("sound") | {"when": "when|at [what|which] time"})
    assert size(frame) == 2 * 3 * 2
    found = {drawn(frame, np.random.default_rng(seed)) for seed in range(300)}
    assert len(found) == 12
    assert "how at which time did {sound} go" in found


def test_texts_are_filled_and_those_kept_out_are_apart() -> None:
    rng = np.random.default_rng(3)
    texts = [draw(rng) for _ in range(500)]
    assert not any(mark in text.text for text in texts for mark in "{}[]<>|")
    assert {text.form for text in texts} == {"other", "name", *TEMPLATES}
    for form in (*FORMS, "other"):
        kept = [w for i, w in enumerate(wordings(form)) if i % KEPT_EVERY == KEPT]
        assert 0.1 < len(kept) / len(wordings(form)) < 0.3
    assert draw(rng, kept=True, clean=True, form="room").form == "room"
