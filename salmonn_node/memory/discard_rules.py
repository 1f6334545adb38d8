"""Discard rules: which tokens a full memory drops. Each rule maps similarities or the token table to kept positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from salmonn_node.memory.token_batch import COLUMNS

# What each rule does when the memory exceeds its budget.
RULES = {
    "paper": "drops tokens that resemble the next token of the stream, as the paper states it",
    "released": "keeps tokens that differ from the one before them, as the public release does it",
    "place": "drops tokens that resemble what was kept before at the same place of the picture",
    "ends": "of all tokens that are alike at a place of the picture, keeps the first and the last",
    "events": "keeps the tokens of the sights and sounds that the event memory keeps, and the rest as `ends` does",
    "merge": "averages runs of similar neighbours into one token each",
    "merge_released": "averages runs as the public release does it: the newest tokens are lost",
    "uniform": "keeps whole patches, evenly spaced over the stream",
    "fifo": "drops the oldest patches",
    "recent": "keeps the last few patches only",
}
# Rules that compare the cosines of tokens. The other rules only look at patches.
SIMILARITY_RULES = ("paper", "released", "place", "ends", "events", "merge", "merge_released")
# Rules that extend the span and the count of a kept token over the repetitions they drop.
COVERING_RULES = ("place", "ends", "events")
MERGE_RULES = ("merge", "merge_released")

# Columns of a token in the memory: those of the batch, and the number of its patch among the patches of its source.
TABLE = (*COLUMNS, "ordinal")
_COLUMN = {name: i for i, name in enumerate(TABLE)}


def column(table: Tensor, name: str) -> Tensor:
    """(F,) int64: one named column of the (F, 11) table of tokens."""
    return table[:, _COLUMN[name]]


def next_token(table: Tensor) -> Tensor:
    """(F,) int64: for token n, the position of its raster neighbour n + 1. -1 for the last token."""
    partner = torch.arange(1, len(table) + 1)
    partner[-1:] = -1
    return partner


def previous_at_place(table: Tensor) -> Tensor:
    """(F,) int64: for token n, the position of the previous token with the same source, grid and place, or -1."""
    order, same = _by_place(table)
    partner = torch.full((len(table),), -1, dtype=torch.int64)
    partner[order[1:]] = torch.where(same, order[:-1], -1)
    return partner


def _by_place(table: Tensor) -> tuple[Tensor, Tensor]:
    """Positions sorted by (source, grid, place, position), and for each but the first: same place as the one before?"""
    order = torch.arange(len(table))
    keys = [column(table, name) for name in ("place", "grid_w", "grid_h", "source")]
    for key in keys:  # stable sort by each key in turn, the most significant key last
        order = order[torch.sort(key[order], stable=True).indices]
    same = torch.ones(max(len(table) - 1, 0), dtype=torch.bool)
    for key in keys:
        same &= key[order[1:]] == key[order[:-1]]
    return order, same


def newest_patches(table: Tensor) -> Tensor:
    """(F,) bool: whether the token belongs to the newest patch of its source."""
    source, ordinal = column(table, "source"), column(table, "ordinal")
    mask = torch.zeros(len(table), dtype=torch.bool)
    for value in source.unique():
        mine = source == value
        mask |= mine & (ordinal == ordinal[mine].max())
    return mask


def _largest(values: Tensor, count: int) -> Tensor:
    """Positions of the `count` largest values. Ties go to the lower position."""
    return torch.sort(values, descending=True, stable=True).indices[:count]


def _smallest(values: Tensor, count: int) -> Tensor:
    """Positions of the `count` smallest values, in ascending order. Ties go to the lower position."""
    return torch.sort(torch.sort(values, stable=True).indices[:count]).values


def keep_paper(similarity: Tensor, budget: int) -> Tensor:
    """Rule `paper`: drop token n of the F - N pairs (n, n + 1) with the largest cosine. The last token always stays.

    Args:
        similarity: (F,) float32, cosine of token n with token n + 1. The last entry is ignored.
        budget: number of tokens to keep, N.

    Returns:
        (N,) int64 kept positions, ascending.
    """
    keep = torch.ones(len(similarity), dtype=torch.bool)
    keep[_largest(similarity[:-1], len(similarity) - budget)] = False
    return keep.nonzero()[:, 0]


def keep_released(similarity: Tensor, budget: int) -> Tensor:
    """Rule `released`: keep token n + 1 of the N pairs with the smallest cosine. Position 0 is always dropped.

    This is what the public release does. Arguments and result are those of `keep_paper`.
    """
    return _smallest(similarity[:-1], budget) + 1


def keep_place(similarity: Tensor, table: Tensor, budget: int) -> Tensor:
    """Rule `place`: drop the F - N tokens most similar to the token kept before them at the same place and source.

    The rule drops the later token of a pair. So it keeps the moment at which a place began to look as it does. Slow
    drift adds up against that moment, so it is noticed in the end. The newest patch of each source stays whole.

    Args:
        similarity: (F,) float32, cosine of token n with the previous token at its place. Ignored if there is none.
        table: (F, 11) int64 table of tokens.
        budget: number of tokens to keep, N.

    Returns:
        (N,) int64 kept positions, ascending.
    """
    score = similarity.clone()
    score[previous_at_place(table) < 0] = -2.0
    score[newest_patches(table)] = -3.0
    keep = torch.ones(len(score), dtype=torch.bool)
    keep[_largest(score, len(score) - budget)] = False
    return keep.nonzero()[:, 0]


def places(table: Tensor) -> list[Tensor]:
    """Group token positions by source, grid and place, ascending. `keep_ends` compares tokens within a group."""
    order, same = _by_place(table)
    starts = [0, *((~same).nonzero()[:, 0] + 1).tolist(), len(table)] if len(table) else [0]
    return [order[a:b] for a, b in zip(starts, starts[1:], strict=False)]


def keep_ends(
    groups: Sequence[Tensor], cosines: Sequence[Tensor], table: Tensor, budget: int, wanted: Tensor | None = None
) -> Tensor:
    """Rule `ends`: drop, one by one, the F - N tokens most similar to both an earlier and a later one at their place.

    The score of a token is the smaller of two numbers: its largest cosine with an earlier token, and its largest
    cosine with a later token. So among similar tokens at a place, the first and the last stay. It does not matter
    how often the thing returns, or what comes in between, such as silence. The newest patch of each source stays
    whole.

    Args:
        groups: token positions of each place, see `places`.
        cosines: for each group of g tokens, (g, g) float32.
        table: (F, 11) int64 table of tokens.
        budget: number of tokens to keep, N.
        wanted: positions to keep as long as others can go. `events` passes the tokens of its events.

    Returns:
        (N,) int64 kept positions, ascending.
    """
    group, inside = np.empty(len(table), np.int64), np.empty(len(table), np.int64)
    score = np.empty(len(table), np.float32)
    members = [g.numpy() for g in groups]
    # Rows: largest cosine with an earlier token and with a later token. -1 means none, or that the token was dropped.
    sides: list[tuple[np.ndarray, np.ndarray]] = []
    nearest: list[tuple[np.ndarray, np.ndarray]] = []
    for number, (mine, cosine) in enumerate(zip(members, cosines, strict=True)):
        group[mine], inside[mine] = number, np.arange(len(mine))
        values = cosine.numpy()
        before = np.tri(len(mine), k=-1, dtype=bool)
        sides.append((np.where(before, values, -1.0), np.where(before.T, values, -1.0)))
        nearest.append((sides[-1][0].argmax(1), sides[-1][1].argmax(1)))
        score[mine] = np.minimum(sides[-1][0].max(1), sides[-1][1].max(1))
    score[newest_patches(table).numpy()] = -3.0
    if wanted is not None:
        score[wanted.numpy()] = -3.0
    for _ in range(len(table) - budget):
        gone = int(score.argmax())
        score[gone] = -4.0
        number, column_gone = group[gone], inside[gone]
        mine, (early, late) = members[number], sides[number]
        early[:, column_gone] = late[:, column_gone] = -1.0
        early_nearest, late_nearest = nearest[number]
        lost = ((early_nearest == column_gone) | (late_nearest == column_gone)).nonzero()[0]
        if not len(lost):
            continue
        early_nearest[lost], late_nearest[lost] = early[lost].argmax(1), late[lost].argmax(1)
        now = np.minimum(early[lost, early_nearest[lost]], late[lost, late_nearest[lost]])
        score[mine[lost]] = np.where(score[mine[lost]] <= -3.0, score[mine[lost]], now)
    return torch.from_numpy((score > -4.0).nonzero()[0])


def absorbed(similarity: Tensor, table: Tensor, keep: Tensor, threshold: float) -> Tensor:
    """(F,) int64: for each token dropped by `place` or `ends`, the kept position that it repeats, or -1.

    A token repeats the kept token before it at its place if each step between the two has a cosine of at least
    `threshold`.
    """
    kept = torch.zeros(len(table), dtype=torch.bool)
    kept[keep] = True
    order, same = _by_place(table)
    anchor = kept | (similarity < threshold)
    anchor[order[torch.cat([torch.ones(1, dtype=torch.bool), ~same])]] = True
    steps = torch.arange(len(table))
    head = order[torch.cummax(torch.where(anchor[order], steps, -1), 0).values]
    result = torch.full((len(table),), -1, dtype=torch.int64)
    result[order] = torch.where(kept[head] & ~kept[order], head, -1)
    return result


def merge_bounds(similarity: Tensor, budget: int) -> Tensor:
    """(N + 1,) int64: bounds of the N segments that `merge` averages. Segments end where neighbours differ most.

    Args:
        similarity: (F,) float32, cosine of row n with row n + 1. The last entry is ignored.
        budget: number of segments, N.
    """
    inner = _smallest(similarity[:-1], budget - 1) + 1
    return torch.cat([torch.zeros(1, dtype=torch.int64), inner, torch.tensor([len(similarity)])])


def merge_bounds_released(similarity: Tensor, budget: int) -> Tensor:
    """(N + 1,) int64: the segment bounds of the public release. Rows after the last bound are lost."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), _smallest(similarity[:-1], budget) + 1])


