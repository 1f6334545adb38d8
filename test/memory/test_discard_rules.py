"""Each discard rule on random tables against a slow one that follows its description, token by token."""

from __future__ import annotations

import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from salmonn_node.memory import discard_rules as rules

GRIDS = ((1, 3), (3, 1), (2, 2), (1, 2))
seeds = st.integers(0, 100_000)


def table_of(seed: int, patches: int = 12) -> torch.Tensor:
    """Patches of three cameras in order of arrival, some tokens and some patches dropped, grids that change."""
    chance = random.Random(seed)
    ordinal, rows = {source: 0 for source in range(3)}, []
    for patch in range(patches):
        source, (height, width) = chance.randrange(3), chance.choice(GRIDS)
        ordinal[source] += chance.choice((0, 1, 1, 1, 2, 3)) if patch else 0
        ordinal[source] += any(r["source"] == source and r["ordinal"] == ordinal[source] for r in rows)
        for place in range(height * width):
            if chance.random() < 0.8 or not place:
                row = dict.fromkeys(rules.TABLE, 0)
                row |= {"index": 10 * patch + place, "stamp_ns": patch, "patch": patch, "place": place}
                row |= {"source": source, "grid_h": height, "grid_w": width, "ordinal": ordinal[source], "count": 1}
                rows.append(row)
    return torch.tensor([[row[name] for name in rules.TABLE] for row in rows])


def rows_of(table: torch.Tensor) -> list[dict[str, int]]:
    return [dict(zip(rules.TABLE, row, strict=True)) for row in table.tolist()]


def spot(row: dict[str, int]) -> tuple[int, ...]:
    return row["source"], row["grid_h"], row["grid_w"], row["place"]


