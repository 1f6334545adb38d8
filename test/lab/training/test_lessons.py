"""Lessons are what the node would be asked: the same prompt, the same numbers, evidence where the truth says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salmonn_node.lab.training import language
from salmonn_node.lab.training.evidence_tokens import stamps_of, whole_stamps
from salmonn_node.lab.training.lessons import JOINT, draw, lesson, thinned, whole_view
from salmonn_node.lab.training.memories import observe
from salmonn_node.lab.training.memory import asking_moments
from salmonn_node.lab.training.packing import hidden_states, pack
from salmonn_node.lab.training.sizes import network_config, tokenizer
from salmonn_node.lab.world.truth import START_NS
from salmonn_node.model.network import Network
from salmonn_node.model.video_salmonn_s import CheckpointInfo, VideoSalmonnS

from .banked import demo_truth, tokens


@pytest.fixture(scope="module")
def model() -> VideoSalmonnS:
    config = network_config(ttt=None, recall=False)
    network = Network(config)
    network.initialise(3)
    return VideoSalmonnS(config, network, tokenizer(), CheckpointInfo("test", "test", trained=False))


def test_a_packed_question_reads_what_it_reads_alone(model: VideoSalmonnS) -> None:
    made = []
    for seconds in (16, 32):
        stream = tokens(seconds)
        view = whole_view(stream, model.config, model.tokenizer)
        made.append(lesson(view, draw(stream.truth, 6, 5, stamps_of(view)), model.config, model.tokenizer))
    packed = pack(made)
    with torch.no_grad():
        hidden = hidden_states(model.network, packed)
        for b, one in enumerate(made):
            for question in packed.questions[b]:
                alone = model.answers.read(question.asked.text, one.view)
                together = hidden[b, question.first - 1]
                torch.testing.assert_close(alone.reading.hidden[-1], together, atol=1e-4, rtol=1e-4)
                _, pointing = alone.logits(alone.reading.hidden[-1:])
                head = model.network.evidence(together[None], hidden[b, packed.memory_rows[b]], packed.frames[b])
                torch.testing.assert_close(pointing.weights, head.weights, atol=1e-5, rtol=1e-4)


def test_a_whole_view_is_that_of_the_node(model: VideoSalmonnS) -> None:
    stream = tokens(32)
    memory = model.new_memory()
    for _ in observe(model, memory, stream):
        pass
    real, made = model.view(memory), whole_view(stream, model.config, model.tokenizer)
    for name in ("visual", "audio"):
        one, other = getattr(real, name), getattr(made, name)
        torch.testing.assert_close(one.z, other.z)
        for field in ("index", "stamp_ns", "last_ns", "place", "patch"):
            assert torch.equal(getattr(one, field), getattr(other, field)), field
    assert model.prompt("?", real).ids.tolist() == model.prompt("?", made).ids.tolist()
    assert torch.equal(model.prompt("?", real).positions, model.prompt("?", made).positions)
    stamps, whole = stamps_of(made), whole_stamps(32)
    for field in ("start_ns", "end_ns", "place"):
        np.testing.assert_array_equal(getattr(stamps, field), getattr(whole, field))


def test_evidence_is_where_the_thing_is_seen() -> None:
    truth = demo_truth()
    stamps = whole_stamps(truth.seconds)
    asked = draw(truth, 24, 11, stamps)
    assert {a.answerable for a in asked} == {True, False}
    for one in asked:
        assert bool(one.evidence) == one.answerable
        for row in one.evidence:
            assert START_NS <= stamps.start_ns[row] < START_NS + truth.seconds * 10**9
    seen = [a for a in asked if a.kind in ("room", "where_object", "when_last") and a.answerable]
    assert seen, "the demo's truth holds such questions"
    patches = {row // 8 for a in seen for row in a.evidence if stamps.place[row] >= 0}
    shown = {m.second // 2 for m in truth.moments if any(s.clear for s in m.seen)}
    assert patches <= shown


def test_a_thinned_lesson_is_part_of_the_whole_one(model: VideoSalmonnS) -> None:
    stream = tokens(64)
    view = whole_view(stream, model.config, model.tokenizer)
    whole = lesson(view, draw(stream.truth, 12, 5, stamps_of(view)), model.config, model.tokenizer)
    left = thinned(whole, 0.6, model.tokenizer, np.random.default_rng(3))
    kept = set(left.prefix.memory.tolist())
    assert kept < set(whole.prefix.memory.tolist())
    assert (left.prefix.memory < 0).sum() == (whole.prefix.memory < 0).sum()
    asked = {a.text: a for a in left.asked}
    for before in whole.asked:
        evidence = set(before.evidence) & kept
        if before.evidence and not evidence:
            assert before.text not in asked, "its answer is not to be had from what is left"
        else:
            assert asked.pop(before.text).evidence == tuple(sorted(evidence))
        assert evidence == set(before.evidence) or before.kind not in JOINT
    assert not asked
    assert torch.isfinite(hidden_states(model.network, pack([left]))).all()
    again = thinned(whole, 0.0, model.tokenizer, np.random.default_rng(3))
    assert torch.equal(again.prefix.memory, whole.prefix.memory)
    assert again.answers == whole.answers


def test_questions_are_asked_where_no_sound_is_cut() -> None:
    truth = demo_truth()
    moments = asking_moments(truth, 8, np.random.default_rng(0))
    assert max(moments) == truth.seconds
    assert len(moments) > 3
    assert not any(s.start_s < moment < s.end_s for s in truth.sounds for moment in moments)


def test_the_loss_falls_on_one_batch(model: VideoSalmonnS) -> None:
    config = model.config
    network = Network(config)
    network.initialise(4)
    stream = tokens(16)
    view = whole_view(stream, config, model.tokenizer)
    packed = pack([lesson(view, draw(stream.truth, 6, 5, stamps_of(view)), config, model.tokenizer)])
    optimiser = torch.optim.AdamW(language.modules(network).parameters(), lr=3e-3)
    losses = []
    network.train()
    for _ in range(12):
        loss, figures = language.loss_of(network, packed, noise=0.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(figures["answer"])
    assert losses[-1] < 0.3 * losses[0]
