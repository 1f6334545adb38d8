"""Positions of kept tokens are those of the whole prompt as long as there are any; then they stay bounded."""

from __future__ import annotations

import pytest
import torch

from salmonn_node.model.cached_prefill import row_keys
from salmonn_node.model.config import MemoryConfig
from salmonn_node.model.plan import prompt_maximum
from salmonn_node.model.released_prompt import mrope_positions
from salmonn_node.model.timeline import RESERVED_POSITIONS
from salmonn_node.model.tiny import tiny_config
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.observations import SECOND_NS

GRID = (4, 6)
MERGED = (2, 3)


def synthetic(**changes):
    """The tiny network with encoders that give random tokens, so that days pass quickly."""
    model = VideoSalmonnS.tiny(ttt=None, recall=False, evidence_head=False, **changes)
    generator = torch.Generator().manual_seed(0)

    def see(pixels, grid):
        return torch.randn(1, 6, 128, generator=generator), torch.zeros(3, 1, 6, 128)

    def hear(mel):
        return torch.randn(1, 20, 128, generator=generator)

    model.encoder.vision, model.encoder.audio = see, hear
    return model


def observe(model, memory, patches: int, period_s: float, sound: bool = True) -> None:
    pixels = torch.zeros(24, 1)
    for patch in range(patches):
        start = SECOND_NS + round(patch * period_s * SECOND_NS)
        model.writer.observe_patch(memory, pixels, GRID, (start, start + SECOND_NS))
        if sound and patch % 5 == 4:
            model.writer.observe_window(memory, torch.zeros(64, 1000), SECOND_NS + (patch - 4) * 2 * SECOND_NS)


def rows_by_token(model, memory) -> dict[tuple, tuple]:
    view = model.view(memory)
    keys = row_keys(model.prompt("where?", view), view)
    return {key[:2]: key[3:] for key in keys if key[0] in (2, 3)}


def test_kept_tokens_stand_where_the_whole_prompt_has_them():
    whole = synthetic(time_marks="all", memory=MemoryConfig(4096, 4096, 64, 64, "place", "merge"))
    part = synthetic(memory=MemoryConfig(60, 15, 30, 5, "paper", "merge"))
    everything, kept = whole.new_memory(), part.new_memory()
    observe(whole, everything, 60, 2.0)
    observe(part, kept, 60, 2.0)
    view = whole.view(everything)
    prompt = whole.prompt("where?", view)
    want, after = mrope_positions(prompt.ids.tolist(), [MERGED] * 60, whole.tokenizer.specials)
    assert torch.equal(prompt.positions, want)
    assert prompt.next_position == after
    full, some = rows_by_token(whole, everything), rows_by_token(part, kept)
    assert 0 < len(some) < len(full) / 2
    assert all(full[token] == place for token, place in some.items())


@pytest.mark.parametrize("patches", [720, pytest.param(43_200, marks=[pytest.mark.full, pytest.mark.timeout(1800)])])
def test_thirty_days_stay_bounded(patches):
    text = dict(tiny_config().text) | {"max_position_embeddings": 12_288}
    model = synthetic(text=text, memory=MemoryConfig(96, 24, 24, 8, "place", "merge"))
    memory = model.new_memory()
    observe(model, memory, patches, 30 * 86_400 / patches, sound=False)
    timeline = model.writer.pending(memory).timeline
    view = model.view(memory)
    prompt = model.prompt("what happened first?", view)
    assert timeline.compactions > 0
    assert len(timeline.closed) < 200
    assert len(prompt) <= prompt_maximum(model.config)
    assert prompt.next_position < model.config.max_position
    assert timeline.pointer <= model.config.max_position - RESERVED_POSITIONS // 2
    starts = [block.position for block in view.blocks]
    ends = [block.position + block.extent for block in view.blocks]
    assert all(start >= end for start, end in zip(starts[1:], ends, strict=False)), "order and blocks are kept"
    assert model.answer("what happened first?", view, max_new_tokens=1).token_ids


def test_prompt_maximum_is_the_same_at_any_time():
    lengths = []
    for patches in (60, 180):
        model = synthetic(memory=MemoryConfig(96, 24, 24, 8, "place", "merge"))
        memory = model.new_memory()
        observe(model, memory, patches, 2.0)
        lengths.append(len(model.prompt("?", model.view(memory))))
    assert max(lengths) <= prompt_maximum(model.config)
