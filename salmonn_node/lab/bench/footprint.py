"""Footprint benchmark: peak memory of a checkpoint against its prediction, seconds, and error of the logits.

    salmonn bench footprint --checkpoint FOLDER --weights int8 --visual-tokens 2048

Run it once per kind of weights, each in its own process, because the peak is that of the process. The memory is filled
with random tokens, and only the last temporal patch goes through the vision tower, so a small CPU can run it.
`--logits` stores the logits of the first answer token. Later runs compare theirs with those of the full weights.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from salmonn_node.model.network_settings import NetworkSettings, load_network
from salmonn_node.model.plan import plan
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.observations import SECOND_NS, Frame

QUESTION = "where did you last see the red ball?"
SHAPE = (360, 640, 3)
ANSWER_TOKENS = 8
GB = 1e9


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Return all figures of one run. Times are process times, so other work on the machine has little influence."""
    base = peak_bytes(args.device)
    began = time.process_time()
    settings = NetworkSettings(
        checkpoint=args.checkpoint,
        device=args.device,
        weights=args.weights,
        prefill=args.prefill,
        visual_tokens=args.visual_tokens,
    )
    model = load_network(settings)
    loaded, load_s = peak_bytes(args.device), time.process_time() - began
    memory = model.new_memory()
    _fill(model, memory)
    filled = peak_bytes(args.device)
    view = model.view(memory)
    rows = len(model.prompt(QUESTION, view))
    logits: list[Tensor] = []
    hook = model.network.language.lm_head.register_forward_hook(lambda _m, _i, out: logits.append(out[-1].float()))
    began = time.process_time()
    model.answer(QUESTION, view, max_new_tokens=1)
    read_s = time.process_time() - began
    hook.remove()
    began = time.process_time()
    generation = model.answer(QUESTION, view, max_new_tokens=1 + ANSWER_TOKENS)
    token_s = max(0.0, time.process_time() - began - read_s) / max(1, len(generation.token_ids) - 1)
    predicted = plan(model.config, str(model.network.device.type), prompt_tokens=rows)
    peak = peak_bytes(args.device)
    figures = {
        "weights": args.weights,
        "bytes of weights, GB": predicted.items["weights"] / GB,
        "tokens in memory": len(view),
        "rows of the prompt": rows,
        "peak before loading, GB": base / GB,
        "peak after loading, GB": loaded / GB,
        "peak with a full memory, GB": filled / GB,
        "peak with questions, GB": peak / GB,
        "predicted, GB": predicted.total / GB,
        "predicted over measured": predicted.total / peak,
        "loading, s": load_s,
        "reading the prompt, s": read_s,
        "one more token, s": token_s,
    }
    if args.logits:
        figures |= _compare(args.logits, args.weights, logits[0])
    return figures


def peak_bytes(device: str) -> int:
    """Peak memory of this process so far: GPU memory if it runs on a GPU, else resident memory."""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _fill(model: VideoSalmonnS, memory: Any) -> None:
    """Fill a memory with random patches up to its maximum between two steps, then add a real patch."""
    config, encoder = model.config, model.encoder
    generator = torch.Generator().manual_seed(0)
    depth = len(config.vision["deepstack_visual_indexes"])
    real = encoder.vision

    def stand_in(pixels: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        tokens = grid[0] * grid[1] // int(config.vision["spatial_merge_size"]) ** 2
        rows = torch.randn(1 + depth, 1, tokens, config.hidden_size, generator=generator).to(pixels)
        return rows[0], rows[1:]

    noise, seconds = np.random.default_rng(0), iter(range(1, 1 << 30))

    def observe_patch() -> None:
        for _ in range(2):
            image = noise.integers(0, 255, SHAPE, np.uint8)
            model.observe_frame(memory, Frame(next(seconds) * SECOND_NS, "camera", image))

    encoder.vision = stand_in
    observe_patch()
    patch, most = len(memory.view()), config.memory.visual_tokens + config.memory.visual_step
    while len(memory.view()) + 2 * patch <= most:
        observe_patch()
    encoder.vision = real
    observe_patch()


def _compare(file: Path, weights: str, logits: Tensor) -> dict[str, Any]:
    """Store these logits, and compare them with those of the full weights."""
    known = load_file(file) if file.exists() else {}
    known[weights] = logits.cpu().contiguous()
    save_file(known, file)
    if "full" not in known or weights == "full":
        return {}
    full = known["full"]
    return {
        "error of the logits, of their norm": float((known[weights] - full).norm() / full.norm()),
        "the likeliest token is the same": bool(known[weights].argmax() == full.argmax()),
    }