def cosines_of(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Random cosines, about half of them with ties."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(shape, generator=generator) * 2 - 1
    return (values * 2).round() / 2 if seed % 2 else values


def is_newest(rows: list[dict[str, int]]) -> list[bool]:
    newest = {r["source"]: max(o["ordinal"] for o in rows if o["source"] == r["source"]) for r in rows}
    return [r["ordinal"] == newest[r["source"]] for r in rows]


def highest(scores: list[float], count: int) -> set[int]:
    return set(sorted(range(len(scores)), key=lambda n: (-scores[n], n))[:count])


@given(seeds)
def test_tokens_are_compared_with_those_at_their_own_place(seed: int) -> None:
    table = table_of(seed)
    rows = rows_of(table)
    before = [max((m for m in range(n) if spot(rows[m]) == spot(rows[n])), default=-1) for n in range(len(rows))]
    assert rules.previous_at_place(table).tolist() == before
    assert rules.next_token(table).tolist() == [*range(1, len(rows)), -1]
    assert rules.newest_patches(table).tolist() == is_newest(rows)
    groups = [group.tolist() for group in rules.places(table)]
    assert sorted(n for group in groups for n in group) == list(range(len(rows)))
    assert all(group == sorted(group) and len({spot(rows[n]) for n in group}) == 1 for group in groups)
    assert len({spot(rows[group[0]]) for group in groups}) == len(groups)


def test_an_empty_and_a_single_token_are_tables_too() -> None:
    table = table_of(0)
    for length in (0, 1):
        few = table[:length]
        assert rules.previous_at_place(few).tolist() == rules.next_token(few).tolist() == [-1] * length
        assert [g.tolist() for g in rules.places(few)] == [[0]] * length
        assert rules.newest_patches(few).tolist() == [True] * length
    assert rules.column(table, "place").tolist() == [row["place"] for row in rows_of(table)]


@given(seeds, st.integers(1, 20))
def test_pairs_of_neighbours_decide(seed: int, budget: int) -> None:
    length = budget + 1 + seed % 7
    similarity = cosines_of(seed, (length,))
    similarity[-1] = 9.0  # to be ignored
    pairs = similarity[:-1].tolist()
    gone = highest(pairs, length - budget)
    assert rules.keep_paper(similarity, budget).tolist() == [n for n in range(length) if n not in gone]
    lowest = highest([-value for value in pairs], budget)
    assert rules.keep_released(similarity, budget).tolist() == sorted(n + 1 for n in lowest)
    assert rules.merge_bounds_released(similarity, budget).tolist() == [0, *sorted(n + 1 for n in lowest)]
    cuts = highest([-value for value in pairs], budget - 1)
    assert rules.merge_bounds(similarity, budget).tolist() == [0, *sorted(n + 1 for n in cuts), length]


@given(seeds, st.floats(0.2, 0.99))
def test_place_drops_what_looks_as_before_but_nothing_new(seed: int, share: float) -> None:
    table = table_of(seed)
    rows, similarity = rows_of(table), cosines_of(seed, (len(table),))
    budget = max(1, int(share * len(rows)))
    before = rules.previous_at_place(table).tolist()
    scores = [-3.0 if new else -2.0 if before[n] < 0 else float(similarity[n]) for n, new in enumerate(is_newest(rows))]
    gone = highest(scores, len(rows) - budget)
    assert rules.keep_place(similarity, table, budget).tolist() == [n for n in range(len(rows)) if n not in gone]


@given(seeds, st.floats(0.2, 0.99), st.booleans())
def test_ends_drops_what_lies_between_its_likes(seed: int, share: float, some_wanted: bool) -> None:
    table = table_of(seed)
    rows, groups = rows_of(table), rules.places(table)
    cosines = []
    for number, group in enumerate(groups):
        values = cosines_of(seed + number, (len(group), len(group)))
        cosines.append((values + values.T) / 2)
    wanted = torch.tensor(sorted(random.Random(seed).sample(range(len(rows)), len(rows) // 3)))
    budget = max(1, int(share * len(rows)))
    among = {int(n): (g, i) for g, group in enumerate(groups) for i, n in enumerate(group)}
    whole, kept = is_newest(rows), set(range(len(rows)))

    def score(n: int) -> float:
        if whole[n] or (some_wanted and n in wanted.tolist()):
            return -3.0
        number, at = among[n]
        likes = [(int(m), float(cosines[number][at, i])) for i, m in enumerate(groups[number]) if int(m) in kept]
        earlier, later = [c for m, c in likes if m < n], [c for m, c in likes if m > n]
        return min(max(earlier, default=-1.0), max(later, default=-1.0))

    while len(kept) > budget:
        kept.discard(max(sorted(kept), key=lambda n: (score(n), -n)))
    found = rules.keep_ends(groups, cosines, table, budget, wanted if some_wanted else None)
    assert found.tolist() == sorted(kept)


@given(seeds, st.sampled_from([-0.5, 0.0, 0.5]))
def test_a_dropped_token_repeats_the_kept_one_that_it_resembles_step_by_step(seed: int, threshold: float) -> None:
    table = table_of(seed)
    rows, similarity = rows_of(table), cosines_of(seed, (len(table),))
    keep = torch.tensor(sorted(random.Random(seed).sample(range(len(rows)), max(1, len(rows) // 2))))
    before, kept = rules.previous_at_place(table).tolist(), set(keep.tolist())

    def owner(n: int) -> int:
        while n not in kept:
            if before[n] < 0 or similarity[n] < threshold:
                return -1
            n = before[n]
        return n

    expected = [-1 if n in kept else owner(n) for n in range(len(rows))]
    assert rules.absorbed(similarity, table, keep, threshold).tolist() == expected


def whole_patches(rows: list[dict[str, int]], order: list[tuple[int, int]], budget: int) -> list[int]:
    """Positions of whole patches, (source, ordinal) each, in this order until one no longer fits."""
    kept: list[int] = []
    for patch in order:
        mine = [n for n, row in enumerate(rows) if (row["source"], row["ordinal"]) == patch]
        if len(kept) + len(mine) > budget:
            return sorted(kept) if kept else mine[-budget:]
        kept += mine
    return sorted(kept)


def hashed(value: int) -> int:
    """SplitMix64's finaliser on 63 bits. Changing it changes what memories of the rule `uniform` keep."""
    mask = (1 << 63) - 1
    value = (value + 0x1E3779B97F4A7C15) & mask
    value = ((value ^ (value >> 30)) * 0x3F58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x14D049BB133111EB) & mask
    return value ^ (value >> 31)


@given(seeds, st.integers(1, 40), st.integers(0, 5))
def test_rules_of_patches_keep_them_whole_in_their_order(seed: int, budget: int, choice: int) -> None:
    rows = rows_of(table := table_of(seed, patches=16))
    arrived = list(dict.fromkeys((row["source"], row["ordinal"]) for row in rows))
    assert rules.keep_fifo(table, budget).tolist() == whole_patches(rows, arrived[::-1], budget)
    last = arrived[::-1][: choice + 1]
    recent = [n for n in whole_patches(rows, arrived[::-1], budget) if (rows[n]["source"], rows[n]["ordinal"]) in last]
    assert rules.keep_recent(table, choice + 1, budget).tolist() == recent
    newest = {(row["source"], row["ordinal"]) for row, new in zip(rows, is_newest(rows), strict=True) if new}

    def priority(patch: tuple[int, int]) -> tuple[int, int]:
        source, ordinal = patch
        level = 64 if patch in newest else (ordinal & -ordinal).bit_length() - 1 if ordinal else 63
        return -level, hashed(ordinal * 65_537 + source + choice * 1_000_003)

    order = sorted(sorted(arrived), key=priority)
    assert rules.keep_uniform(table, budget, choice).tolist() == whole_patches(rows, order, budget)
