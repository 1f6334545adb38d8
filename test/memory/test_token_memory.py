"""The discard rules against slow float64 references that recompute everything at every step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salmonn_node.memory.token_memory import TokenBatch, TokenMemory, TokenMemoryConfig


def tokens(z: torch.Tensor, places: int = 1, sources: int = 1, first: int = 0) -> TokenBatch:
    """A stream of patches of `places` tokens (1 x places), the sources in turn, a patch each second."""
    index = first + torch.arange(len(z))
    patch = index // places
    return TokenBatch(
        z=z,
        deepstack=None,
        index=index,
        stamp_ns=patch * 10**9,
        patch=patch,
        place=index % places,
        source=patch % sources,
        pose_id=patch,
        grid=torch.tensor([1, places]).expand(len(z), 2),
    )


def run(rule: str, batch: TokenBatch, budget: int, step: int, **settings: object) -> TokenMemory:
    memory = TokenMemory(TokenMemoryConfig(budget, step, rule, **settings))
    memory.append(batch)
    return memory


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.double(), b.double()
    return float(a @ b / max(float(a.norm()), 1e-12) / max(float(b.norm()), 1e-12))


def slow(rule: str, batch: TokenBatch, budget: int, step: int) -> list[int]:
    """Kept original indices of a stream, each step from scratch, one pair at a time."""
    kept: list[int] = []
    for n in range(len(batch)):
        kept.append(n)
        if len(kept) < budget + step:
            continue
        if rule in ("place", "ends"):
            kept = (slow_place if rule == "place" else slow_ends)(batch, kept, budget)
            continue
        pairs = [cosine(batch.z[a], batch.z[b]) for a, b in zip(kept[:-1], kept[1:], strict=True)]
        if rule == "paper":
            gone = sorted(range(len(pairs)), key=lambda i: (-pairs[i], i))[: len(kept) - budget]
            kept = [t for i, t in enumerate(kept) if i not in gone]
        else:
            chosen = sorted(range(len(pairs)), key=lambda i: (pairs[i], i))[:budget]
            kept = [kept[i + 1] for i in sorted(chosen)]
    return kept


def slow_ends(batch: TokenBatch, kept: list[int], budget: int) -> list[int]:
    newest = {int(batch.source[n]): int(batch.patch[n]) for n in kept}

    def at(n: int) -> tuple[int, int]:
        return int(batch.source[n]), int(batch.place[n])

    def score(n: int) -> float:
        if newest[at(n)[0]] == int(batch.patch[n]):
            return -3.0
        like = [(other, cosine(batch.z[n], batch.z[other])) for other in kept if at(other) == at(n) and other != n]
        earlier, later = [c for o, c in like if o < n], [c for o, c in like if o > n]
        return min(max(earlier, default=-1.0), max(later, default=-1.0))

    while len(kept) > budget:
        gone = max(kept, key=lambda n: (score(n), -n))
        kept = [n for n in kept if n != gone]
    return kept


def slow_place(batch: TokenBatch, kept: list[int], budget: int) -> list[int]:
    newest = {int(batch.source[n]): int(batch.patch[n]) for n in kept}
    before: dict[tuple[int, int], int] = {}
    score = {}
    for n in kept:
        key = (int(batch.source[n]), int(batch.place[n]))
        score[n] = cosine(batch.z[before[key]], batch.z[n]) if key in before else -2.0
        if newest[key[0]] == int(batch.patch[n]):
            score[n] = -3.0
        before[key] = n
    gone = sorted(kept, key=lambda n: (-score[n], n))[: len(kept) - budget]
    return [n for n in kept if n not in gone]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["paper", "released", "place", "ends"]),
    st.integers(0, 10_000),
    st.integers(4, 20),
    st.integers(1, 12),
    st.booleans(),
)
def test_kept_tokens_are_those_of_the_slow_reference(rule: str, seed: int, budget: int, step: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(60, 8, generator=generator)
    if ties:  # cosines are exactly 0 or 1, so most pairs tie
        z = torch.nn.functional.one_hot(torch.randint(3, (60,), generator=generator), 8).float()
    batch = tokens(z, places=2, sources=2)
    assert run(rule, batch, budget, step).view().index.tolist() == slow(rule, batch, budget, step)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 20), st.integers(1, 12))
def test_merging_loses_nothing(seed: int, budget: int, step: int) -> None:
    """Rows are the means of consecutive segments of the original tokens, whatever was merged before."""
    z = torch.randn(60, 8, generator=torch.Generator().manual_seed(seed)).cumsum(0)
    kept = run("merge", tokens(z), budget, step).view()
    assert kept.index[0] == 0
    assert int(kept.count.sum()) == 60
    bounds = [*kept.index.tolist(), 60]
    assert kept.count.tolist() == [b - a for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    assert kept.last_ns.tolist() == [(b - 1) * 10**9 for b in bounds[1:]]
    for row, a, b in zip(kept.z, bounds[:-1], bounds[1:], strict=True):
        torch.testing.assert_close(row, z[a:b].double().mean(0).float(), atol=1e-5, rtol=1e-5)


def slow_merge(z: torch.Tensor, budget: int, step: int) -> list[int]:
    """First tokens of the segments of count-weighted merging, from scratch in float64."""
    rows: list[tuple[int, torch.Tensor, int]] = []
    for n, row in enumerate(z.double()):
        rows.append((n, row, 1))
        if len(rows) < budget + step:
            continue
        pairs = [cosine(a[1], b[1]) for a, b in zip(rows[:-1], rows[1:], strict=True)]
        inner = sorted(i + 1 for i in sorted(range(len(pairs)), key=lambda i: (pairs[i], i))[: budget - 1])
        bounds = [0, *inner, len(rows)]
        merged = []
        for a, b in zip(bounds[:-1], bounds[1:], strict=True):
            count = sum(r[2] for r in rows[a:b])
            merged.append((rows[a][0], sum((r[1] * r[2] for r in rows[a:b]), torch.zeros(8).double()) / count, count))
        rows = merged
    return [r[0] for r in rows]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 20), st.integers(1, 12))
def test_merging_cuts_where_the_slow_reference_does(seed: int, budget: int, step: int) -> None:
    z = torch.randn(60, 8, generator=torch.Generator().manual_seed(seed))
    assert run("merge", tokens(z), budget, step).view().index.tolist() == slow_merge(z, budget, step)


def test_only_new_pairs_are_computed() -> None:
    """At most the step's tokens and one pair for each run of dropped tokens, once the first budget is full."""
    generator = torch.Generator().manual_seed(0)
    for rule in ("paper", "place"):
        memory = TokenMemory(TokenMemoryConfig(200, 50, rule))
        memory.append(tokens(torch.randn(250, 16, generator=generator), places=5))
        assert memory.work["similarities"] <= 249
        for i in range(5, 15):
            before = memory.work["similarities"]
            kept = set(memory.view().index.tolist())
            memory.append(tokens(torch.randn(50, 16, generator=generator), places=5, first=50 * i))
            gone = len(kept - set(memory.view().index.tolist()))
            assert memory.work["similarities"] - before <= 50 + gone + 50, rule
        assert memory.steps == 11
        assert memory.work["bytes_written"] == 750 * 16 * 4


