"""The reader inside the network against an independent float64 decoder; conjugate gradient in two precisions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from salmonn_node.bench.golden import GoldenFile
from salmonn_node.bench.golden_model import e2e_config, e2e_model, observe_inputs
from salmonn_node.model.assembly import embed_prompt
from salmonn_node.model.config import MemoryConfig, ReaderConfig

FILE = Path(__file__).parent.parent / "data" / "golden" / "e2e_noread.safetensors"
QUESTION = "<video>Q?"


def rms(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def turn(x: Tensor, positions: Tensor, theta: float, section: list[int]) -> Tensor:
    """Rotate (heads, L, d) halves by interleaved M-RoPE: frequency i follows axis i mod 3 while that axis has room."""
    half = x.shape[-1] // 2
    axis = torch.tensor([i % 3 if i % 3 and i < 3 * section[i % 3] else 0 for i in range(half)])
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) * 2 / x.shape[-1])
    angle = positions.double()[axis].T * frequency
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1)


class SlowDecoder:
    """Weights by name, in float64; each layer remembers (row, key, value, score, is_memory) one by one."""

    def __init__(self, model) -> None:
        self.w = {n: t.double() for n, t in model.network.language.state_dict().items()}
        text = model.config.text
        self.layers, self.heads = text["num_hidden_layers"], text["num_attention_heads"]
        self.groups, self.d = self.heads // text["num_key_value_heads"], text["head_dim"]
        self.rope = text["rope_parameters"]
        self.past: list[list[tuple]] = [[] for _ in range(self.layers)]

    def run(self, x, positions, rows, flags, deepstack):
        """One pass; returns final states and, for each layer, new entries with raw queries and normed inputs."""
        out = []
        for n in range(self.layers):
            p = f"decoder.layers.{n}."
            normed = rms(x, self.w[p + "input_layernorm.weight"])

            def heads(name, normed=normed, p=p):
                return (normed @ self.w[p + f"self_attn.{name}.weight"].T).unflatten(-1, (-1, self.d)).transpose(0, 1)

            q = rms(heads("q_proj"), self.w[p + "self_attn.q_norm.weight"])
            k = rms(heads("k_proj"), self.w[p + "self_attn.k_norm.weight"])
            v = heads("v_proj")
            section = self.rope["mrope_section"]
            q_turned, k_turned = (turn(t, positions, self.rope["rope_theta"], section) for t in (q, k))
            entries = self.past[n] + [
                (rows[i], k_turned[:, i], v[:, i], None, flags[i], k[:, i]) for i in range(len(rows))
            ]
            mixed = torch.zeros(len(rows), self.heads, self.d, dtype=torch.float64)
            for i in range(len(rows)):
                seen = entries[: len(self.past[n]) + i + 1]
                for h in range(self.heads):
                    keys = torch.stack([e[1][h // self.groups] for e in seen])
                    values = torch.stack([e[2][h // self.groups] for e in seen])
                    mixed[i, h] = torch.softmax(keys @ q_turned[h, i] / self.d**0.5, 0) @ values
            x = x + mixed.flatten(1) @ self.w[p + "self_attn.o_proj.weight"].T
            y = rms(x, self.w[p + "post_attention_layernorm.weight"])
            gate = y @ self.w[p + "mlp.gate_proj.weight"].T
            up = y @ self.w[p + "mlp.up_proj.weight"].T
            x = x + (gate * torch.sigmoid(gate) * up) @ self.w[p + "mlp.down_proj.weight"].T
            if deepstack is not None and n < len(deepstack):
                x = x + deepstack[n]
            out.append((entries, q, normed))
        return rms(x, self.w["decoder.norm.weight"]), out

    def read(self, prompt, tokens, reader):
        """Groups, then the question; the last state, and each layer's kept (row, score) after each group."""
        x, positions = tokens.embeddings.double(), tokens.positions
        deep = torch.zeros(3, *x.shape, dtype=torch.float64)
        deep[:, tokens.visual] = tokens.deepstack.double()
        memory = (prompt.memory >= 0).tolist()
        start, length = prompt.question_start, len(prompt)
        question = list(range(start, length))
        scoring = length - 1 - start
        history = []
        for low in range(0, start, reader.group_tokens):
            group = list(range(low, min(low + reader.group_tokens, start)))
            rows = group + question
            _, out = self.run(x[rows], positions[:, rows], rows, [memory[r] for r in rows], deep[:, rows])
            size = min(sum(memory[: group[-1] + 1]), reader.working_tokens)
            for n, (entries, q, normed) in enumerate(out):
                old = len(self.past[n])
                fresh = []
                for j, (row, key, value, _, flag, raw) in enumerate(entries[old : old + len(group)]):
                    products = []
                    for h in range(self.heads):
                        for i in range(len(group), len(group) + scoring):
                            a, b = q[h, i], raw[h // self.groups]
                            if reader.div_factor:
                                a, b = a / a.norm(), b / b.norm()
                            products.append(a @ b)
                    score = torch.stack(products).mean()
                    if reader.div_factor:
                        around = [
                            torch.cosine_similarity(normed[j + s], normed[j + s + 1], 0)
                            if 0 <= j + s < len(rows) - 1
                            else torch.tensor(1.0)
                            for s in (-1, 0)
                        ]
                        score = score - reader.div_factor / 2 * sum(around)
                    fresh.append((row, key, value, float(score), flag, raw))
                held = self.past[n] + fresh
                best = sorted((e for e in held if e[4]), key=lambda e: -e[3])[:size]
                chosen = {e[0] for e in best}
                self.past[n] = [e for e in held if not e[4] or e[0] in chosen]
            history.append([[(e[0], e[3]) for e in layer if e[4]] for layer in self.past])
        state, out = self.run(x[question], positions[:, question], question, [False] * len(question), deep[:, question])
        self.past = [entries for entries, _, _ in out]
        return state[-1], history

    def step(self, token: int, position: int):
        x = self.w["decoder.embed_tokens.weight"][token][None]
        state, out = self.run(x, torch.full((3, 1), position), [-1], [False], None)
        self.past = [entries for entries, _, _ in out]
        return state[-1]

    def logits(self, state: Tensor) -> Tensor:
        return self.w["lm_head.weight"] @ state


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
    answering = model._read(QUESTION, view)
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


@torch.no_grad()
@pytest.mark.full
@pytest.mark.parametrize("iterations", [1, 2])
def test_conjugate_gradient_end_to_end_agrees_in_two_precisions(inputs, iterations):
    metadata = GoldenFile.load(FILE).metadata | {"CG_max_iter": str(iterations)}
    answers, kept, logits = [], [], []
    for dtype in (torch.float32, torch.float64):
        model = e2e_model(e2e_config(metadata, inputs.tensors), inputs)
        model.network.to(dtype)
        if dtype == torch.float64:
            ttt = model.network.ttt
            ttt.config = dataclasses.replace(ttt.config, state_dtype=dtype)
        *_, (memory, _) = observe_inputs(model, inputs)
        view = model.view(memory)
        seen = []
        hook = model.network.language.lm_head.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out[-1]))
        answers.append(model.answer(QUESTION, view, max_new_tokens=3).token_ids)
        hook.remove()
        kept.append(view.visual.index)
        logits.append(torch.stack(seen).double())
    assert answers[0] == answers[1]
    assert torch.equal(kept[0], kept[1])
    assert float((logits[0] - logits[1]).abs().max()) < 1e-4
