"""Reader: read a prompt into keys and values, either all of it or only the memory tokens that matter to the question.

The second is the prompt-dependent reader of video-SALMONN S. The language model reads [group ; question] group by
group. Each layer keeps the memory tokens that the question's queries score highest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from salmonn_node.model import token_selection as rules
from salmonn_node.model.assembly import Prompt
from salmonn_node.model.config import ReaderConfig
from salmonn_node.model.kv_cache import KVCache
from salmonn_node.model.language import AttentionRecord, Captured, LanguageModel, PromptTokens
from salmonn_node.model.token_selection import Selection


@dataclass
class Reading:
    """A prompt that has been read.

    Attributes:
        cache: keys and values that the answer attends to.
        hidden: (L, D) normed hidden states of the prompt's rows.
        rows: for each layer, the prompt row of each cache row.
        record: attention of the last prompt row.
        scores: (L,) reader scores of the prompt's rows, or None.
        history: after each group, for each layer, what the reader kept and which prompt rows those are.
    """

    cache: KVCache
    hidden: Tensor
    rows: list[Tensor]
    record: AttentionRecord
    scores: Tensor | None = None
    history: list[list[tuple[Selection, Tensor]]] = field(default_factory=list)


def read(language: LanguageModel, prompt: Prompt, tokens: PromptTokens, reader: ReaderConfig) -> Reading:
    """Read a prompt. Read selectively if the reader's budget is smaller than the number of memory tokens."""
    memory_tokens = int((prompt.memory >= 0).sum())
    if 0 < reader.working_tokens < memory_tokens:
        return read_selectively(language, prompt, tokens, reader)
    cache, record = KVCache(language.layers), AttentionRecord()
    hidden = language.prefill(tokens, cache, record)
    rows = torch.arange(len(prompt))
    return Reading(cache, hidden, [rows] * language.layers, record)


def read_selectively(language: LanguageModel, prompt: Prompt, tokens: PromptTokens, reader: ReaderConfig) -> Reading:
    """Read the context in groups, each together with the whole question. Then read the question alone.

    After each group, every layer keeps its best `working_tokens` memory tokens and all text. The question's keys and
    values leave the cache after each group. They stay after the last pass.
    """
    start, length = prompt.question_start, len(prompt)
    question = tokens.slice(start, length)
    scoring = prompt.score_end - start
    is_memory = (prompt.memory >= 0).to(tokens.embeddings.device)
    layers = language.layers
    cache = KVCache(layers)
    kept = [rules.nothing_cached(tokens.embeddings.device) for _ in range(layers)]
    rows = [torch.zeros(0, dtype=torch.int64, device=tokens.embeddings.device) for _ in range(layers)]
    hidden: list[Tensor] = []
    history: list[list[tuple[Selection, Tensor]]] = []
    for group in rules.groups(is_memory[:start], reader.group_tokens, reader.working_tokens):
        new = PromptTokens.cat(tokens.slice(group.start, group.end), question)
        flags = torch.cat([is_memory[group.start : group.end], is_memory[start:]])
        size, cached = group.end - group.start, len(cache)
        with language.capture() as captured:
            hidden.append(language(new, cache)[:size])
        here = torch.arange(group.start, group.end, device=rows[0].device)
        for layer in range(layers):
            scores = _scores(captured, cache, layer, size, scoring, cached, reader)
            kept[layer] = rules.select(scores, flags, len(question), group.memory_size, kept[layer])
            rows[layer] = torch.cat([rows[layer], here])[kept[layer].positions]
        history.append(list(zip(kept, rows, strict=True)))
        cache.select([selection.positions for selection in kept])
    record = AttentionRecord()
    hidden.append(language(question, cache, record))
    rest = torch.arange(start, length, device=rows[0].device)
    return Reading(
        cache,
        torch.cat(hidden),
        [torch.cat([r, rest]) for r in rows],
        record,
        _mean_scores(kept, rows, length),
        history,
    )


def _scores(
    captured: Captured, cache: KVCache, layer: int, group: int, scoring: int, cached: int, reader: ReaderConfig
) -> Tensor:
    """(T,): scores of the new tokens of a pass [group ; question] in one layer."""
    asking = slice(group, group + scoring)
    if reader.score == "attention":
        queries = captured.rotated[layer][0, :, asking]
        scores = rules.attention_scores(queries, cache.keys(layer)[0], cached + group, cached)
    else:
        queries = captured.queries[layer][0, :, asking]
        scores = rules.dot_scores(queries, captured.keys[layer][0], normalised=reader.div_factor > 0)
    if reader.div_factor > 0:
        scores = scores + rules.diversity_term(captured.hidden[layer], reader.div_factor)
    return scores


def _mean_scores(kept: list[Selection], rows: list[Tensor], length: int) -> Tensor:
    """(L,): mean score over the layers that kept a row, -inf for rows that no layer kept."""
    total = torch.zeros(length, device=rows[0].device)
    count = torch.zeros(length, device=rows[0].device)
    for selection, index in zip(kept, rows, strict=True):
        total.index_add_(0, index, selection.scores)
        count.index_add_(0, index, torch.ones_like(selection.scores))
    return torch.where(count > 0, total / count.clamp(min=1), -torch.inf)
