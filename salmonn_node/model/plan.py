"""Memory plan: predict the bytes that a network needs from its configuration, before any weights are read."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.frames import resized
from salmonn_node.model.language import ANSWER_ROWS
from salmonn_node.model.network import Network, ttt_config
from salmonn_node.model.quantised_linear import LAYERS, saved_bytes

# Longest time mark in tokens, including vision_start and vision_end, if every digit is a token.
MARK_TOKENS = 16
QUESTION_TOKENS = 512
# Memory besides tensors. On a GPU: the CUDA context, the allocator's slack and what the kernels work in, as measured
# once on an H100 with the shapes of Qwen3-VL-2B (bench/RESULTS.md, "On a GPU").
# On a CPU: the interpreter and its libraries, as measured by `salmonn bench footprint` before loading.
BESIDE = {"cuda": ("CUDA and its kernels", 2_600 << 20), "cpu": ("Python and libraries", 440 << 20)}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a network needs, by item.

    Attributes:
        config: configuration of the network.
        items: names and bytes.
        prompt_tokens: length of the longest prompt that a question can have.
    """

    config: SalmonnConfig
    items: dict[str, int]
    prompt_tokens: int

    @property
    def total(self) -> int:
        """Total bytes."""
        return sum(self.items.values())


def prompt_maximum(config: SalmonnConfig) -> int:
    """Longest prompt with `time_marks: kept`: budgets and their steps, the waiting tail, time marks, the question.

    It does not depend on the length of the stream.
    """
    m, audio = config.memory, config.audio
    mini_batch = int((config.ttt or {}).get("mini_batch", 0))
    tail = mini_batch + tokens_per_patch(config)
    tokens = m.visual_tokens + m.visual_step + tail
    if audio is not None:
        tokens += m.audio_tokens + m.audio_step + audio.window_tokens
    marks = min(config.max_time_marks, tokens)
    return tokens + marks * MARK_TOKENS + QUESTION_TOKENS


def tokens_per_patch(config: SalmonnConfig, camera: tuple[int, int] = (640, 360)) -> int:
    """Tokens per temporal patch of a camera (width, height)."""
    vision = config.vision
    factor = vision["patch_size"] * vision["spatial_merge_size"]
    high, wide = resized(camera[1], camera[0], factor, config.frames.min_pixels, config.frames.max_pixels)
    return (high // factor) * (wide // factor)


@dataclass(frozen=True)
class Weighed:
    """Size of a network's weights, counted once for all budgets.

    Attributes:
        full: bytes of unquantised weights.
        quantised: for "int8" and "int4", the bytes saved, and the bytes of the largest expanded matrix.
    """

    full: int
    quantised: dict[str, tuple[int, int]]


def weigh(config: SalmonnConfig) -> Weighed:
    """Count the weights of a configuration on the meta device."""
    size = element_size(config)
    with torch.device("meta"):
        network = Network(config.replace(weights="full"))
    seen = {id(p): p.numel() for p in network.parameters()}
    return Weighed(sum(seen.values()) * size, {name: saved_bytes(network, name, size) for name in LAYERS})


def element_size(config: SalmonnConfig) -> int:
    """Bytes per unquantised weight."""
    return torch.tensor([], dtype=getattr(torch, config.dtype)).element_size()


def plan(
    config: SalmonnConfig, device: str = "cuda", prompt_tokens: int | None = None, weighed: Weighed | None = None
) -> MemoryPlan:
    """Predict the memory that a network needs: weights, state and activations, from the configuration.

    Args:
        config: of the network.
        device: "cuda" or "cpu".
        prompt_tokens: rows of the longest prompt. Defaults to the most that the configuration allows.
        weighed: result of `weigh` for this network with any budgets. Computed if left out.
    """
    size, weighed = element_size(config), weighed or weigh(config)
    text, m = config.text, config.memory
    depth = len(config.vision.get("deepstack_visual_indexes", ()))
    width = config.hidden_size
    kv_row = 2 * text["num_hidden_layers"] * text["num_key_value_heads"] * text["head_dim"] * size
    prompt = prompt_maximum(config) if prompt_tokens is None else prompt_tokens
    visual = (m.visual_tokens + m.visual_step) * width * (1 + depth) * size
    sound = (m.audio_tokens + m.audio_step) * width * size if config.audio else 0
    ttt = ttt_config(config)
    fast = 0
    if ttt is not None:
        inner = ttt.inner_size or ttt.head_dim
        floats = ttt.num_heads * (2 * ttt.head_dim * inner + inner + ttt.head_dim)
        # Fast weights, their gradient, and the vectors of conjugate gradient.
        fast = floats * 4 * 6 + (ttt.mini_batch + ttt.lag_distance) * width * size
        fast += ttt.mini_batch * width * 4 * 12
    chunk = config.prefill_chunk
    activations = chunk * (text["intermediate_size"] * 3 + width * 6) * size + chunk * prompt
    activations += text["vocab_size"] * 4 * 2 + prompt * width * size
    heads = config.audio.heads if config.audio else 0
    encoders = 64 << 20 if not heads else heads * 1500 * 1500 * size + (128 << 20)
    saved, widest = weighed.quantised.get(config.weights, (0, 0))
    activations += widest
    beside, count = BESIDE[device]
    items = {
        "weights": weighed.full - saved,
        "token memory": visual + sound,
        "fast weights": fast,
        "view of a question": visual + sound,
        "keys and values": (prompt + ANSWER_ROWS) * kv_row * (2 if config.prefill == "cached" else 1),
        "activations": activations,
        "encoders' workspace": encoders,
        beside: count,
    }
    return MemoryPlan(config, items, prompt)
