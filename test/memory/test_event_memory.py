"""The event memory in the stream memory: first and last stay, partners stay; cuts and restarts change no bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from salmonn_node.memory.event_memory import PINNED, EventMemory, EventMemoryConfig
from salmonn_node.memory.events import Event, SegmentConfig
from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.memory.token_memory import TokenMemoryConfig
from test.memory.test_events import CELLS, GRID, HEADS, SECOND, THINGS, heard, noisy, patch

CONFIG = EventMemoryConfig(sights=6, sounds=4, settle_ns=4 * SECOND, segment=SegmentConfig(coherence=0.5))


def make_memory(config: EventMemoryConfig = CONFIG, budget: int = 24, rule: str = "events") -> StreamMemory:
    """With the rule `ends`, the events are kept beside the tokens."""
    visual, audio = TokenMemoryConfig(budget, 12, rule), TokenMemoryConfig(12, 4, rule)
    return StreamMemory(None, visual, audio, events=EventMemory(HEADS, config))


def flow(memory: StreamMemory, seen: TokenBatch, listened: TokenBatch, cuts: list[int]) -> None:
    """Patches and the sound of their time in turn; each call cut further at `cuts`, counted in tokens."""
    for start in range(0, len(seen), 2 * CELLS):
        first, last = start // CELLS * 2, (start // CELLS + 2) * 2
        for batch, bounds in ((seen, (start, min(start + 2 * CELLS, len(seen)))), (listened, (first, last))):
            low, high = bounds[0], min(bounds[1], len(batch))
            inner = [low, *sorted({c for c in cuts if low < c < high}), high]
            for a, b in zip(inner, inner[1:], strict=False):
                piece = batch.select(slice(a, b))
                if a < b and batch is seen:
                    memory.observe_visual(piece, GRID)
                elif a < b:
                    memory.observe_audio(piece)


def assert_equal(ours: StreamMemory, theirs: StreamMemory) -> None:
    (tensors, meta), (others, other) = ours.to_tensors(), theirs.to_tensors()
    assert {k: v for k, v in meta.items() if k != "version"} == {k: v for k, v in other.items() if k != "version"}
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 50),
    count=st.integers(4, 30),
    cuts=st.lists(st.integers(1, 170), max_size=12),
    rule=st.sampled_from(["events", "ends"]),
)
@example(seed=8, count=18, cuts=[29], rule="ends")
def test_any_cutting_gives_the_same_memory(seed: int, count: int, cuts: list[int], rule: str) -> None:
    seen, listened = noisy(count, seed)
    whole, cut = make_memory(rule=rule), make_memory(rule=rule)
    flow(whole, seen, listened, [])
    flow(cut, seen, listened, cuts)

    assert_equal(whole, cut)


BESIDE = replace(CONFIG, wait_ns=20 * SECOND)


def shuffled(memory: StreamMemory, seen: TokenBatch, listened: TokenBatch, turns: list[bool], most_s: int) -> None:
    """Patches and single tokens of sound; `turns` says whose turn it is, while neither is `most_s` ahead."""
    queues = {
        True: [seen.select(slice(i, i + CELLS)) for i in range(0, len(seen), CELLS)],
        False: [listened.select(slice(i, i + 1)) for i in range(len(listened))],
    }
    step = 0
    while queues[True] or queues[False]:
        visual = turns[step % len(turns)]
        step += 1
        mine, other = queues[visual], queues[not visual]
        ahead = bool(mine and other) and int(mine[0].stamp_ns[0] - other[0].stamp_ns[0]) > most_s * SECOND
        if not mine or ahead:
            visual, mine = not visual, other
        if visual:
            memory.observe_visual(mine.pop(0), GRID)
        else:
            memory.observe_audio(mine.pop(0))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 50),
    turns=st.lists(st.booleans(), min_size=1, max_size=40),
    saved=st.booleans(),
)
def test_events_do_not_depend_on_how_pictures_and_sound_take_turns(seed: int, turns: list[bool], saved: bool) -> None:
    seen, listened = noisy(26, seed)
    seen = seen.select(slice(0, 13 * CELLS))  # as long as the sound, 26 s
    even, odd = make_memory(BESIDE, rule="ends"), make_memory(BESIDE, rule="ends")
    shuffled(even, seen, listened, [True, *[False] * 4], 3)
    shuffled(odd, seen.select(slice(0, 6 * CELLS)), listened.select(slice(0, 24)), turns, 3)
    if saved:
        tensors, meta = odd.to_tensors()
        odd = StreamMemory.from_tensors(load(save(tensors)), meta, None, EventMemory(HEADS, BESIDE))
    shuffled(odd, seen.select(slice(6 * CELLS, None)), listened.select(slice(24, None)), turns[::-1], 3)

    assert_equal(even, odd)


def test_a_question_sees_what_waits_for_the_other_modality() -> None:
    memory = EventMemory(HEADS, BESIDE)
    memory.observe("audio", heard([None] * 4))
    for number in range(4):
        memory.observe("visual", patch(number, {0: 0}))
    before, copy = len(memory.events("visual")), memory.snapshot()
    copy.finish()

    assert len(copy.events("visual")) == 1
    assert copy.events("visual")[0].last_ns > 2 * SECOND
    assert len(memory.events("visual")) == before, "the question changed nothing"
    assert memory.nbytes > memory.snapshot().nbytes - 1


def test_a_modality_that_stays_away_is_waited_for_in_bounds() -> None:
    memory = EventMemory(HEADS, replace(BESIDE, wait_ns=6 * SECOND))
    memory.observe("audio", heard([None] * 4))
    sizes = []
    for number in range(40):
        memory.observe("visual", patch(number, {0: 0} if number % 8 < 2 else {}))
        sizes.append(memory.nbytes)

    assert memory.kept["visual"], "it goes on without the sound"
    assert max(sizes[20:]) <= max(sizes[:20]) + 2000


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 50), at=st.integers(1, 12), rule=st.sampled_from(["events", "ends"]))
def test_a_saved_state_continues_bit_for_bit(seed: int, at: int, rule: str) -> None:
    seen, listened = noisy(26, seed)
    whole, stopped = make_memory(rule=rule), make_memory(rule=rule)
    flow(whole, seen, listened, [])
    flow(stopped, seen.select(slice(0, 2 * at * CELLS)), listened.select(slice(0, 4 * at)), [])
    tensors, meta = stopped.to_tensors()
    again = StreamMemory.from_tensors(load(save(tensors)), meta, None, EventMemory(HEADS, CONFIG))
    rest = 2 * at * CELLS
    for start in range(rest, len(seen), 2 * CELLS):
        again.observe_visual(seen.select(slice(start, start + 2 * CELLS)), GRID)
        first = start // CELLS * 2
        again.observe_audio(listened.select(slice(first, first + 4)))

    assert {k: v for k, v in whole.to_tensors()[1].items() if k != "version"} == {
        k: v for k, v in again.to_tensors()[1].items() if k != "version"
    }
    assert all(torch.equal(t, again.to_tensors()[0][name]) for name, t in whole.to_tensors()[0].items())


def test_budgets_hold_however_long_the_stream() -> None:
    memory = make_memory()
    seen, listened = noisy(120, 1)
    flow(memory, seen, listened, [])
    assert memory.events is not None

    assert len(memory.events.kept["visual"]) == CONFIG.sights
    assert len(memory.events.kept["audio"]) <= CONFIG.sounds
    assert memory.events.dropped["visual"] > 0
    view = memory.view()
    assert view.visual is not None
    assert len(view.visual) < 36


def visits(things: list[int], config: EventMemoryConfig) -> EventMemory:
    """An event memory that has seen one thing after another, each for four seconds, with a pause after it."""
    memory = EventMemory(HEADS, config)
    shown = [cells for thing in things for cells in ({0: thing}, {0: thing}, {}, {})]
    for number, cells in enumerate([*shown, *[{}] * 6]):
        memory.observe("visual", patch(number, cells))
    return memory


def test_the_first_and_the_last_of_what_looks_alike_stay() -> None:
    memory = visits([0, 1, 0, 0, 2, 0, 1, 0], EventMemoryConfig(sights=5, sounds=2))
    kept = [(int(e.direction.argmax()), e.first_ns // (8 * SECOND)) for e in memory.kept["visual"]]

    assert kept == [(0, 0), (1, 1), (2, 4), (1, 6), (0, 7)]


def test_what_was_in_view_at_the_last_sound_of_its_kind_stays() -> None:
    memory = EventMemory(HEADS, EventMemoryConfig(sights=3, sounds=2))
    things = [0, 0, 0, 0, 0, 0]
    shown = [cells for thing in things for cells in ({0: thing}, {0: thing}, {}, {})] + [{}] * 6
    names: list[int | None] = [None] * (4 * len(shown))
    names[34:37] = [3, 3, 3]  # heard during the third visit
    listened = heard(names)
    for number, cells in enumerate(shown):
        memory.observe("visual", patch(number, cells))
        memory.observe("audio", listened.select(slice(4 * number, 4 * number + 4)))
    starts = [e.first_ns // (8 * SECOND) for e in memory.kept["visual"]]

    assert 2 in starts
    assert int((memory.redundancy("visual", memory.kept["visual"]) == PINNED).sum()) == 1
    (sound,) = memory.kept["audio"]
    assert int(sound.view.argmax()) == 0, "a sound carries what was in view"


def test_kept_tokens_stand_until_the_end_of_their_event() -> None:
    memory = make_memory(EventMemoryConfig(sights=6, sounds=4, settle_ns=4 * SECOND), budget=12)
    for number in range(12):
        memory.observe_visual(patch(number, {2: 1} if 1 <= number < 4 else {}), GRID)
    seen = memory.view().visual
    assert seen is not None
    assert seen.last_ns is not None
    first = (seen.index == CELLS + 2).nonzero()

    assert first.numel() == 1
    assert int(seen.last_ns[int(first)]) == 7 * SECOND


def test_events_beside_the_tokens_change_no_token() -> None:
    beside, plain = make_memory(rule="ends"), make_memory(rule="ends")
    plain.events = None
    for memory in (beside, plain):
        flow(memory, *noisy(40, 5), [])
    (tensors, _), (others, _) = beside.to_tensors(), plain.to_tensors()

    assert others.keys() == {name for name in tensors if not name.startswith("events.")}
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in others.items())
    assert beside.events is not None
    assert beside.events.events("visual")


def test_a_view_keeps_its_events_while_the_stream_goes_on() -> None:
    memory = make_memory(rule="ends")
    flow(memory, *noisy(20, 6), [])
    view = memory.view()
    assert view.events is not None
    before = view.events.to_tensors()
    flow(memory, *later(*noisy(20, 7), 20), [])
    after = view.events.to_tensors()

    assert before[1] == after[1]
    assert all(torch.equal(tensor, after[0][name]) for name, tensor in before[0].items())


def test_a_view_tells_its_events_what_waits_and_keeps_them_as_they_are() -> None:
    memory, further = make_memory(rule="ends"), make_memory(rule="ends")
    seen, listened = noisy(20, 6)
    listened = listened.select(slice(0, 36))
    tail = seen.select(slice(18 * CELLS, None))
    flow(memory, seen.select(slice(0, 18 * CELLS)), listened, [])
    flow(further, seen, listened, [])
    view, events = replace(memory.view(), untold=(("visual", tail),)), further.events
    assert view.events is not None
    assert events is not None
    before = view.events.to_tensors()
    events.finish()
    for _ in range(2):
        told = view.told()
        assert told is not None
        assert told.to_tensors()[1] == events.to_tensors()[1]
        assert all(torch.equal(tensor, events.to_tensors()[0][name]) for name, tensor in told.to_tensors()[0].items())
    assert view.events.to_tensors()[1] == before[1]


def later(seen: TokenBatch, listened: TokenBatch, patches: int) -> tuple[TokenBatch, TokenBatch]:
    """The same stream, as one that follows so many patches."""
    moved = []
    for batch, tokens in ((seen, patches * CELLS), (listened, patches * 4)):
        assert batch.last_ns is not None
        shift = 2 * patches * SECOND
        changed = {"index": batch.index + tokens, "stamp_ns": batch.stamp_ns + shift, "last_ns": batch.last_ns + shift}
        moved.append(replace(batch, patch=batch.patch + patches, **changed))
    return moved[0], moved[1]


def test_what_is_dropped_is_counted_by_what_resembles_it_until_its_time_is_forgotten() -> None:
    memory = visits([0, 1, 0, 0, 2, 0, 1, 0], EventMemoryConfig(sights=5, sounds=2))
    zeros = [e for e in memory.kept["visual"] if int(e.direction.argmax()) == 0]

    assert sum(1 + e.repeats for e in zeros) == 5
    memory.forget(30 * SECOND, 31 * SECOND)
    assert not any(e.repeats for e in memory.kept["visual"]), "what was counted may be of the forgotten time"


def test_a_sight_carries_what_was_heard_and_a_copy_can_hear_the_last_token() -> None:
    memory = EventMemory(HEADS, EventMemoryConfig(sights=3, sounds=2))
    names: list[int | None] = [None] * 36
    names[2:5] = [3, 3, 3]
    names[35] = 1
    for number in range(9):
        memory.observe("visual", patch(number, {0: 0} if number < 3 else {}))
        memory.observe("audio", heard(names).select(slice(4 * number, 4 * number + 4)))
    (sight,) = memory.kept["visual"]
    copy = memory.snapshot()
    copy.finish()

    assert int(sight.met.argmax()) == 3
    assert [int(e.direction.argmax()) for e in memory.events("audio")] == [3]
    assert [int(e.direction.argmax()) for e in copy.events("audio")] == [3, 1]


def test_forgetting_an_interval_takes_its_events_along() -> None:
    memory = make_memory()
    seen, listened = noisy(30, 2)
    flow(memory, seen, listened, [])
    assert memory.events is not None
    memory.forget(10 * SECOND, 30 * SECOND)
    left: list[Event] = [e for modality in ("visual", "audio") for e in memory.events.events(modality)]

    assert left
    assert not any(e.first_ns <= 30 * SECOND and e.last_ns >= 10 * SECOND for e in left)


def test_clearing_empties_it() -> None:
    memory = make_memory()
    flow(memory, *noisy(10, 3), [])
    memory.clear()

    assert memory.events is not None
    assert memory.events.events("visual") == []


def test_a_state_from_before_there_were_events_goes_on_with_none() -> None:
    plain = StreamMemory(None, TokenMemoryConfig(24, 12, "ends"), TokenMemoryConfig(12, 4, "ends"))
    flow(plain, *noisy(6, 4), [])
    tensors, meta = plain.to_tensors()
    meta.pop("events")
    again = StreamMemory.from_tensors(tensors, meta, None, EventMemory(HEADS, CONFIG))

    assert again.events is not None
    assert again.events.events("visual") == []
    assert again.events.partial
    assert StreamMemory.from_tensors(*again.to_tensors(), None, EventMemory(HEADS, CONFIG)).events.partial  # type: ignore[union-attr]
    again.observe_visual(patch(6, {0: THINGS - 1}), GRID)


@pytest.mark.parametrize("change", [{"sights": 1}, {"visual_share": 1.5}])
def test_a_bad_setting_is_named(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        EventMemoryConfig(**change)  # type: ignore[arg-type]


def test_sights_that_nothing_resembles_do_not_crowd_out_what_is_met_again() -> None:
    """Mistakes never look the same twice; the first and the last of one thing stay, however many there are."""
    config = replace(CONFIG, sights=8, likeness_power=8.0, full_likeness=0.9, doubtful_share=0.25)
    memory = EventMemory(HEADS, config)
    random = torch.Generator().manual_seed(0)
    thing = torch.nn.functional.normalize(torch.randn(32, generator=random), dim=0)
    for number in range(200):
        odd = torch.nn.functional.normalize(torch.randn(32, generator=random), dim=0)
        stamp = (number + 1) * 100 * SECOND
        event = Event(
            number, "visual", 0, stamp, stamp + SECOND, thing if number < 3 or number % 10 == 0 else odd, torch.ones(4)
        )
        memory.add("visual", [event], stamp + 50 * SECOND)
    kept = memory.kept["visual"]
    assert {0, 190} <= {e.number for e in kept}
    doubtful = memory.doubtful(kept)
    assert int(doubtful.sum()) <= 3
    assert [e.number for e, odd in zip(kept, doubtful.tolist(), strict=True) if odd][-1] == 199
    assert sum(e.repeats for e in kept) >= 15
