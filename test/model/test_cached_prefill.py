"""Cached keys and values: equal to exact reading while nothing is dropped, and state that survives."""

from __future__ import annotations

import numpy as np
import torch

from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.model.config import MemoryConfig
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.observations import SECOND_NS, Frame

QUESTION = "where was the red ball?"


def observed(model, seconds: int) -> StreamMemory:
    rng = np.random.default_rng(0)
    memory = model.new_memory()
    for t in range(seconds):
        image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        model.observe_frame(memory, Frame((t + 1) * SECOND_NS, "front", image))
    return memory


def first_logprob(model, memory) -> torch.Tensor:
    return model.score(QUESTION, ["yes", "no", "the hall"], model.view(memory))


def test_equal_to_exact_while_nothing_is_dropped():
    results = {}
    for prefill in ("exact", "cached"):
        model = VideoSalmonnS.tiny(prefill=prefill, cached_chunk=32, recall=False)
        memory = observed(model, 48)
        results[prefill] = first_logprob(model, memory)
        if prefill == "cached":
            assert model.writer.prefill.of(memory).computed > 100
    assert torch.allclose(results["exact"], results["cached"], atol=1e-4)


def test_dropped_tokens_leave_the_cache():
    model = VideoSalmonnS.tiny(prefill="cached", cached_chunk=32, memory=MemoryConfig(64, 16, 16, 16, "place", "merge"))
    memory = observed(model, 120)
    cache = model.writer.prefill.of(memory)
    assert cache.computed > len(cache.keys)
    visual = {key[1] for key in cache.keys if key[0] == 2}
    assert visual <= set(memory.kept("visual")[0].tolist())
    before = first_logprob(model, memory)
    assert torch.equal(before, first_logprob(model, memory))
    copy = StreamMemory.from_tensors(*memory.to_tensors(), model.network.ttt)
    assert torch.equal(before, first_logprob(model, copy))
