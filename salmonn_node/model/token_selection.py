"""Token selection of the prompt-dependent reader: score memory tokens and keep the best after each group of context.

These are the rules of `model/reader.py` for one layer and one sequence. Shapes are (heads, tokens, head_dim). The
module does not depend on a model class.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Score of a text token. Text is always kept, so its score must never displace a memory token.
TEXT_SCORE = -1e5


@dataclass(frozen=True)
class Group:
    """A group of context tokens that are read at once.

    Attributes:
        start, end: positions [start, end) in the context.
        memory_size: number of memory tokens that a layer holds after the group, msize.
    """

    start: int
    end: int
    memory_size: int


def groups(is_memory: Tensor, group_tokens: int, working_tokens: int) -> Iterator[Group]:
    """Cut a context into groups of G tokens, with msize = min(M, memory tokens up to the end of the group).

    Args:
        is_memory: (C,) bool, False for text.
        group_tokens: G.
        working_tokens: M.
    """
    seen = is_memory.long().cumsum(0)
    for start in range(0, len(is_memory), group_tokens):
        end = min(start + group_tokens, len(is_memory))
        yield Group(start, end, min(int(seen[end - 1]), working_tokens))


def dot_scores(queries: Tensor, keys: Tensor, normalised: bool = False) -> Tensor:
    """Mean of q . k over query heads and rows, before the rotary embedding, without 1/sqrt(d) and softmax.

    Args:
        queries: (H, Q, d) of the question's scoring rows.
        keys: (H_kv, T, d) of the new tokens. H is a multiple of H_kv; query head h uses key head h // (H / H_kv).
        normalised: use q / |q| and k / |k|, as the release does with a diversity term.

    Returns:
        (T,) float32.

    Raises:
        ValueError: no query rows, or heads that do not divide.
    """
    per_key_head = _per_key_head(queries, keys)
    q, k = queries.float(), keys.float()
    if normalised:
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    # The mean over heads and rows commutes with the product, so queries are averaged first.
    mean = q.unflatten(0, (-1, per_key_head)).mean(dim=(1, 2))
    return torch.einsum("hd,htd->t", mean, k) / keys.shape[0]


def attention_scores(queries: Tensor, keys: Tensor, first_query: int, cached: int) -> Tensor:
    """Attention of the question to each new token in the same pass. Not part of the release.

    Causal softmax over cached and new keys, after the rotary embedding, with 1/sqrt(d); mean over heads and rows.

    Args:
        queries: (H, Q, d) of the question's scoring rows, rotated. Row i is at position `first_query` + i of `keys`.
        keys: (H_kv, T_cached + T, d), rotated: the cache, then the new tokens.
        first_query: position in `keys` of the first query row.
        cached: T_cached.

    Returns:
        (T,) float32 scores of the new tokens.

    Raises:
        ValueError: no query rows, or heads that do not divide.
    """
    per_key_head = _per_key_head(queries, keys)
    q = queries.float().unflatten(0, (-1, per_key_head))  # (H_kv, H / H_kv, Q, d)
    logits = q @ keys.float().transpose(1, 2)[:, None] * queries.shape[-1] ** -0.5
    place = first_query + torch.arange(queries.shape[1], device=keys.device)
    hidden = torch.arange(keys.shape[1], device=keys.device)[None] > place[:, None]
    weights = logits.masked_fill(hidden, float("-inf")).softmax(-1)
    return weights.mean(dim=(0, 1, 2))[cached:]


def _per_key_head(queries: Tensor, keys: Tensor) -> int:
    if queries.dim() != 3 or queries.shape[1] == 0:
        raise ValueError(f"queries: expected (H, Q, d) with at least one row, got {tuple(queries.shape)}")
    if keys.dim() != 3 or keys.shape[2] != queries.shape[2]:
        raise ValueError(f"keys: expected (H_kv, T, {queries.shape[2]}), got {tuple(keys.shape)}")
    if queries.shape[0] % keys.shape[0]:
        raise ValueError(f"keys: {keys.shape[0]} heads do not divide the {queries.shape[0]} of queries")
    return queries.shape[0] // keys.shape[0]


def diversity_term(hidden: Tensor, delta: float) -> Tensor:
    """Diversity term added to the scores: -delta / 2 (c_{j-1} + c_j), c_j the cosine of hidden states j and j + 1.

    Args:
        hidden: (T, D), hidden states of the pass [group ; question] after the layer's input norm.
        delta: weight.

    Returns:
        (T,) float32. A missing neighbour counts as a cosine of 1.
    """
    cosine = F.cosine_similarity(hidden[:-1].float(), hidden[1:].float(), dim=-1)
    one = cosine.new_ones(1)
    return -0.5 * delta * (torch.cat([one, cosine]) + torch.cat([cosine, one]))


@dataclass(frozen=True, eq=False)
class Selection:
    """Tokens that a layer keeps after a group. It is the argument `cached` of the next `select`.

    Attributes:
        positions: (n,) int64, ascending positions in [cached ; new] whose keys and values stay.
        scores: (n,) float32 scores of these positions. A token is scored once, when it is new.
        is_memory: (n,) bool, False for text.
    """

    positions: Tensor
    scores: Tensor
    is_memory: Tensor


def nothing_cached(device: torch.device | None = None) -> Selection:
    """The selection before the first group."""
    return Selection(
        torch.empty(0, dtype=torch.int64, device=device),
        torch.empty(0, device=device),
        torch.empty(0, dtype=torch.bool, device=device),
    )


def select(scores: Tensor, is_memory: Tensor, question: int, memory_size: int, cached: Selection) -> Selection:
    """Keep the `memory_size` best memory tokens among cached and new ones, and all text.

    The question's own keys are removed. Ties go to the earlier position.

    Args:
        scores: (T,), scores of the new tokens [group ; question]. Scores of text are ignored.
        is_memory: (T,) bool of the new tokens.
        question: number of question tokens at the end of the new tokens.
        memory_size: msize of this group.
        cached: the selection after the previous group.

    Raises:
        ValueError: shapes differ, the question is longer than the pass, or a score is not finite.
    """
    if scores.shape != is_memory.shape or scores.dim() != 1:
        raise ValueError(f"scores, is_memory: shapes {tuple(scores.shape)} and {tuple(is_memory.shape)} differ")
    if not 0 <= question <= len(scores):
        raise ValueError(f"question: {question} is not a number of the {len(scores)} new tokens")
    group = len(scores) - question
    flags = torch.cat([cached.is_memory, is_memory[:group].bool()])
    all_scores = torch.cat([cached.scores, new_scores(scores, is_memory)[:group]])
    if not bool(torch.isfinite(all_scores).all()):
        raise ValueError("scores: contains NaN or Inf")
    ranked = torch.sort(torch.where(flags, all_scores, float("-inf")), descending=True, stable=True).indices
    keep = ~flags
    keep[ranked[: min(memory_size, int(flags.sum()))]] = True
    positions = keep.nonzero()[:, 0]
    return Selection(positions, all_scores[positions], flags[positions])


def new_scores(scores: Tensor, is_memory: Tensor) -> Tensor:
    """(T,) float32: the scores, with those of text set to `TEXT_SCORE`."""
    return torch.where(is_memory.bool(), scores.float(), TEXT_SCORE)
