"""Keys and values of the kept tokens, computed once as memory is committed: a question costs only its own tokens.

A row of the prompt is computed when its block's position is known for good, in chunks of fixed size, without any
question. It attends to what was remembered at that moment; what is dropped later leaves the cache, but what saw it
keeps that trace. So the cache is state: it cannot be rebuilt from the memory, and it does not equal reading the prompt
anew (`prefill: exact`). Rows whose features changed (merged sound) or whose positions moved are computed again. The
prompt-dependent reader is not used with it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from salmonn_node.model.assembly import Prompt, embed_prompt
from salmonn_node.model.generation import Reading
from salmonn_node.model.kv_cache import KVCache
from salmonn_node.model.language import AttentionRecord, LanguageModel
from salmonn_node.model.prompt import USER
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.tokenizer import TextTokenizer

PREFIX, TEXT, VISUAL, AUDIO = range(4)
Key = tuple[int, ...]


class PrefillCache:
    """The cache of one memory; it persists with it as its part `prefill`.

    Attributes:
        computed: rows computed so far.
        invalidated: rows computed again because features or positions changed.
    """

    def __init__(self, layers: int) -> None:
        self.cache = KVCache(layers)
        self.keys: list[Key] = []
        self.hidden: Tensor | None = None
        self.computed = 0
        self.invalidated = 0

    @torch.no_grad()
    def advance(self, language: LanguageModel, prompt: Prompt, view: SceneView, settled: Tensor, chunk: int) -> None:
        """Drop what left the memory, and compute whole chunks of what is new.

        Args:
            language: the language model.
            prompt: of the whole memory, with any question.
            view: that it was made from.
            settled: (L,) bool, rows that may be computed: committed, and of blocks whose position is known for good.
            chunk: rows at a time.
        """
        keys = row_keys(prompt, view)
        rows = self._present(keys)
        if len(rows) < len(self.keys):
            names = {key[:2] for key in keys}
            kept = set(rows)
            self.invalidated += sum(key[:2] in names for i, key in enumerate(self.keys) if i not in kept)
            self._select(rows)
        known = set(self.keys)
        new = [i for i in settled.nonzero()[:, 0].tolist() if keys[i] not in known]
        if len(new) < chunk:
            return
        tokens = embed_prompt(prompt, view, language)
        place = {key: i for i, key in enumerate(keys)}
        for start in range(0, len(new) // chunk * chunk, chunk):
            wanted = new[start : start + chunk]
            device = tokens.embeddings.device
            order = torch.tensor([place[key] for key in self.keys] + wanted, device=device)
            mask = order[None, :] <= order[-chunk:, None]
            hidden = language(tokens.select(torch.tensor(wanted)), self.cache, mask=mask[None, None])
            self.hidden = hidden if self.hidden is None else torch.cat([self.hidden, hidden])
            self.keys += [keys[i] for i in wanted]
            self.computed += chunk

    def read(self, language: LanguageModel, prompt: Prompt, view: SceneView) -> Reading:
        """Read a question's prompt: cached rows as they are, then all others in order."""
        keys = row_keys(prompt, view)
        place = {key: i for i, key in enumerate(self.keys)}
        cached = [i for i, key in enumerate(keys) if key in place]
        missing = [i for i, key in enumerate(keys) if key not in place]
        cache = self.cache.copy(torch.tensor([place[keys[i]] for i in cached], dtype=torch.int64))
        tokens = embed_prompt(prompt, view, language)
        record = AttentionRecord()
        fresh = language.prefill(tokens.select(torch.tensor(missing)), cache, record)
        hidden = torch.zeros(len(prompt), fresh.shape[1], dtype=fresh.dtype, device=fresh.device)
        hidden[missing] = fresh
        if cached and self.hidden is not None:
            hidden[cached] = self.hidden[[place[keys[i]] for i in cached]]
        rows = torch.tensor([*cached, *missing])
        return Reading(cache, hidden, [rows] * language.layers, record)

    def snapshot(self) -> PrefillCache:
        """What a question may read while the stream goes on: rows are appended, or selected into new tensors."""
        other = PrefillCache(self.cache.layers)
        other.cache, other.keys, other.hidden = self.cache.share(), list(self.keys), self.hidden
        return other

    def _present(self, keys: list[Key]) -> list[int]:
        wanted = set(keys)
        return [i for i, key in enumerate(self.keys) if key in wanted]

    def _select(self, rows: list[int]) -> None:
        index = torch.tensor(rows, dtype=torch.int64)
        self.cache.select(index)
        self.keys = [self.keys[i] for i in rows]
        self.hidden = None if self.hidden is None else self.hidden[index]

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The whole state, bit for bit."""
        tensors = self.cache.to_tensors() if self.keys else {}
        if self.hidden is not None and self.keys:
            tensors["hidden"] = self.hidden.contiguous()
        tensors["rows"] = torch.tensor(self.keys, dtype=torch.int64).reshape(len(self.keys), 6)
        return tensors, {"computed": self.computed, "invalidated": self.invalidated, "layers": self.cache.layers}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], meta: dict[str, Any]) -> PrefillCache:
        """Read `to_tensors`'s result."""
        self = cls(int(meta["layers"]))
        self.cache = KVCache.from_tensors(self.cache.layers, tensors)
        self.keys = [tuple(row) for row in tensors["rows"].tolist()]
        self.hidden = tensors.get("hidden")
        self.computed, self.invalidated = int(meta["computed"]), int(meta["invalidated"])
        return self


def row_keys(prompt: Prompt, view: SceneView) -> list[Key]:
    """What a row is: kind, number, version, and position. Equal keys have equal inputs, the rows before apart."""
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


def usable(prompt: Prompt, tokenizer: TextTokenizer) -> bool:
    """Whether a prompt begins as the cached one does: user text before the memory would move every position."""
    prefix = tokenizer.encode(USER)
    return prompt.ids[: len(prefix)].tolist() == prefix and int(prompt.block[len(prefix)]) >= 0


def settled_rows(prompt: Prompt, view: SceneView, closed: int) -> Tensor:
    """(L,) bool: the prefix and the committed rows after it in the first `closed` blocks, which no longer move."""
    committed = torch.cat([view.visual_committed, view.audio_committed, torch.ones(1, dtype=torch.bool)])
    inside = (prompt.block >= 0) & (prompt.block < closed)
    prefix = (prompt.block < 0) & (torch.arange(len(prompt)) < prompt.question_start - 1)
    # Up to the first row that is not: each row must find those before it in the cache.
    return ((inside | prefix) & committed[prompt.memory]).cumprod(0).bool()
