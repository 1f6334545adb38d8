"""Reading a prompt into keys and values: all of it, or through the prompt-dependent reader."""

from __future__ import annotations

import torch

from salmonn_node.model.assembly import Prompt
from salmonn_node.model.config import ReaderConfig
from salmonn_node.model.generation import Reading
from salmonn_node.model.kv_cache import KVCache
from salmonn_node.model.language import AttentionRecord, LanguageModel, Tokens


def read(language: LanguageModel, prompt: Prompt, tokens: Tokens, reader: ReaderConfig) -> Reading:
    """Read a prompt. The reader works when its budget is smaller than the number of memory tokens in the prompt."""
    memory_tokens = int((prompt.memory >= 0).sum())
    if 0 < reader.working_tokens < memory_tokens:
        from salmonn_node.model.reader_pass import read_selectively

        return read_selectively(language, prompt, tokens, reader)
    cache, record = KVCache(language.layers), AttentionRecord()
    hidden = language.prefill(tokens, cache, record)
    rows = torch.arange(len(prompt))
    return Reading(cache, hidden, [rows] * language.layers, record)
