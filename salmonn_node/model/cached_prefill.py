"""Cached prefill (`prefill: cached`): read the memory before a question comes, so a question costs only its own tokens.

Prompt rows are computed in chunks of fixed size, without a question, as soon as the position of their block is final. A
row attends to the tokens that the memory holds at that moment. Tokens dropped later leave the cache, but rows that
attended to them keep a trace. So the cache is state. You cannot rebuild it from the memory, and it differs from reading
the whole prompt (`prefill: exact`). Rows are computed again if their features change (merged sound) or their positions
move. The prompt-dependent reader does not work with the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

from salmonn_node.memory.stream_memory import StoredPart, StreamMemory
from salmonn_node.model.assembly import Prompt, embed_prompt, prompt_of
from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.language import AttentionRecord, LanguageModel
from salmonn_node.model.prefill_cache import Key, PrefillCache
from salmonn_node.model.reader import Reading
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.timeline import Timeline
from salmonn_node.model.tokenizer import TextTokenizer

PART = "prefill"
PREFIX, TEXT, VISUAL, AUDIO = range(4)


class CachedPrefill:
    """Keep the prefill cache of memories up to date, and read questions with it.

    Args:
        config: configuration of the network. `cached_chunk` rows are computed at a time.
        language: the language model.
        tokenizer: tokenizer of the checkpoint.
    """

    def __init__(self, config: SalmonnConfig, language: LanguageModel, tokenizer: TextTokenizer) -> None:
        self.config, self.language, self.tokenizer = config, language, tokenizer

    def of(self, memory: StreamMemory) -> PrefillCache:
        """Return the cache of a memory. At first use, create it or read it from the stored state."""
        part = memory.parts.get(PART)
        if isinstance(part, PrefillCache):
            return part
        cache = PrefillCache(self.language.layers)
        if isinstance(part, StoredPart):
            cache = PrefillCache.from_tensors(part.tensors, part.meta)
        memory.parts[PART] = cache
        return cache

    def follow(self, memory: StreamMemory, timeline: Timeline) -> None:
        """Compute the rows that became final since the last call, if they fill a chunk."""
        if timeline.rows - timeline.read_until < self.config.cached_chunk:
            return
        timeline.read_until = timeline.rows
        laid, after = timeline.layout()
        view = SceneView.of(memory.view(), laid, after)
        prompt = prompt_of(view, "", self.tokenizer, self.config)
        if len(view) and self.usable(prompt):
            self.advance(self.of(memory), prompt, view, settled_rows(prompt, view, len(timeline.closed)))

    def usable(self, prompt: Prompt) -> bool:
        """Whether a prompt begins like the cached one. User text before the memory moves every position."""
        chat = self.config.chat
        prefix = self.tokenizer.encode(chat.opening + chat.before_video)
        return prompt.ids[: len(prefix)].tolist() == prefix and int(prompt.block[len(prefix)]) >= 0

    @torch.no_grad()
    def advance(self, cache: PrefillCache, prompt: Prompt, view: SceneView, settled: Tensor) -> None:
        """Drop rows that left the memory, and compute new rows in whole chunks.

        Args:
            cache: changed in place.
            prompt: prompt of the whole memory, with any question.
            view: the view that the prompt was made from.
            settled: (L,) bool, rows that may be computed, see `settled_rows`.
        """
        chunk, keys = self.config.cached_chunk, row_keys(prompt, view)
        cache.keep(keys)
        known = set(cache.keys)
        new = [i for i in settled.nonzero()[:, 0].tolist() if keys[i] not in known]
        if len(new) < chunk:
            return
        tokens = embed_prompt(prompt, view, self.language)
        place = {key: i for i, key in enumerate(keys)}
        for start in range(0, len(new) // chunk * chunk, chunk):
            wanted = new[start : start + chunk]
            # Cache rows are in order of computation. The mask lets a row attend to rows before it in the prompt.
            order = torch.tensor([place[key] for key in cache.keys] + wanted, device=tokens.embeddings.device)
            mask = order[None, :] <= order[-chunk:, None]
            hidden = self.language(tokens.select(torch.tensor(wanted)), cache.cache, mask=mask[None, None])
            cache.append([keys[i] for i in wanted], hidden)

    def read(self, cache: PrefillCache, prompt: Prompt, view: SceneView) -> Reading:
        """Read a question's prompt: reuse the cached rows, then compute all other rows in order."""
        keys = row_keys(prompt, view)
        place = {key: i for i, key in enumerate(cache.keys)}
        cached = [i for i, key in enumerate(keys) if key in place]
        missing = [i for i, key in enumerate(keys) if key not in place]
        copy = cache.cache.copy(torch.tensor([place[keys[i]] for i in cached], dtype=torch.int64))
        tokens = embed_prompt(prompt, view, self.language)
        record = AttentionRecord()
        fresh = self.language.prefill(tokens.select(torch.tensor(missing)), copy, record)
        hidden = torch.zeros(len(prompt), fresh.shape[1], dtype=fresh.dtype, device=fresh.device)
        hidden[missing] = fresh
        if cached and cache.hidden is not None:
            hidden[cached] = cache.hidden[[place[keys[i]] for i in cached]]
        rows = torch.tensor([*cached, *missing])
        return Reading(copy, hidden, [rows] * self.language.layers, record)


def row_keys(prompt: Prompt, view: SceneView) -> list[Key]:
    """Identify each row of a prompt by kind, number, version and its three positions.

    Rows with equal keys have equal inputs, apart from the rows before them.
    """
    visual, audio = view.visual, view.audio
    seen = visual.index.tolist() if visual is not None else []
    heard = audio.index.tolist() if audio is not None else []
    counts = audio.count.tolist() if audio is not None and audio.count is not None else []
    blocks = [b.patch if b.patch >= 0 else -2 - b.start_ns for b in view.blocks]
    positions = prompt.positions.T.tolist()
    keys: list[Key] = []
    ordinal: dict[int, int] = {}
    ids = prompt.ids.tolist()
    for i, (memory, block) in enumerate(zip(prompt.memory.tolist(), prompt.block.tolist(), strict=True)):
        if memory >= prompt.visual_tokens:
            j = memory - prompt.visual_tokens
            kind = (AUDIO, heard[j], counts[j])
        elif memory >= 0:
            kind = (VISUAL, seen[memory], 0)
        elif block >= 0:
            kind = (TEXT, blocks[block], ordinal.get(block, 0))
            ordinal[block] = ordinal.get(block, 0) + 1
        elif i < prompt.question_start - 1:
            kind = (PREFIX, i, ids[i])
        else:
            kind = (-1, i, 0)
        keys.append((*kind, *positions[i]))
    return keys


def settled_rows(prompt: Prompt, view: SceneView, closed: int) -> Tensor:
    """(L,) bool: rows that will not change, which are the prefix and committed rows of the first `closed` blocks.

    The mask ends at the first row that may still change, because a row needs all rows before it in the cache.
    """
    committed = torch.cat([view.visual_committed, view.audio_committed, torch.ones(1, dtype=torch.bool)])
    inside = (prompt.block >= 0) & (prompt.block < closed)
    prefix = (prompt.block < 0) & (torch.arange(len(prompt)) < prompt.question_start - 1)
    return ((inside | prefix) & committed[prompt.memory]).cumprod(0).bool()
