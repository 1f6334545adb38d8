"""Frame preprocessing: sizes, patch order, and equality with transformers' own rules."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from salmonn_node.model.frames import fitted, normalise, patchify, resized
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


@pytest.mark.parametrize("size", [(64, 64), (32, 48)])
def test_an_image_that_is_a_view_of_a_message_is_not_handed_to_torch(size):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    view = np.frombuffer(image.tobytes(), np.uint8).reshape(image.shape)
    assert not view.flags.writeable

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fitted(view, size).flags.writeable
    assert np.array_equal(fitted(view, size), fitted(image, size))