def test_fifo_keeps_the_newest_whole_patches() -> None:
    kept = run("fifo", tokens(torch.randn(90, 4), places=6), 20, 7).view()
    patches = kept.patch.unique().tolist()
    assert patches == list(range(patches[0], 15))
    assert all(int((kept.patch == p).sum()) == 6 for p in patches)
    assert len(kept) <= 26


def test_recent_keeps_the_last_patches_however_few_tokens() -> None:
    memory = TokenMemory(TokenMemoryConfig(1000, 100, "recent", recent_patches=3))
    for i in range(20):
        memory.append(tokens(torch.randn(4, 4), places=4, first=4 * i))
        assert memory.view().patch.unique().tolist() == list(range(max(0, i - 2), i + 1))
    small = run("recent", tokens(torch.randn(80, 4), places=4), 9, 2, recent_patches=3).view()
    assert small.patch.unique().tolist() == [18, 19]


@pytest.mark.parametrize("seed", [0, 1])
def test_uniform_is_evenly_spaced_over_the_whole_stream(seed: int) -> None:
    memory = TokenMemory(TokenMemoryConfig(120, 30, "uniform", seed=seed))
    for i in range(1200):
        memory.append(tokens(torch.randn(3, 4), places=3, sources=2, first=3 * i))
        if i < 200 or i % 61:
            continue
        kept = memory.view()
        for source in (0, 1):
            patches = kept.patch[kept.source == source].unique()
            assert bool((torch.bincount(kept.patch)[patches] == 3).all()), "whole patches"
            assert int(patches[0]) == source
            old = patches[patches <= i - 12]  # what came since the last step is all there
            gaps = old.diff()
            assert int(gaps.max()) <= 4 * int(gaps.float().median()), (i, gaps)
    again = TokenMemory(TokenMemoryConfig(120, 30, "uniform", seed=seed))
    again.append(tokens(torch.randn(3600, 4), places=3, sources=2))
    assert torch.equal(again.view().index, memory.view().index)


