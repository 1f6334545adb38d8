"""What a checkpoint takes on this machine: peak memory beside the plan's prediction, seconds, and error of the logits.

    salmonn bench footprint --checkpoint FOLDER --weights int8 --visual-tokens 2048

Run it once for each kind of weights in a process of its own: the peak is the process's. The memory is filled with
random tokens, and only its last temporal patch goes through the vision tower, so a small CPU gets there, too. The
logits of the first answer token are kept in --logits; later runs say how far theirs are from those of the full weights.
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
    """All figures of one run; times are process times, so that other work on the machine counts little."""
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
    """The most memory that this process has held so far: on the GPU when it runs there, else resident."""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _fill(model: VideoSalmonnS, memory: Any) -> None:
    """Random patches up to the most that a memory holds between two steps, then a real one."""
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
    """Keep these logits, and say how far they are from those of the full weights."""
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
