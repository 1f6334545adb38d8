"""Questions about known truth: the oracle is always right, abstaining is right where it should be. No OpenGL."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from salmonn_node.evaluation.baselines import BlindAnswerer, MajorityAnswerer, always_unknown, expected_answer
from salmonn_node.evaluation.questions import KINDS, QuestionRecord, read_questions
from salmonn_node.evaluation.scores import accuracy, judge, score
from salmonn_node.lab.world import demo
from salmonn_node.lab.world.asking import ask
from salmonn_node.lab.world.oracle import Oracle
from salmonn_node.lab.world.phrasings import TEMPLATES
from salmonn_node.lab.world.shards import read_shard
from salmonn_node.lab.world.truth import CLEAR_SHARE, Truth, ask_stamp_ns, compose, quiet_cuts
from salmonn_node.lab.world.truth_file import truth_from_json, truth_to_json
from salmonn_node.live import demo_recording

DATA = Path(__file__).parents[2] / "data" / "world"
SEED = 100_007


@pytest.fixture(scope="module")
def truth() -> Truth:
    return truth_from_json(gzip.decompress((DATA / "dense_1200s.truth.json.gz").read_bytes()).decode())


@pytest.fixture(scope="module")
def records(truth: Truth) -> list[QuestionRecord]:
    return ask(truth, SEED, 240, name="t")


def test_truth_round_trips(truth: Truth) -> None:
    assert truth_from_json(truth_to_json(truth)) == truth
    with pytest.raises(ValueError, match="format"):
        truth_from_json('{"format": 0}')


def test_every_kind_is_asked_and_both_ways(records: list[QuestionRecord]) -> None:
    assert {r.kind for r in records} == set(KINDS) - {"other"}
    both = {k: {r.answerable for r in records if r.kind == k} for k in KINDS if k != "other"}
    # A dense stream holds every kind of knocking and counting, and every door is seen in the end.
    assert all(v == {True, False} for k, v in both.items() if k not in ("state_earlier", "count")), both
    share = np.mean([r.answerable for r in records])
    assert 0.6 < share < 0.85


def test_same_seed_same_questions(truth: Truth, records: list[QuestionRecord]) -> None:
    assert ask(truth, SEED, 240, name="t") == records
    assert ask(truth, SEED + 1, 40, name="t") != records[:40]


def test_the_oracle_is_right_on_every_kind(truth: Truth, records: list[QuestionRecord]) -> None:
    oracle = Oracle(truth)
    judged = [judge(r, oracle(r)) for r in records]
    assert [j.record.text for j in judged if not j.correct] == []
    rows = score(judged, samples=20)["by_kind"]
    assert all(row["accuracy"] == 1.0 for row in rows.values())
    assert all(j.evidence_hit for j in judged if j.record.answerable)


def test_always_unknown_is_right_on_exactly_the_unanswerable(records: list[QuestionRecord]) -> None:
    tables = score([judge(r, always_unknown(r)) for r in records], samples=20)
    for kind, row in tables["by_kind"].items():
        mine = [r for r in records if r.kind == kind]
        assert row["accuracy"] == pytest.approx(np.mean([not r.answerable for r in mine]))
    assert tables["abstention"]["recall"] == 1.0


def test_baselines_that_see_nothing_stay_below_the_oracle(truth: Truth, records: list[QuestionRecord]) -> None:
    train = ask(truth, 5, 300, name="train")
    for answerer in (MajorityAnswerer(train), BlindAnswerer(train)):
        assert accuracy([judge(r, answerer(r)) for r in records]) < 0.6
    assert accuracy([judge(r, expected_answer(r)) for r in records]) == 1.0


def test_only_what_was_plain_is_asked_about(records: list[QuestionRecord]) -> None:
    for record in records:
        if record.answerable:
            assert record.pixels >= CLEAR_SHARE or (record.snr_db or -99) >= 10, record.text
            assert all(e.end_ns <= record.ask_ns for e in record.evidence)
            assert record.evidence_age_s is not None
            assert record.evidence_age_s >= 0
        else:
            assert record.near_miss


def test_ages_are_spread(records: list[QuestionRecord]) -> None:
    ages = [r.evidence_age_s for r in records if r.evidence]
    counts = np.histogram(ages, [0, 15, 60, 300, 1200])[0]
    assert counts.min() > 0.08 * len(ages), counts


def test_nothing_after_the_question_is_used(truth: Truth) -> None:
    early = ask(truth, SEED, 60, times=[400])
    short = ask(truth.piece(0, 400), SEED, 60, times=[400])
    assert [r.text for r in early] == [r.text for r in short]
    assert [r.expected for r in early] == [r.expected for r in short]


def test_phrasings_of_scoring_are_kept_out_of_training(truth: Truth, records: list[QuestionRecord]) -> None:
    assert all(len(t) >= 4 for t in TEMPLATES.values())
    assert len({t for ts in TEMPLATES.values() for t in ts}) == sum(len(t) for t in TEMPLATES.values())
    training = ask(truth, 7, 200)
    assert not any(r.phrasing.startswith("held_out") for r in training)
    share = np.mean([r.phrasing.startswith("held_out") for r in records])
    assert 0.35 < share < 0.65
    assert not any(" a o" in r.text or " a e" in r.text for r in records)


def test_composed_streams_keep_known_answers(truth: Truth) -> None:
    cuts = quiet_cuts(truth, 60)
    assert cuts[0] == 0
    assert cuts[-1] == truth.seconds
    assert all(b - a >= 60 for a, b in zip(cuts, cuts[1:], strict=False))
    assert not any(s.start_s < c < s.end_s for s in truth.sounds for c in cuts)
    pieces = [truth.piece(a, b) for a, b in zip(cuts, cuts[1:], strict=False)]
    assert compose(pieces) == truth
    order = np.random.default_rng(1).integers(0, len(pieces), 100)
    long = compose([pieces[i] for i in order])
    assert long.seconds > 3600
    records = ask(long, SEED, 150, name="long")
    oracle = Oracle(long)
    assert [r.text for r in records if not judge(r, oracle(r)).correct] == []
    assert max(r.evidence_age_s for r in records if r.evidence) > 3000


def test_kinds_and_times_can_be_chosen(truth: Truth) -> None:
    records = ask(truth, 3, 40, kinds=["colour", "room"], times=[600, 900])
    assert {r.kind for r in records} == {"colour", "room"}
    assert {r.ask_ns for r in records} == {ask_stamp_ns(t) for t in (600, 900)}
    assert len(records) == 40


def test_the_small_shard() -> None:
    shard = read_shard(DATA / "dense_32s.safetensors")
    assert shard.frames.shape == (32, 36, 64, 3)
    assert shard.truth.seconds == 32
    assert shard.dense
    assert len({m.room for m in shard.truth.moments}) >= 1
    for moment in shard.truth.moments:
        for seen in moment.seen:
            left, top, right, bottom = seen.box
            assert 0 <= left < right <= 1
            assert 0 <= top < bottom <= 1
    records = ask(shard.truth, SEED, 20)
    oracle = Oracle(shard.truth)
    assert all(judge(r, oracle(r)).correct for r in records)


def test_a_file_that_is_no_shard_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"frames": np.zeros(1)}, str(tmp_path / "x.safetensors"))
    with pytest.raises(ValueError, match="not a shard"):
        read_shard(tmp_path / "x.safetensors")


def test_the_demo_asks_what_it_should() -> None:
    truth = truth_from_json(demo_recording.TRUTH.read_text())
    records = read_questions(demo_recording.QUESTIONS)
    assert records == demo.demo_questions(truth)
    assert len(records) == len(demo.WANTED)
    assert len({r.kind for r in records}) >= 10
    oracle = Oracle(truth)
    assert all(judge(r, oracle(r)).correct for r in records)
    assert sum((demo_recording.BAG / f).stat().st_size for f in ("bag.mcap", "metadata.yaml")) < 8_000_000


def test_the_demo_bag_is_read_as_a_robot_s() -> None:
    from salmonn_node.replay.bag import Bag
    from salmonn_node.replay.topics import role_of

    with Bag(demo_recording.BAG) as bag:
        roles = Counter(role_of(t.name, t.msgtype)[0] for t in bag.topics)
    assert roles["camera"] == 1
    assert roles["microphone"] == 1
    assert roles["pose"] == 2