def standing_still(patches: int, events: dict[int, int], noise: float = 0.05, places: int = 6) -> TokenBatch:
    """A robot that stands still; at patch `t` the place `events[t]` looks new, and goes back one patch later."""
    generator = torch.Generator().manual_seed(3)
    wall = torch.randn(places, 16, generator=generator)
    rows = []
    for t in range(patches):
        now = wall.clone()
        if t in events:
            now[events[t]] = torch.randn(16, generator=generator)
        rows.append(now + noise * torch.randn(places, 16, generator=generator))
    return tokens(torch.cat(rows), places=places)


def test_place_keeps_what_changed_while_the_robot_stood_still() -> None:
    events = {50: 1, 170: 4, 171: 4, 400: 0, 555: 5}
    batch = standing_still(3600, events)
    kept = {}
    for rule in ("place", "paper"):
        view = run(rule, batch, 60, 30).view()
        kept[rule] = sum(bool(((view.patch == t) & (view.place == p)).any()) for t, p in events.items())
    assert kept["place"] == len(events)
    assert kept["paper"] < len(events)


def test_ends_keeps_the_first_and_the_last_of_each_sound_between_silences() -> None:
    """Forty sounds of five kinds and silence between them: no window and no merge of neighbours holds all kinds."""
    generator = torch.Generator().manual_seed(4)
    kinds = torch.randn(6, 32, generator=generator)  # 0: silence
    heard = [0] * 1200
    for number in range(40):
        heard[30 * number + 7] = 1 + int(torch.randint(5, (), generator=generator)) if number > 4 else 1 + number
    z = kinds[heard] + 0.2 * torch.randn(1200, 32, generator=generator)
    kept = run("ends", tokens(z, places=1), 24, 12).view().index.tolist()
    for kind in range(1, 6):
        times = [n for n, k in enumerate(heard) if k == kind]
        assert times[0] in kept
        assert times[-1] in kept


def test_place_says_how_long_a_place_looked_as_it_does() -> None:
    batch = standing_still(100, {40: 2}, noise=0.01)
    view = run("place", batch, 24, 12).view()
    first = view.select((view.patch == 0) & (view.place == 0))
    assert int(first.last_ns) > 80 * 10**9
    assert int(first.count) > 80
    changed = view.select((view.patch == 40) & (view.place == 2))
    assert (int(changed.count), int(changed.last_ns)) == (1, 40 * 10**9)


def test_place_keeps_sources_apart() -> None:
    """Two cameras that see different walls do not make each other look new."""
    walls = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0))
    z = torch.cat([walls[t % 2] for t in range(200)])
    memory = run("place", tokens(z, places=4, sources=2), 16, 8)
    view = memory.view()
    assert set(view.patch[:8].tolist()) == {0, 1}
    assert sorted(view.source.unique().tolist()) == [0, 1]


def test_a_view_is_shared_until_the_memory_changes() -> None:
    memory = run("paper", tokens(torch.randn(9, 4)), 10, 3)
    first = memory.view()
    assert memory.view() is first
    memory.append(tokens(torch.randn(1, 4), first=9))
    assert memory.view() is not first
    assert len(first) == 9


def test_half_precision_is_kept_and_compared_in_float32() -> None:
    z = torch.randn(40, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    view = run("paper", tokens(z), 10, 5).view()
    assert view.z.dtype == torch.bfloat16
    assert view.index.tolist() == slow("paper", tokens(z), 10, 5)
