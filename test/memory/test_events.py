"""Segmentation into events: what is told from a stream, whatever the cuts; saved and continued bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn

from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.memory.events import Event, SegmentConfig
from salmonn_node.memory.sight_segments import SightSegmenter
from salmonn_node.memory.sound_segments import SoundSegmenter
from salmonn_node.memory.token_batch import TokenBatch

SECOND = 1_000_000_000
WIDTH, GRID, THINGS = 16, (2, 3), 4
CELLS = GRID[0] * GRID[1]


def plain_heads() -> EventHeads:
    """Read-outs made by hand: the first THINGS channels name a thing, or a sound; where one is large, it is there."""
    heads = EventHeads(WIDTH, WIDTH, WIDTH, keys=(THINGS, THINGS, 4))
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.zero_()
        heads.visual_key.weight[:, :THINGS] = torch.eye(THINGS)
        heads.view_key.weight[:, -4:] = torch.eye(4)
        heads.audio_key.weight[:, WIDTH : WIDTH + THINGS] = torch.eye(THINGS)
        for network, start in ((heads.visual_state, 0), (heads.audio_state, WIDTH)):
            first, last = network[0], network[2]
            assert isinstance(first, nn.Linear)
            assert isinstance(last, nn.Linear)
            first.weight[0, start : start + THINGS] = 1.0
            last.weight[:, 0] = 8.0
            last.bias.fill_(-8.0)
    return heads.eval()


HEADS = plain_heads()


def row(thing: int | None) -> Tensor:
    """A token's features: one channel is large, that of the thing or of the wall."""
    return nn.functional.one_hot(torch.tensor(WIDTH - 1 if thing is None else thing), WIDTH).float()


def patch(number: int, shown: dict[int, int], source: int = 0) -> TokenBatch:
    """A temporal patch of two seconds whose cells show things."""
    z = torch.stack([row(shown.get(cell)) for cell in range(CELLS)])
    return TokenBatch.of_patch(
        z,
        grid=GRID,
        first_index=number * CELLS,
        stamp_ns=2 * number * SECOND,
        last_ns=(2 * number + 1) * SECOND,
        patch=number,
        source=source,
        pose_id=number,
    )


def sights(patches: list[TokenBatch], config: SegmentConfig | None = None) -> list[Event]:
    segmenter = SightSegmenter(HEADS, config or SegmentConfig())
    return [event for one in patches for event in segmenter.observe(one)]


def test_a_thing_that_stays_in_view_is_one_event() -> None:
    shown = [{}, {1: 2, 2: 2}, {1: 2}, {2: 2}, {}, {}]
    (event,) = sights([patch(i, cells) for i, cells in enumerate(shown)])

    assert (event.first_ns, event.last_ns) == (2 * SECOND, 7 * SECOND)
    assert event.region == 0b110
    assert event.frames == 6
    assert event.pose_id == 1
    assert int(event.direction.argmax()) == 2
    assert event.tokens[1:] == (CELLS + 1, 3 * CELLS + 2)


def test_two_things_beside_each_other_are_two_events() -> None:
    events = sights([patch(i, {0: 1, 1: 3} if i < 3 else {}) for i in range(5)])

    assert sorted(int(e.direction.argmax()) for e in events) == [1, 3]


def test_two_cameras_have_events_of_their_own() -> None:
    events = sights([patch(i, {0: 1} if i < 4 else {}, i % 2) for i in range(8)])

    assert sorted(e.source for e in events) == [0, 1]


def test_a_single_glance_is_no_event() -> None:
    config = SegmentConfig(least_frames=3)

    assert sights([patch(i, {0: 1} if i == 1 else {}) for i in range(5)], config) == []


def heard(names: list[int | None], source: int = 0) -> TokenBatch:
    index = torch.arange(len(names))
    z = torch.stack([row(name) for name in names])
    return TokenBatch(
        z, None, index, index * SECOND // 2, index // 8, index * 0, torch.full_like(index, source), index * 0 - 1
    )


