"""The whole network with Hessian-free updates against a slow float64 one written from the equations.

From the vision tower's tokens on nothing is shared with the node: fast weights, discarding, prompt, positions, decoder.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model.slow_decoder import SlowDecoder
from model.slow_fast_weights import SlowFastWeights

from salmonn_node.lab.bench.golden import GoldenFile
from salmonn_node.lab.bench.golden_model import SPECIALS, START_NS, CodePointTokenizer, e2e_config, e2e_model
from salmonn_node.model.config import MemoryConfig
from salmonn_node.stream.observations import SECOND_NS

FILE = Path(__file__).parent.parent / "data" / "golden" / "e2e_noread.safetensors"
PATCHES, SLICE, GRID, TOKENS = 14, 5, (2, 3), 6
M, LAG, BUDGET, STEP = 20, 15, 18, 10
QUESTION = "Q?"


def discard(buffer, rule):
    """Numbers kept of [(number, vector)] when the budget is exceeded: cosine of neighbours in the buffer."""
    unit = [vector / vector.norm() for _, vector in buffer]
    similar = [(float(unit[n] @ unit[n + 1]), n) for n in range(len(buffer) - 1)]
    if rule == "released":
        kept = sorted(n + 1 for _, n in sorted(similar)[:BUDGET])
    else:
        gone = {n for _, n in sorted(similar, key=lambda pair: (-pair[0], pair[1]))[: len(buffer) - BUDGET]}
        kept = [n for n in range(len(buffer)) if n not in gone]
    return [buffer[n] for n in kept]


def remember(vectors, arrivals, rule, settle):
    """Tokens arrive one after another; a step at BUDGET + STEP, and after each slice in the release's way."""
    buffer = []
    for n, vector in enumerate(vectors):
        buffer.append((n, vector))
        if len(buffer) == BUDGET + STEP or (settle and n + 1 in arrivals and len(buffer) > BUDGET):
            buffer = discard(buffer, rule)
    return [n for n, _ in buffer]


def prompt(kept, all_marks):
    """Ids, positions and the token of each row (-1 for text), from the unsliced prompt."""
    encode = CodePointTokenizer().encode
    ids, positions, token, shown, pointer = [], [], [], [], 0

    def text(words, show=True):
        nonlocal pointer
        for one in words:
            ids.append(one)
            positions.append((pointer, pointer, pointer))
            token.append(-1)
            shown.append(show)
            pointer += 1

    text(encode("<|im_start|>user\n"))
    patches = {n // TOKENS for n in kept}
    for patch in range(PATCHES):
        show = all_marks or patch in patches
        text([*encode(f"<{2 * patch + 0.5:.1f} seconds>"), SPECIALS.vision_start], show)
        for place in range(TOKENS):
            ids.append(SPECIALS.video_pad)
            positions.append((pointer, pointer + place // GRID[1], pointer + place % GRID[1]))
            token.append(patch * TOKENS + place)
            shown.append(token[-1] in kept)
        pointer += max(GRID)
        text([SPECIALS.vision_end], show)
    text(encode(f"\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n")[: -len("assistant\n") + 2])
    rows = [i for i in range(len(ids)) if shown[i]]
    return [ids[i] for i in rows], torch.tensor([positions[i] for i in rows]).T, [token[i] for i in rows], pointer


@pytest.fixture(scope="module")
def inputs():
    return GoldenFile.load(FILE).neighbour("e2e_weights_inputs.safetensors")


@pytest.mark.parametrize(
    ("mode", "iterations"),
    [
        ("streaming", 2),
        ("released", 1),
        pytest.param("streaming", 1, marks=pytest.mark.full),
        pytest.param("released", 2, marks=pytest.mark.full),
    ],
)
def test_whole_network_equals_the_slow_reference(inputs, mode, iterations):
    rule = "released" if mode == "released" else "paper"
    config = e2e_config(GoldenFile.load(FILE).metadata | {"CG_max_iter": str(iterations)}, inputs.tensors)
    ttt = dict(config.ttt) | {"mini_batch": M, "lag_distance": LAG}
    config = config.replace(
        mode=mode,
        time_marks="kept" if mode == "streaming" else "all",
        slice_patches=SLICE,
        ttt=ttt,
        memory=MemoryConfig(BUDGET, 10, STEP, 10, rule, "merge"),
    )
    model = e2e_model(config, inputs)
    vision, seen = model.encoder.vision, []

    def watched(pixels, grid):
        seen.append(vision(pixels, grid))
        return seen[-1]

    model.encoder.vision = watched
    memory = model.new_memory()
    pixels = inputs.tensors["pixel_values_videos_f16"].float().unflatten(0, (-1, 24))
    for patch in range(PATCHES):
        stamps = (START_NS + 2 * patch * SECOND_NS, START_NS + (2 * patch + 1) * SECOND_NS)
        model.writer.observe_patch(memory, pixels[patch], (4, 6), stamps)
    view = model.view(memory)
    passes = []
    model.network.language.lm_head.register_forward_hook(lambda _m, _i, out: passes.append(out[-1].double()))
    answer = model.answer(QUESTION, view, max_new_tokens=3)

    with torch.enable_grad():
        raw = torch.cat([tokens[0] for tokens, _ in seen]).detach().double()
        deep = torch.cat([deepstack[:, 0] for _, deepstack in seen], dim=1).detach().double()
        weights = model.network.ttt.state_dict()
        slow = SlowFastWeights(weights, 2, M, LAG, ttt["base_lr"], ttt["lag_weight"], iterations)
        if mode == "streaming":
            z, whole = slow.stream(raw, GRID)
        else:
            z, whole = slow.slices(raw, GRID, SLICE * TOKENS), len(raw)
    start = torch.cat([weights[n][0].flatten() for n in ("W1", "b1", "W2", "b2")]).double()
    assert float((slow.fast[0] - start).abs().max()) > 1e-2  # the updates are no trifle
    features = torch.cat([z, *deep], dim=1)
    ends = {SLICE * TOKENS, 2 * SLICE * TOKENS, len(raw)}
    kept = remember(features[:whole], ends, rule, mode == "released") + list(range(whole, len(raw)))
    assert view.visual.index.tolist() == kept
    assert float((view.visual.z.double() - z[kept]).abs().max()) < 1e-4

    decoder = SlowDecoder(model)
    ids, positions, token, after = prompt(kept, mode == "released")
    x = decoder.w["decoder.embed_tokens.weight"][ids].clone()
    rows = [i for i, n in enumerate(token) if n >= 0]
    added = torch.zeros(len(deep), *x.shape, dtype=torch.float64)
    x[rows], added[:, rows] = z[kept], deep[:, kept]
    state, out = decoder.run(x, positions, list(range(len(ids))), [False] * len(ids), added)
    decoder.past = [entries for entries, _, _ in out]
    logits = [decoder.logits(state[-1])]
    for step in range(2):
        logits.append(decoder.logits(decoder.step(int(logits[-1].argmax()), after + step)))
    assert answer.token_ids == [int(row.argmax()) for row in logits]
    assert float((torch.stack(passes[:3]) - torch.stack(logits)).abs().max()) < 1e-4
