"""The reader inside the network against an independent float64 decoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from model.slow_decoder import SlowDecoder

from salmonn_node.lab.bench.golden import GoldenFile
from salmonn_node.lab.bench.golden_model import e2e_config, e2e_model, observe_inputs
from salmonn_node.model.assembly import embed_prompt
from salmonn_node.model.config import MemoryConfig, ReaderConfig

FILE = Path(__file__).parent.parent / "data" / "golden" / "e2e_noread.safetensors"
QUESTION = "<video>Q?"


@pytest.fixture(scope="module")
def inputs():
    return GoldenFile.load(FILE).neighbour("e2e_weights_inputs.safetensors")


def short_inputs(inputs: GoldenFile, patches: int) -> GoldenFile:
    """The first patches and one window of sound: a float64 loop over thousands of rows would take minutes."""
    tensors = dict(inputs.tensors)
    grid = tensors["video_grid_thw"].clone()
    grid[0, 0] = patches
    tensors |= {
        "video_grid_thw": grid,
        "pixel_values_videos_f16": tensors["pixel_values_videos_f16"][: patches * 24],
        "mel_f16": tensors["mel_f16"][:1],
    }
    return dataclasses.replace(inputs, tensors=tensors)


@torch.no_grad()
@pytest.mark.parametrize(("group", "div"), [(40, 0.0), (25, 0.7)])
def test_reader_keeps_and_answers_as_the_slow_reference(inputs, group, div):
    metadata = GoldenFile.load(FILE).metadata
    config = e2e_config(metadata, inputs.tensors).replace(
        mode="streaming",
        time_marks="kept",
        ttt=None,
        memory=MemoryConfig(18, 10, 6, 10, "place", "merge"),
        reader=ReaderConfig(9, group, div),
    )
    model = e2e_model(config.replace(ttt=None), without_fast_weights(inputs))
    *_, (memory, _) = observe_inputs(model, short_inputs(inputs, 5))
    view = model.view(memory)
    answering = model.answers.read(QUESTION, view)
    prompt = answering.prompt
    slow = SlowDecoder(model)
    tokens = embed_prompt(prompt, view, model.network.language)
    state, history = slow.read(prompt, tokens, config.reader)
    for group_number, layers in enumerate(answering.reading.history):
        for layer, (selection, rows) in enumerate(layers):
            want = history[group_number][layer]
            assert rows[selection.is_memory].tolist() == [row for row, _ in want]
            scores = torch.tensor([score for _, score in want])
            assert torch.allclose(selection.scores[selection.is_memory], scores, atol=1e-4)
    logits, _ = answering.logits(answering.reading.hidden[-1:])
    assert torch.allclose(logits[-1].double(), slow.logits(state), atol=1e-4)
    answer = answering.decode(3, lambda: False, None)
    ids = [int(slow.logits(state).argmax())]
    for i in range(2):
        ids.append(int(slow.logits(slow.step(ids[-1], prompt.next_position + i)).argmax()))
    assert answer.token_ids == ids
    assert int(torch.isfinite(answer.reader_score).sum()) >= 9


def without_fast_weights(inputs: GoldenFile) -> GoldenFile:
    tensors = {n: t for n, t in inputs.tensors.items() if ".ttt_" not in n}
    return dataclasses.replace(inputs, tensors=tensors)
