"""`salmonn plan [CHECKPOINT]`: which networks fit this machine, or what one network needs in memory."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from typing import TYPE_CHECKING

from salmonn_node.model.checkpoint_cache import TINY, find
from salmonn_node.model.known_checkpoints import KNOWN
from salmonn_node.model.network_settings import NetworkSettings

if TYPE_CHECKING:
    from salmonn_node.model.config import SalmonnConfig
    from salmonn_node.model.device_memory import DeviceMemory
    from salmonn_node.model.plan import MemoryPlan, Weighed

GIB = 1 << 30
# Budgets that are tried, largest first.
BUDGETS = (16_384, 8_192, 4_096, 2_048)
# What to take, best first: more parameters before more bits, and 4 bits last.
PREFERRED = (
    ("qwen3-vl-8b", "full"),
    ("qwen3-vl-8b", "int8"),
    ("qwen3-vl-4b", "full"),
    ("qwen3-vl-4b", "int8"),
    ("qwen3-vl-2b", "full"),
    ("qwen3-vl-8b", "int4"),
    ("qwen3-vl-4b", "int4"),
    ("qwen3-vl-2b", "int8"),
    ("qwen3-vl-2b", "int4"),
)
# Without a GPU only the smallest answers within minutes.
PREFERRED_ON_CPU = tuple(pair for pair in PREFERRED if pair[0] == "qwen3-vl-2b")
# More may fit, but an answer over more tokens than this takes a CPU longer than one likes to wait.
PATIENT_TOKENS = 4096


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
    from salmonn_node.commands.network_flags import add_network_flags

    names = f"{TINY}, {', '.join(KNOWN)}, a folder or a hub id"
    parser.add_argument("checkpoint", nargs="?", help=f"one network, item by item: {names}; left out: a table of all")
    parser.add_argument("--device-memory", type=parse_bytes, help="such as 32GiB; default: what is free here")
    add_network_flags(parser, without=("checkpoint", "max_new_tokens"))


def run(args: argparse.Namespace) -> int:
    """Print the plan: 0 when something fits, 1 when nothing does, 2 when it cannot be made."""
    from salmonn_node.model.device_memory import DeviceMemory, device_memory
    from salmonn_node.model.network_settings import device_of

    try:
        if args.device_memory:
            device = "cpu" if args.device == "cpu" else "cuda"
            memory = DeviceMemory(device, "as given", args.device_memory, args.device_memory)
        else:
            memory = device_memory(device_of(args.device))
        print(f"{'Device' if args.device_memory else 'This machine'}: {memory.describe()}")
        return _one(args, memory) if args.checkpoint else _all(args, memory)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2


def known_config(checkpoint: str) -> SalmonnConfig:
    """The configuration of a checkpoint that is here, or of the published sizes of a name.

    Raises:
        FileNotFoundError: it is not on this machine and no published one.
        ValueError: an unknown name.
    """
    from salmonn_node.model.checkpoint import config_of
    from salmonn_node.model.profiles import profile

    try:
        return config_of(checkpoint)
    except FileNotFoundError:
        if checkpoint not in KNOWN:
            raise
        return profile(KNOWN[checkpoint].profile)


def _one(args: argparse.Namespace, memory: DeviceMemory) -> int:
    from salmonn_node.commands.network_flags import network_of
    from salmonn_node.model.plan import plan

    config = network_of(args).changed(known_config(args.checkpoint))
    result = plan(config, memory.device)
    kept = f"{config.memory.visual_tokens} visual tokens" + (
        f", {config.memory.audio_tokens} audio tokens" if config.audio else ", no hearing"
    )
    print(f"{config.name}, {config.dtype}, weights {config.weights}, prefill {config.prefill}, {kept}")
    for name, count in result.items.items():
        print(f"  {name:22s} {count / GIB:8.2f} GiB")
    print(f"  {'in all':22s} {result.total / GIB:8.2f} GiB")
    print(f"longest prompt: {result.prompt_tokens:,} tokens, after 1 hour and after 100 hours alike")
    fits = result.total <= memory.free
    print(f"{'fits' if fits else 'does not fit'} into {memory.free / GIB:.1f} GiB")
    return 0 if fits else 1


def largest(
    config: SalmonnConfig, weighed: Weighed, settings: NetworkSettings, device: str, free: int
) -> MemoryPlan | None:
    """The plan with the most visual tokens of BUDGETS that fits; the settings' own budget where they name one."""
    from salmonn_node.model.plan import plan

    for budget in (settings.visual_tokens,) if settings.visual_tokens else BUDGETS:
        result = plan(dataclasses.replace(settings, visual_tokens=budget).changed(config), device, weighed=weighed)
        if result.total <= free:
            return result
    return None


def _all(args: argparse.Namespace, memory: DeviceMemory) -> int:
    from salmonn_node.commands.network_flags import network_of
    from salmonn_node.model.config import WEIGHTS
    from salmonn_node.model.plan import weigh

    settings = network_of(args)
    found: dict[tuple[str, str], MemoryPlan] = {}
    print("Visual tokens that fit, and the memory that it then takes, by checkpoint and weights:\n")
    print(f"{'checkpoint':16s} {'downloaded':10s}" + "".join(f"{weights:>20s}" for weights in WEIGHTS))
    for name in KNOWN:
        config, cells = known_config(name), []
        weighed = weigh(config)
        for weights in WEIGHTS:
            result = largest(
                config, weighed, dataclasses.replace(settings, weights=weights), memory.device, memory.free
            )
            if result is not None:
                found[name, weights] = result
            cells.append(
                "-" if result is None else f"{result.config.memory.visual_tokens}, {result.total / GIB:.1f} GiB"
            )
        print(f"{name:16s} {'yes' if _here(name) else 'no':10s}" + "".join(f"{cell:>20s}" for cell in cells))
    wanted = PREFERRED if memory.device == "cuda" else PREFERRED_ON_CPU
    best = next((pair for pair in wanted if pair in found), None)
    if best is None:
        print(f"\nNothing fits into {memory.free / GIB:.1f} GiB but {TINY}, which knows a synthetic flat only.")
        return 1
    name, weights = best
    tokens = found[best].config.memory.visual_tokens
    if memory.device == "cpu" and not settings.visual_tokens:
        tokens = min(tokens, PATIENT_TOKENS)
    flags = f"--checkpoint {name} --weights {weights} --visual-tokens {tokens}"
    print("\nTo paste:")
    if not _here(name):
        print(f"  salmonn checkpoint get {name}")
    print(f'  salmonn ask --bag YOUR_BAG {flags} "where did you last see the red backpack?"')
    if memory.device == "cpu":
        print(
            "  # without a GPU, an answer takes minutes: its time grows with the tokens and the length of the recording"
        )
    print(f"For the node's parameters: checkpoint: {name}, weights: {weights}, visual_tokens: {tokens}")
    return 0


def _here(checkpoint: str) -> bool:
    try:
        find(checkpoint)
    except FileNotFoundError:
        return False
    return True
