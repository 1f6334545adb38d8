"""Parts of training: batched vision, wordings, the loop that resumes, plans, labels, recall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from salmonn_node.lab.training import audio, loop, plans, recall, vision, wording
from salmonn_node.lab.training.batched_vision import encode_patches
from salmonn_node.lab.training.evidence_tokens import whole_stamps
from salmonn_node.lab.training.lessons import draw, lesson, whole_view
from salmonn_node.lab.training.sizes import GRID, MINI_BATCH, network_config, tokenizer
from salmonn_node.lab.training.streams import Pieces, mirrored, quiet_seconds
from salmonn_node.lab.world.phrasings import TEMPLATES, phrase
from salmonn_node.lab.world.truth import SoundTruth
from salmonn_node.model.frames import patchify
from salmonn_node.model.network import Network

from .banked import demo_truth, tokens

WORDS = {
    "thing": "red ball", "sound": "the doorbell", "room": "hall", "shape": "star", "shapes": "stars", "units": "knocks",
    "a": "blue cube", "b": "red ring",
}  # fmt: skip


def test_batched_vision_is_the_tower() -> None:
    network = Network(network_config())
    network.initialise(0)
    pixels = torch.randn(3, 32, 1536)
    with torch.no_grad():
        alone, deep = network.vision(pixels, (4, 8))
        together, deeper = encode_patches(network.vision, pixels, (4, 8))
    torch.testing.assert_close(alone, together)
    torch.testing.assert_close(deep, deeper)


def test_the_network_is_small_enough() -> None:
    parameters = sum(p.numel() for p in Network(network_config()).parameters())
    assert parameters <= 4_000_000
    assert 4 * parameters <= 16_000_000


@pytest.mark.parametrize("query", sorted(TEMPLATES))
def test_every_query_has_other_words_none_of_them_kept_out(query: str) -> None:
    kept_out = TEMPLATES[query][-1].lower().strip(" .?")
    assert all(other.lower().strip(" .?") != kept_out for other in wording.OTHER[query])
    rng = np.random.default_rng(0)
    text, _ = phrase(query, False, rng, **WORDS)
    made = {wording.reworded(text, rng) for _ in range(60)}
    assert len(made) > 5
    assert not any("{" in m for m in made)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60), st.integers(0, 1000))
def test_any_text_can_be_reworded(text: str, seed: int) -> None:
    assert isinstance(wording.reworded(text, np.random.default_rng(seed)), str)


def test_the_loop_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    plan = loop.Plan("toy", steps=20, rate=1e-2, warmup=2, log_every=5, save_every=5)

    def train(folder: Path, stop_after: int = 20) -> nn.ModuleDict:
        torch.manual_seed(0)
        parts = nn.ModuleDict({"net": nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))})

        def batch(step: int) -> torch.Tensor:
            return torch.randn(8, 32, generator=torch.Generator().manual_seed(step))

        def loss_of(x: object) -> tuple[torch.Tensor, dict[str, float]]:
            return (parts["net"](x) - 1).square().mean(), {}

        for line in loop.run(plan, parts, batch, loss_of, folder):
            if line["step"] >= stop_after:
                break
        return parts

    whole = train(tmp_path / "whole")
    train(tmp_path / "cut", stop_after=15)  # saved at 10: the line comes before the save
    rest = train(tmp_path / "cut")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rest.state_dict()[name]), name


def test_a_step_that_is_not_finite_is_skipped(tmp_path: Path) -> None:
    parts = nn.ModuleDict({"net": nn.Linear(4, 1)})
    before = parts["net"].weight.detach().clone()
    plan = loop.Plan("nan", steps=3, log_every=1)
    lines = list(
        loop.run(plan, parts, lambda step: step, lambda _: (parts["net"].weight.sum() * torch.nan, {}), tmp_path)
    )
    assert lines[-1]["skipped"] == 3
    assert torch.equal(before, parts["net"].weight)


def test_labels_follow_boxes_mirrored_and_shifted() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (1, 2, 64, 128, 3), dtype=np.uint8)
    boxes = np.zeros((1, vision.MOST_THINGS, 4), np.float32)
    boxes[0, 0] = (0.02, 0.55, 0.2, 0.95)  # lower left
    colours, shapes = np.zeros((1, 8), np.int64), np.zeros((1, 8), np.int64)
    colours[0, 0], shapes[0, 0] = 3, 5
    one = np.zeros(1, np.int64)
    data = vision.PatchSet(frames, boxes, colours, shapes, colours > 0, one, one, one)
    plain = vision.batch_of(data, np.zeros(1, np.int64), None)
    assert plain.colours[0].tolist() == [0, 0, 0, 0, 3, 0, 0, 0]
    assert int(plain.best[0, 0]) == 4
    pixels = (torch.from_numpy(frames[0]).float() / 255 - 0.5) / 0.5
    first, second = pixels.permute(0, 3, 1, 2)
    assert torch.equal(patchify(first, second, 16, 2)[0], plain.pixels[0])
    places = set()
    for seed in range(20):
        shown = vision.batch_of(data, np.zeros(1, np.int64), np.random.default_rng(seed))
        places.add(int(shown.best[0, 0]))
    assert places == {4, 7}, "mirrored half of the time"


def test_boxes_move_with_the_pictures() -> None:
    pixels = torch.zeros(6, 2, 64, 128, 3)
    pixels[:, :, 20:40, 50:80] = 1.0
    boxes = np.zeros((6, 2, 4), np.float32)
    boxes[:, 0] = (50 / 128, 20 / 64, 80 / 128, 40 / 64)
    moved, where = vision._moved(pixels, boxes, np.random.default_rng(2), together=3)
    for picture, (x0, y0, x1, y1) in zip(moved[:, 0, :, :, 0] > 0.5, where[:, 0], strict=True):
        rows, columns = picture.any(1).nonzero()[:, 0], picture.any(0).nonzero()[:, 0]
        found = [columns[0] / 128, rows[0] / 64, (columns[-1] + 1) / 128, (rows[-1] + 1) / 64]
        np.testing.assert_allclose(found, [x0, y0, x1, y1], atol=1 / 64)
    assert (where[:, 1] == 0).all(), "unused"
    assert torch.equal(moved[0], moved[2]), "three in a row alike"
    assert not torch.equal(moved[0], moved[3])


def test_half_seconds_know_their_sounds() -> None:
    sounds = [
        SoundTruth("knock", "hall", 3, 1.1, 2.3, 20.0, True, False),
        SoundTruth("alarm", "hall", 1, 4.0, 6.0, 2.0, False, True),
    ]
    classes, onsets = audio.token_labels(sounds, 20)
    knock, alarm = audio.CLASSES.index("knock"), audio.CLASSES.index("alarm")
    assert classes[:, knock].nonzero()[0].tolist() == [2, 3, 4]
    assert onsets[:, audio.UNITS.index("knock")].sum() == 3
    assert set(classes[8:12, alarm].tolist()) == {-1}, "faint: neither heard nor unheard"


def test_pieces_are_cut_where_it_is_quiet() -> None:
    truth = demo_truth()
    cuts = quiet_seconds(truth)
    assert all(not (s.start_s < c < s.end_s) for s in truth.sounds for c in cuts)
    pieces = Pieces([truth], [True])
    rng = np.random.default_rng(0)
    for _ in range(20):
        _, start, stop = pieces.piece(12, rng)
        assert {start, stop} <= set(cuts.tolist())
        assert 12 <= stop - start <= 20
    with pytest.raises(ValueError, match="seconds=4000"):
        pieces.piece(4000, rng)


def test_plans_come_back_as_they_were(tmp_path: Path) -> None:
    truth = demo_truth()
    made = [plans.plan(i, [truth], Pieces([truth], [True]), 6) for i in range(3)]
    plans.write_plans(tmp_path / "plans.jsonl", iter(made))
    assert plans.read_plans(tmp_path / "plans.jsonl") == [m for m in made if m.asked]


def test_recall_learns_through_the_update() -> None:
    config, words = network_config(), tokenizer()
    network = Network(config)
    network.initialise(0)
    recall.freeze_all_but(network)
    with torch.no_grad():
        network.recall.gate.fill_(0.5)
    stream = tokens(64)
    view = whole_view(stream, config, words)
    asked = draw(stream.truth, 8, 1, whole_stamps(64))
    emptied = recall.emptied(lesson(view, asked, config, words))
    assert int((emptied.prefix.memory >= 0).sum()) < 20, "but for the last patch nothing is left in memory"
    rows = stream.z.flatten(0, 1)[None]
    segment = recall.RecallSegment(rows[:, : rows.shape[1] // MINI_BATCH * MINI_BATCH], [emptied])
    state = recall.carried(network.ttt, None, 1)
    recall.streamed(network.ttt, segment.tokens, state)
    loss, _ = recall.loss_of(network, segment, state)
    loss.backward()
    assert state.updates == rows.shape[1] // MINI_BATCH
    for name in ("wk.weight", "wv.weight", "W1", "learnable_ttt_lr_weight"):
        gradient = dict(network.ttt.named_parameters())[name].grad
        assert gradient is not None, name
        assert bool(gradient.abs().sum() > 0), name
    assert network.language.lm_head.weight.grad is None
    again = recall.carried(network.ttt, state, 1)
    assert torch.equal(again.W1, state.W1.detach())
    assert GRID == (2, 4)


def test_a_mirrored_plan_points_at_the_same_things_in_the_mirror() -> None:
    truth = demo_truth()
    made = plans.plan(3, [truth], Pieces([truth], [True]), questions=12, lengths_s=((44, 1.0),))
    other = made.mirrored(5)
    assert other.pieces == tuple((n + 5, a, b) for n, a, b in made.pieces)
    assert other.mirrored(-5) == made
    visual = made.seconds // 2 * GRID[0] * GRID[1]
    shown = whole_stamps(made.seconds).place
    for before, after in zip(made.asked, other.asked, strict=True):
        seen = sorted((int(shown[r]) // GRID[1], GRID[1] - 1 - int(shown[r]) % GRID[1]) for r in before.evidence
                      if r < visual)  # fmt: skip
        assert seen == sorted(divmod(int(shown[r]), GRID[1]) for r in after.evidence if r < visual)
        assert [r for r in before.evidence if r >= visual] == [r for r in after.evidence if r >= visual]
    twice = mirrored(mirrored(truth))
    for one, two in zip(truth.moments, twice.moments, strict=True):
        for a, b in zip(one.seen, two.seen, strict=True):
            np.testing.assert_allclose(a.box, b.box, atol=1e-12)
