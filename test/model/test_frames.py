"""Frame preprocessing: sizes, patch order, and equality with transformers' own rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from salmonn_node.model.frames import normalise, patchify, resized
from salmonn_node.model.plan import tokens_per_patch
from salmonn_node.model.profiles import profile


def test_the_released_budget():
    assert resized(360, 640, 32, 784, 176_400) == (288, 544)
    assert tokens_per_patch(profile("video_salmonn_s_8b")) == 153


@settings(max_examples=200, deadline=None)
@given(st.integers(32, 3000), st.integers(32, 3000), st.integers(4_096, 400_000))
def test_sizes_are_those_of_transformers(height, width, budget):
    assert resized(height, width, 32, 784, budget) == smart_resize(height, width, 32, 784, budget)


def test_patch_order_is_merge_blocks_then_raster():
    first = torch.arange(3 * 64 * 96, dtype=torch.float32).view(3, 64, 96)
    rows, grid = patchify(first, first + 0.5, 16, 2)
    assert grid == (4, 6)
    assert rows.shape == (24, 3 * 2 * 256)
    # Row 0 and 1 are neighbours in x, row 2 lies below row 0, row 4 opens the next merge block.
    corners = [int(row[0]) for row in rows[:5]]
    assert corners == [0, 16, 16 * 96, 16 * 96 + 16, 32]
    assert torch.equal(rows[0].view(3, 2, 16, 16)[1, 1], first[1, :16, :16] + 0.5)


def test_grey_is_zero_and_bad_images_are_named():
    grey = np.full((64, 64, 3), 127, np.uint8)
    assert float(normalise(grey, (32, 32)).abs().max()) < 0.005
    for bad in (grey[..., :1], grey.astype(np.float32), grey[0]):
        with pytest.raises(ValueError, match="image"):
            normalise(bad, (32, 32))
    with pytest.raises(ValueError, match="empty"):
        resized(0, 5, 32, 784, 9_999)
    with pytest.raises(ValueError, match="aspect"):
        resized(32, 32 * 400, 32, 784, 9_999)
