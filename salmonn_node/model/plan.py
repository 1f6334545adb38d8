"""`salmonn plan`: what a network needs on a device, from its configuration alone, and whether it fits."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from salmonn_node.model.checkpoint import TINY, bundled_config
from salmonn_node.model.checkpoint_config import read_folder
from salmonn_node.model.config import WEIGHTS, SalmonnConfig
from salmonn_node.model.frames import resized
from salmonn_node.model.int8_linear import saved_bytes
from salmonn_node.model.network import Network, ttt_config
from salmonn_node.model.profiles import PROFILES, profile

GIB = 1 << 30
# Longest time mark in tokens, vision_start and vision_end included, when every digit is a token.
MARK_TOKENS = 16
QUESTION_TOKENS = 512
# What CUDA's context, the allocator's slack and cuBLAS take beside tensors: an estimate, not measured here.
OVERHEAD_BYTES = 1_200 << 20


@dataclass(frozen=True)
class Plan:
    """Bytes a network needs, by item.

    Attributes:
        config: of the network.
        items: name and bytes.
        prompt_tokens: the longest prompt that a question can have.
    """

    config: SalmonnConfig
    items: dict[str, int]
    prompt_tokens: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.items.values())


def prompt_maximum(config: SalmonnConfig) -> int:
    """The longest prompt with time marks `kept`: budgets and their steps, the waiting tail, marks, the question.

    It does not depend on how long the stream has run.
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
    """Tokens of a temporal patch of a camera (width, height)."""
    vision = config.vision
    factor = vision["patch_size"] * vision["spatial_merge_size"]
    high, wide = resized(camera[1], camera[0], factor, config.frames.min_pixels, config.frames.max_pixels)
    return (high // factor) * (wide // factor)


def plan(config: SalmonnConfig) -> Plan:
    """Count weights on the meta device, and state and activations from the configuration."""
    size = torch.tensor([], dtype=getattr(torch, config.dtype)).element_size()
    with torch.device("meta"):
        network = Network(config)
    seen = {id(p): p.numel() for p in network.parameters()}
    text, m = config.text, config.memory
    depth = len(config.vision.get("deepstack_visual_indexes", ()))
    width = config.hidden_size
    kv_row = 2 * text["num_hidden_layers"] * text["num_key_value_heads"] * text["head_dim"] * size
    prompt = prompt_maximum(config)
    visual = (m.visual_tokens + m.visual_step) * width * (1 + depth) * size
    sound = (m.audio_tokens + m.audio_step) * width * size if config.audio else 0
    ttt = ttt_config(config)
    fast = 0
    if ttt is not None:
        inner = ttt.inner_size or ttt.head_dim
        floats = ttt.num_heads * (2 * ttt.head_dim * inner + inner + ttt.head_dim)
        # Weights, their gradient, and the vectors of conjugate gradient.
        fast = floats * 4 * 6 + (ttt.mini_batch + ttt.lag_distance) * width * size
        fast += ttt.mini_batch * width * 4 * 12
    chunk = config.prefill_chunk
    activations = chunk * (text["intermediate_size"] * 3 + width * 6) * size + chunk * prompt
    activations += text["vocab_size"] * 4 * 2 + prompt * width * size
    heads = config.audio.heads if config.audio else 0
    encoders = 64 << 20 if not heads else heads * 1500 * 1500 * size + (128 << 20)
    weights = sum(seen.values()) * size
    if config.weights == "int8":
        saved, widest = saved_bytes(network, size)
        weights -= saved
        activations += widest
    items = {
        "weights": weights,
        "token memory": visual + sound,
        "fast weights": fast,
        "view of a question": visual // 2 + sound // 2,
        "keys and values": prompt * kv_row * (2 if config.prefill == "cached" else 1),
        "activations": activations,
        "encoders' workspace": encoders,
        "CUDA context": OVERHEAD_BYTES,
    }
    return Plan(config, items, prompt)


def parse_bytes(text: str) -> int:
    """Bytes of "32GiB", "24GB", "8g" or a plain number.

    Raises:
        argparse.ArgumentTypeError: none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 32GiB")
    number, unit, binary = match.groups()
    return int(
        float(number) * (1024 if binary or not text.lower().endswith("b") else 1000) ** " kmgt".index(unit or " ")
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn plan`."""
    parser.add_argument("--profile", default="video_salmonn_s_8b", help=f"one of {', '.join(PROFILES)}, or a folder")
    parser.add_argument("--device-memory", type=parse_bytes, help="such as 32GiB; default: this machine's GPU")
    parser.add_argument("--prefill", choices=("exact", "cached"), help="how questions read the memory")
    parser.add_argument("--weights", choices=WEIGHTS, help="full, or int8 for the language model's decoder layers")


def run(args: argparse.Namespace) -> int:
    """Print the plan: 0 when it fits, 1 when it does not, 2 when it cannot be made."""
    try:
        config = bundled_config() if args.profile == TINY else None
        if config is None:
            config = profile(args.profile) if args.profile in PROFILES else read_folder(Path(args.profile)).config
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if args.prefill:
        config = config.replace(prefill=args.prefill)
    if args.weights:
        config = config.replace(weights=args.weights)
    memory = args.device_memory
    if memory is None and torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
    result = plan(config)
    print(f"{config.name}, {config.dtype}, weights {config.weights}, prefill {config.prefill}")
    for name, count in result.items.items():
        print(f"  {name:22s} {count / GIB:8.2f} GiB")
    print(f"  {'in all':22s} {result.total / GIB:8.2f} GiB")
    print(
        f"longest prompt: {result.prompt_tokens:,} tokens at 1 h, 3 h and 100 h alike (time marks of kept tokens only)"
    )
    if memory is None:
        print("no GPU here and no --device-memory given: nothing to compare with")
        return 0
    fits = result.total <= memory
    print(f"{'fits' if fits else 'does not fit'} {memory / GIB:.1f} GiB")
    best = next((n for n in PROFILES if plan(profile(n).replace(weights=config.weights)).total <= memory), None)
    print(f"largest profile that fits: {best or 'none'}")
    return 0 if fits else 1
