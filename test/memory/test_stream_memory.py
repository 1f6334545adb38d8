"""The stream memory: cutting changes nothing, views and saved states are exact, bad input leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from salmonn_node.memory.stream_memory import MemoryEvent, MemoryView, StreamMemory, TokenBatch, TokenMemoryConfig
from salmonn_node.ttt.layer import TTTConfig, TTTLayer

WIDTH, GRID, MINI_BATCH = 32, (2, 3), 8
SECOND = 1_000_000_000
RULES = ("paper", "released", "place", "ends", "merge", "merge_released", "uniform", "fifo", "recent")


def make_layer(**settings: object) -> TTTLayer:
    torch.manual_seed(0)
    config = TTTConfig(hidden_size=WIDTH, num_heads=2, mini_batch=MINI_BATCH, base_lr=16.0, lag_distance=8, **settings)
    layer = TTTLayer(config)
    with torch.no_grad():
        layer.gating_alpha.fill_(0.5)
    return layer


LAYER = make_layer()


def make_memory(rule: str = "paper", ttt: TTTLayer | None = LAYER, budget: int = 24, step: int = 10) -> StreamMemory:
    audio_rule = rule if rule in ("merge", "merge_released", "fifo") else "merge"
    return StreamMemory(ttt, TokenMemoryConfig(budget, step, rule), TokenMemoryConfig(9, 4, audio_rule))


def patches(count: int, seed: int = 0, sources: int = 2) -> Iterator[TokenBatch]:
    """Temporal patches of a scene that mostly stands still, from two cameras in turn."""
    generator = torch.Generator().manual_seed(seed)
    length = GRID[0] * GRID[1]
    scene = torch.randn(sources, length, WIDTH * 3, generator=generator)
    for t in range(count):
        source = t % sources
        if torch.rand(1, generator=generator) < 0.3:
            place = int(torch.randint(length, (1,), generator=generator))
            scene[source, place] = torch.randn(WIDTH * 3, generator=generator)
        rows = scene[source] + 0.05 * torch.randn(length, WIDTH * 3, generator=generator)
        z, *deep = rows.chunk(3, dim=1)
        yield TokenBatch.of_patch(
            z.contiguous(),
            torch.stack(deep),
            grid=GRID,
            first_index=t * length,
            stamp_ns=t * SECOND,
            patch=t,
            source=source,
            pose_id=t // 3,
        )


def sound(count: int, seed: int = 0) -> TokenBatch:
    z = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed + 100)).cumsum(0)
    index = torch.arange(count)
    return TokenBatch(z, None, index, index * SECOND // 2, index // 6, index * 0, index * 0, index * 0 - 1)


def observe(
    memory: StreamMemory, stream: TokenBatch, heard: TokenBatch, cuts: list[int], audio_cuts: list[int]
) -> None:
    bounds = [0, *sorted(set(cuts)), len(stream)]
    for a, b in zip(bounds[:-1], bounds[1:], strict=True):
        if a < b:
            memory.observe_visual(stream.select(slice(a, b)), GRID)
    bounds = [0, *sorted(set(audio_cuts)), len(heard)]
    for a, b in zip(bounds[:-1], bounds[1:], strict=True):
        if a < b:
            memory.observe_audio(heard.select(slice(a, b)))


def assert_equal(a: StreamMemory, b: StreamMemory) -> None:
    ours, theirs = a.to_tensors(), b.to_tensors()
    assert ours[0].keys() == theirs[0].keys()
    for name, tensor in ours[0].items():
        assert torch.equal(tensor, theirs[0][name]), name
    meta = [{k: v for k, v in m.items() if k != "version"} for m in (ours[1], theirs[1])]  # counts the calls
    assert meta[0] == meta[1]
    assert_same_view(a.view(), b.view())


def assert_same_view(a: MemoryView, b: MemoryView) -> None:
    for x, y in ((a.visual, b.visual), (a.audio, b.audio)):
        assert (x is None) == (y is None)
        assert x is None or y is None or x.equals(y)
    assert torch.equal(a.visual_committed, b.visual_committed)
    assert a.counters == b.counters


def test_kept_tokens_are_counted_within_the_budget_and_the_others_wait() -> None:
    memory, waited = make_memory(), set()
    stream, heard = TokenBatch.concat(list(patches(12))), sound(30)
    for step in range(12):
        memory.observe_visual(stream.select(slice(6 * step, 6 * step + 6)), GRID)
        memory.observe_audio(heard.select(slice(2 * step, 2 * step + 2)))
        kept, waiting = memory.token_counts()
        assert kept[0] <= 24
        assert kept[1] <= 9
        assert kept[0] + waiting[0] == len(memory.kept("visual")[0])
        assert kept[1] + waiting[1] == len(memory.kept("audio")[0])
        waited.add(waiting)
    assert kept == (24, 9)
    assert {w[0] for w in waited} > {0}
    assert {w[1] for w in waited} == {0, 1, 3}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", [LAYER, None], ids=["ttt", "plain"])
def test_one_call_seven_calls_and_single_tokens_are_equal(rule: str, layer: TTTLayer | None) -> None:
    stream, heard = TokenBatch.concat(list(patches(17))), sound(31)
    memories = []
    for calls in (1, 7, len(stream)):
        memory = make_memory(rule, layer)
        cuts = [len(stream) * i // calls for i in range(1, calls)]
        observe(memory, stream, heard, cuts, [c for c in cuts if c < len(heard)])
        memories.append(memory)
    for other in memories[1:]:
        assert_equal(memories[0], other)
    kept = memories[0].view().visual
    assert kept is not None
    assert len(kept) < len(stream)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_cutting_gives_the_same_memory(data: st.DataObject) -> None:
    rule = data.draw(st.sampled_from(RULES))
    seed = data.draw(st.integers(0, 5))
    count = data.draw(st.integers(1, 16))
    budget, step = data.draw(st.integers(6, 40)), data.draw(st.integers(1, 30))
    stream, heard = TokenBatch.concat(list(patches(count, seed))), sound(count * 2, seed)
    whole, cut = (make_memory(rule, LAYER, budget, step) for _ in range(2))
    observe(whole, stream, heard, [], [])
    cuts = data.draw(st.lists(st.integers(1, len(stream)), max_size=9))
    observe(cut, stream, heard, cuts, data.draw(st.lists(st.integers(1, len(heard)), max_size=5)))
    assert_equal(whole, cut)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_a_saved_state_continues_bit_for_bit(data: st.DataObject) -> None:
    rule = data.draw(st.sampled_from(RULES))
    layer = data.draw(st.sampled_from([LAYER, None]))
    stream, heard = TokenBatch.concat(list(patches(14))), sound(30)
    at, audio_at = data.draw(st.integers(1, len(stream) - 1)), data.draw(st.integers(1, 29))
    memory = make_memory(rule, layer)
    observe(memory, stream.select(slice(0, at)), heard.select(slice(0, audio_at)), [], [])
    memory.source_id("front")
    memory.session["id"] = "s"
    tensors, meta = memory.to_tensors()
    restored = StreamMemory.from_tensors(load(save(tensors)), meta, layer)
    assert_equal(memory, restored)
    for one in (memory, restored):
        observe(one, stream.select(slice(at, None)), heard.select(slice(audio_at, None)), [], [])
    assert_equal(memory, restored)
    assert restored.sources == ("front",)


def test_waiting_tokens_are_seen_uncommitted_with_their_own_metadata() -> None:
    memory = make_memory(budget=1000)
    stream = TokenBatch.concat(list(patches(3)))  # 18 tokens: 16 committed, 2 wait
    observe(memory, stream, sound(1), [], [])
    view = memory.view()
    assert view.visual is not None
    assert view.visual_committed.tolist() == [True] * 16 + [False] * 2
    assert torch.equal(view.visual.table(), stream.table())
    assert torch.equal(view.visual.deepstack, stream.deepstack)
    assert not torch.equal(view.visual.z[16:], stream.z[16:])
    before = memory.to_tensors()
    memory.view()
    for name, tensor in memory.to_tensors()[0].items():
        assert torch.equal(tensor, before[0][name])


@pytest.mark.parametrize("rule", RULES)
def test_a_view_is_not_changed_by_later_tokens(rule: str) -> None:
    memory = make_memory(rule)
    batches = list(patches(20))
    for batch in batches[:8]:
        memory.observe_visual(batch, GRID)
    view = memory.view()
    assert view.visual is not None
    assert view.fast_weights is not None
    features, table, weights = view.visual.features().clone(), view.visual.table(), view.fast_weights.W1.clone()
    for batch in batches[8:]:
        memory.observe_visual(batch, GRID)
    assert torch.equal(view.visual.features(), features)
    assert torch.equal(view.visual.table(), table)
    assert torch.equal(view.fast_weights.W1, weights)


def test_views_by_time_and_source() -> None:
    memory = make_memory(ttt=None, budget=1000)
    assert [memory.source_id(name) for name in ("front", "back", "front")] == [0, 1, 0]
    for batch in patches(10):
        memory.observe_visual(batch, GRID)
    memory.observe_audio(sound(4))
    view = memory.view(after_ns=3 * SECOND, before_ns=7 * SECOND, sources=["back"])
    assert view.visual is not None
    assert sorted({int(s) // SECOND for s in view.visual.stamp_ns}) == [3, 5, 7]
    assert set(view.visual.source.tolist()) == {1}
    assert view.audio is None
    assert len(view.visual_committed) == len(view.visual)
    assert memory.view(sources=["side"]).visual is None
    assert memory.view().newest_ns == 9 * SECOND


def test_forgetting_an_interval() -> None:
    for rule in RULES:
        memory = make_memory(rule)
        for batch in patches(15):
            memory.observe_visual(batch, GRID)
        memory.observe_audio(sound(40))
        gone = memory.forget(9 * SECOND, 14 * SECOND)
        assert gone > 0
        view = memory.view()
        for batch in (view.visual, view.audio):
            if batch is not None:
                assert not bool(batch.within(9 * SECOND, 14 * SECOND).any()), rule
        assert memory.counters["forgotten"] == gone
        for batch in patches(30):
            if int(batch.patch[0]) >= 15:
                memory.observe_visual(batch, GRID)
        assert len(memory.view()) > 0
    with pytest.raises(ValueError, match="interval"):
        memory.forget(2, 1)


def test_clear() -> None:
    memory, fresh = make_memory(), make_memory()
    observe(memory, TokenBatch.concat(list(patches(9))), sound(9), [], [])
    events: list[MemoryEvent] = []
    memory.listeners.append(events.append)
    memory.clear()
    assert_equal(memory, fresh)
    assert [(e.kind, e.modality) for e in events] == [("cleared", "visual"), ("cleared", "audio")]


# In the release's merging a row takes the index of another token, so there is nothing to follow.
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "merge_released"])
def test_events_tell_what_a_view_shows(rule: str) -> None:
    """Whoever follows the events knows the committed tokens; rows whose features changed are named."""
    memory = make_memory(rule)
    known: dict[int, torch.Tensor] = {}
    changed: set[int] = set()

    def follow(event: MemoryEvent) -> None:
        if event.modality != "visual":
            return
        if event.kind == "appended":
            known.update({i: torch.empty(0) for i in event.index.tolist()})
        elif event.kind == "changed":
            changed.update(event.index.tolist())
        else:
            for i in event.index.tolist():
                del known[i]

    memory.listeners.append(follow)
    rows: dict[int, torch.Tensor] = {}
    for batch in patches(30):
        memory.observe_visual(batch, GRID)
        view = memory.view()
        assert view.visual is not None
        committed = view.visual.select(view.visual_committed)
        assert committed.index.tolist() == sorted(known)
        for i, row in zip(committed.index.tolist(), committed.features(), strict=True):
            if i in rows and i not in changed:
                assert torch.equal(rows[i], row)
            rows[i] = row
        changed.clear()
    memory.forget(0, 5 * SECOND)
    view = memory.view()
    assert view.visual is not None
    assert view.visual.select(view.visual_committed).index.tolist() == sorted(known)


def test_released_mode_cuts_slices_of_whole_patches_whatever_the_calls() -> None:
    layer = make_layer(mode="released")
    stream = TokenBatch.concat(list(patches(23, sources=1)))
    memories = []
    for calls in (1, 7, len(stream)):
        memory = StreamMemory(
            layer, TokenMemoryConfig(24, 10, "released"), TokenMemoryConfig(9, 4, "merge_released"), slice_patches=5
        )
        observe(memory, stream, sound(20), [len(stream) * i // calls for i in range(1, calls)], [])
        memory.finish()
        memories.append(memory)
    for other in memories[1:]:
        assert_equal(memories[0], other)
    view = memories[0].view()
    assert view.visual is not None
    assert view.audio is not None
    assert (len(view.visual), len(view.audio)) == (24, 9)
    assert bool(view.visual_committed.all())
    state = memories[0].state
    assert state is not None
    assert state.slices == 5


def test_outputs_that_are_not_finite_are_replaced_and_counted() -> None:
    layer = make_layer()
    with torch.no_grad():
        layer.gating_alpha[3] = float("nan")
    memory = make_memory(ttt=layer, budget=100)
    batches = list(patches(4))
    for batch in batches:
        memory.observe_visual(batch, GRID)
    view = memory.view()
    assert view.visual is not None
    assert torch.equal(view.visual.z[:24], TokenBatch.concat(batches).z)
    assert memory.counters["raw"] == 24


BAD = {
    "z": [
        lambda b: replace(b, z=b.z.index_fill(0, torch.tensor([2]), float("nan"))),
        lambda b: replace(b, z=b.z.index_fill(0, torch.tensor([2]), float("inf"))),
        lambda b: replace(b, z=b.z[:, :-1], deepstack=b.deepstack[:, :, :-1]),
        lambda b: b.select(slice(0, 0)),
        lambda b: replace(b, z=b.z.long()),
        lambda b: replace(b, z=b.z[0]),
    ],
    "deepstack": [
        lambda b: replace(b, deepstack=b.deepstack[:, :-1]),
        lambda b: replace(b, deepstack=b.deepstack[:1]),
        lambda b: replace(b, deepstack=None),
        lambda b: replace(b, deepstack=b.deepstack.clone().fill_(float("nan"))),
    ],
    "stamp_ns": [lambda b: replace(b, stamp_ns=b.stamp_ns - 10**18), lambda b: replace(b, stamp_ns=b.stamp_ns[1:])],
    "index": [lambda b: replace(b, index=b.index.flip(0)), lambda b: replace(b, index=b.index - 10_000)],
    "patch": [lambda b: replace(b, patch=b.patch * 0)],
    "place": [lambda b: replace(b, place=b.place + 3)],
    "source": [lambda b: replace(b, source=b.source - 5)],
}


@pytest.mark.parametrize("layer", [LAYER, None], ids=["ttt", "plain"])
@pytest.mark.parametrize(("name", "number"), [(name, i) for name, cases in BAD.items() for i in range(len(cases))])
def test_bad_tokens_are_named_and_change_nothing(name: str, number: int, layer: TTTLayer | None) -> None:
    memory = make_memory("paper", layer)
    *good, bad = patches(8)
    for batch in good:
        memory.observe_visual(batch, GRID)
    tensors, meta = memory.to_tensors()
    with pytest.raises(ValueError, match=name):
        memory.observe_visual(BAD[name][number](bad), GRID)
    after, after_meta = memory.to_tensors()
    assert all(torch.equal(tensor, after[key]) for key, tensor in tensors.items())
    assert after_meta.pop("counters")["refused"] == 1
    meta.pop("counters")
    assert after_meta == meta
    memory.observe_visual(bad, GRID)


def test_more_bad_input() -> None:
    memory = make_memory(budget=5)
    with pytest.raises(ValueError, match="budget"):
        memory.observe_visual(next(patches(1)), GRID)
    with pytest.raises(ValueError, match="grid"):
        memory.observe_visual(next(patches(1)), (0, 3))
    with pytest.raises(ValueError, match="z"):
        memory.observe_audio(replace(sound(3), z=torch.full((3, WIDTH), float("nan"))))
    for field in ("budget", "step", "recent_patches"):
        with pytest.raises(ValueError, match=field):
            TokenMemoryConfig(**{field: 0})
    with pytest.raises(ValueError, match="rule"):
        TokenMemoryConfig(rule="best")
    with pytest.raises(ValueError, match="slice_patches"):
        StreamMemory(None, TokenMemoryConfig(), TokenMemoryConfig(), slice_patches=0)


def test_a_state_that_does_not_fit_is_refused() -> None:
    memory = make_memory()
    observe(memory, TokenBatch.concat(list(patches(9))), sound(9), [], [])
    tensors, meta = memory.to_tensors()
    with pytest.raises(ValueError, match="schema"):
        StreamMemory.from_tensors(tensors, meta | {"schema": "x/9"}, LAYER)
    with pytest.raises(ValueError, match="ttt"):
        StreamMemory.from_tensors(tensors, meta, None)
    for name in meta:
        if name not in ("parts", "ttt", "events", "log"):  # states from before there were events or a log go on
            with pytest.raises(ValueError, match=r"meta|schema"):
                StreamMemory.from_tensors(tensors, {k: v for k, v in meta.items() if k != name}, LAYER)
    with pytest.raises(ValueError, match="table"):
        StreamMemory.from_tensors({k: v for k, v in tensors.items() if k != "visual.table"}, meta, LAYER)
    with pytest.raises(ValueError, match="known"):
        StreamMemory.from_tensors(tensors | {"visual.known": tensors["visual.known"][:, 1:]}, meta, LAYER)
