"""The language model once more, in float64 and row by row: what the fast one is compared with."""

from __future__ import annotations

import torch
from torch import Tensor


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