def test_sounds_end_in_silence_and_where_another_begins() -> None:
    names = [None, 1, 1, None, 1, None, None, None, None, None, 2, 2, 3, 3, None, None, None, None, None]
    events = SoundSegmenter(HEADS, SegmentConfig()).observe(heard(names))

    spans = [(int(e.direction.argmax()), e.first_ns * 2 // SECOND, e.last_ns * 2 // SECOND) for e in events]
    assert spans == [(1, 1, 4), (2, 10, 11), (3, 12, 13)]


def noisy(count: int, seed: int) -> tuple[TokenBatch, TokenBatch]:
    """A stream in which things come and go, seen by two cameras and heard by two microphones, with noise."""
    generator = torch.Generator().manual_seed(seed)
    shown: dict[int, int] = {}
    patches, names = [], []
    for number in range(count):
        for cell in range(CELLS):
            draw = float(torch.rand(1, generator=generator))
            if draw < 0.1:
                shown[cell] = int(torch.randint(THINGS, (1,), generator=generator))
            elif draw < 0.3:
                shown.pop(cell, None)
        patches.append(patch(number, shown, number % 2))
        names += [shown.get(0), shown.get(1)]
    seen = TokenBatch.concat(patches)
    listened = heard(names)
    noise = 0.1 * torch.randn(seen.z.shape, generator=generator)
    seen.z.add_(noise)
    listened.source[1::3] = 1
    return seen, listened


Segmenter = SightSegmenter | SoundSegmenter


def flow(segmenter: Segmenter, batch: TokenBatch, cuts: list[int]) -> list[Event]:
    bounds = [0, *sorted(set(cuts)), len(batch)]
    pieces = zip(bounds, bounds[1:], strict=False)
    return [e for a, b in pieces if a < b for e in segmenter.observe(batch.select(slice(a, b)))]


def told(segmenter: Segmenter, events: list[Event]) -> tuple[dict[str, Tensor], Any, list[object]]:
    """Everything that must be equal: the state, and the events that ended."""
    tensors, meta = segmenter.to_tensors()
    listed = [(e.number, e.source, e.first_ns, e.last_ns, e.region, e.tokens, e.weight, e.key.tolist()) for e in events]
    return tensors, meta, listed


def assert_same(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    assert ours[1:] == theirs[1:]
    assert ours[0].keys() == theirs[0].keys()
    assert all(torch.equal(tensor, theirs[0][name]) for name, tensor in ours[0].items())


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_cutting_and_a_restart_give_the_same_events(data: st.DataObject) -> None:
    seen, listened = noisy(data.draw(st.integers(2, 25)), data.draw(st.integers(0, 50)))
    for kind, batch in ((SightSegmenter, seen), (SoundSegmenter, listened)):
        whole, cut, stopped = (kind(HEADS, SegmentConfig(coherence=0.5)) for _ in range(3))
        once = flow(whole, batch, [])
        cuts = data.draw(st.lists(st.integers(1, len(batch)), max_size=8))
        assert_same(told(whole, once), told(cut, flow(cut, batch, cuts)))

        at = data.draw(st.integers(1, len(batch) - 1))
        before = flow(stopped, batch.select(slice(0, at)), [])
        tensors, meta = stopped.to_tensors()
        again = kind(HEADS, SegmentConfig(coherence=0.5))
        again.restore(load(save({k: v.contiguous() for k, v in tensors.items()})), meta)
        assert_same(told(whole, once), told(again, before + flow(again, batch.select(slice(at, None)), [])))


def test_open_runs_are_few_however_long_the_stream() -> None:
    segmenter = SightSegmenter(HEADS, SegmentConfig())
    for seed in range(20):
        seen, _ = noisy(25, seed)
        shift = seed * 25
        seen.stamp_ns.add_(2 * shift * SECOND)
        assert seen.last_ns is not None
        if seen.last_ns is not seen.stamp_ns:
            seen.last_ns.add_(2 * shift * SECOND)
        segmenter.observe(seen)
        assert len(segmenter.open) <= 2 * CELLS * 2


def test_read_outs_come_back_from_their_file(tmp_path: Path) -> None:
    HEADS.save(tmp_path / "events.safetensors")
    again = EventHeads.load(tmp_path / "events.safetensors")

    features = torch.randn(CELLS, WIDTH)
    assert all(torch.equal(a, b) for a, b in zip(HEADS.look(features), again.look(features), strict=True))


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(save({"x": torch.zeros(1)}))

    with pytest.raises(ValueError, match=r"other\.safetensors"):
        EventHeads.load(tmp_path / "other.safetensors")