def _patches(table: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Source and ordinal of each patch (P, 2), its order of arrival, its token count, and each token's patch (F,)."""
    keys = (column(table, "source") << 40) + column(table, "ordinal")
    unique, inverse, tokens = torch.unique(keys, return_inverse=True, return_counts=True)
    patches = torch.stack([unique >> 40, unique & ((1 << 40) - 1)], dim=1)
    first = torch.full((len(patches),), len(table), dtype=torch.int64)
    first.scatter_reduce_(0, inverse, torch.arange(len(table)), "amin")
    return patches, first, tokens, inverse


def _keep_patches(table: Tensor, priority: Tensor, budget: int) -> Tensor:
    """Positions of the tokens of whole patches, taken in order of `priority` (P,) until the budget is full."""
    _, _, tokens, inverse = _patches(table)
    order = torch.sort(priority, stable=True).indices
    fits = tokens[order].cumsum(0) <= budget
    if not bool(fits[0]):  # the first patch exceeds the budget: keep its newest tokens
        return (inverse == order[0]).nonzero()[-budget:, 0]
    chosen = torch.zeros(len(order), dtype=torch.bool)
    chosen[order[fits]] = True
    return chosen[inverse].nonzero()[:, 0]


def keep_fifo(table: Tensor, budget: int) -> Tensor:
    """Rule `fifo`: drop the oldest whole patches. At most N tokens stay."""
    _, first, _, _ = _patches(table)
    return _keep_patches(table, -first, budget)


def keep_recent(table: Tensor, patches: int, budget: int) -> Tensor:
    """Rule `recent`: keep the last `patches` patches of the stream, and at most N tokens."""
    _, first, _, inverse = _patches(table)
    rank = torch.empty_like(first)
    rank[torch.sort(first, descending=True).indices] = torch.arange(len(first))
    keep = keep_fifo(table, budget)
    return keep[rank[inverse[keep]] < patches]


def keep_uniform(table: Tensor, budget: int, seed: int) -> Tensor:
    """Rule `uniform`: keep whole patches, evenly spaced over the stream so far, for each source on its own.

    This is a reservoir with nested levels. The level of patch number o of a source is the number of trailing zero
    bits of o. Higher levels stay longer. Within the level that fits only in part, a seeded hash decides. So gaps
    differ by at most a factor of two (plus one step), and a dropped patch is never needed again. The newest patch of
    each source stays.
    """
    patches, _, _, inverse = _patches(table)
    source, ordinal = patches.unbind(1)
    level = torch.full_like(ordinal, 63)
    for bit in range(62, -1, -1):
        level[(ordinal >> bit) & 1 == 1] = bit
    newest = torch.zeros(len(patches), dtype=torch.bool)
    newest[inverse[newest_patches(table)]] = True
    level[newest] = 64
    by_hash = torch.sort(_hash(ordinal * 65_537 + source + seed * 1_000_003), stable=True).indices
    order = by_hash[torch.sort(level[by_hash], descending=True, stable=True).indices]
    priority = torch.empty_like(order)
    priority[order] = torch.arange(len(order))
    return _keep_patches(table, priority, budget)


def _hash(values: Tensor) -> Tensor:
    """Hash int64 values with the finaliser of SplitMix64. The sign bit is cleared between steps."""
    mask = (1 << 63) - 1
    values = (values + 0x1E3779B97F4A7C15) & mask
    values = ((values ^ (values >> 30)) * 0x3F58476D1CE4E5B9) & mask
    values = ((values ^ (values >> 27)) * 0x14D049BB133111EB) & mask
    return values ^ (values >> 31)
