"""Golden families of the token memory and the reader: discard rules, audio merging, pruning."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from salmonn_node.bench.golden import Check, GoldenFile, close, exact, family
from salmonn_node.memory.token_memory import TokenBatch, TokenMemory, TokenMemoryConfig

# Keys that depend on the device's top-k or on bf16 rounding.
_DEVICE_DEPENDENT = re.compile(r"^ties|_bf16$")


def _tokens(z: Tensor, first: int = 0, deepstack: Tensor | None = None) -> TokenBatch:
    """Tokens of which the vectors tell no stamp, source or place."""
    index = first + torch.arange(len(z))
    zeros = torch.zeros(len(z), dtype=torch.int64)
    return TokenBatch(z, deepstack, index, zeros, index, zeros, zeros, zeros - 1)


def _sizes(key: str) -> tuple[int, int]:
    """Budget and step from a key such as `static.M64_s32.kept`."""
    match = re.search(r"M(\d+)_s(\d+)", key)
    if match is None:
        raise ValueError(f"{key}: no sizes M.._s.. in this key")
    return int(match[1]), int(match[2])


def _kept(z: Tensor, rule: str, budget: int, step: int) -> TokenBatch:
    """The memory after one stream that ends with a step of the rest, as the release does after a slice."""
    memory = TokenMemory(TokenMemoryConfig(budget=budget, step=step, rule=rule))
    memory.append(_tokens(z))
    memory.settle()
    return memory.view()


@family("mem_discard_paper*", "the literal discard rule of the paper")
def check_discard_paper(file: GoldenFile) -> Iterator[Check]:
    """Streams lie in mem_discard beside it; kept indices are exact."""
    source = file.neighbour("mem_discard.safetensors").tensors
    slices = [source[f"rand.v{i}"] for i in range(len([k for k in source if re.fullmatch(r"rand\.v\d+", k)]))]
    for key, want in file.tensors.items():
        name = key.split(".")[0]
        if name == "rand_concat":
            parts = [torch.cat([z, *_deepstack(source, i)], dim=1) for i, z in enumerate(slices)]
            stream = torch.cat(parts)
        else:
            stream = source[f"{name}.x"]
        yield exact(key, _kept(stream, "paper", *_sizes(key)).index, want)


def _deepstack(tensors: dict[str, Tensor], i: int) -> list[Tensor]:
    return [tensors[f"rand.ds{i}.{k}"] for k in range(3) if f"rand.ds{i}.{k}" in tensors]


@family("mem_discard*", "the discard rule of the public release")
def check_discard(file: GoldenFile) -> Iterator[Check]:
    """`rand`: slices with deepstack, kept ids and rows after each; `NAME.M.._s..`: one stream; `fifo`: steps of 1."""
    tensors = file.tensors
    match = re.search(r"M=(\d+) step=(\d+)", file.metadata.get("rand", ""))
    if "rand.v0" in tensors:
        if match is None:
            raise ValueError("metadata: rand names no M= and step=")
        memory = TokenMemory(TokenMemoryConfig(budget=int(match[1]), step=int(match[2]), rule="released"))
        first, i = 0, 0
        while f"rand.v{i}" in tensors:
            z = tensors[f"rand.v{i}"]
            rows = _deepstack(tensors, i)
            memory.append(_tokens(z, first, torch.stack(rows) if rows else None))
            memory.settle()
            first += len(z)
            kept = memory.view()
            yield exact(f"rand.kept_after{i}", kept.index, tensors[f"rand.kept_after{i}"])
            yield close(f"rand.emb_after{i}", kept.z, tensors[f"rand.emb_after{i}"], 0.0)
            for k in range(len(rows)):
                if f"rand.ds{k}_after{i}" in tensors:
                    assert kept.deepstack is not None
                    yield close(f"rand.ds{k}_after{i}", kept.deepstack[k], tensors[f"rand.ds{k}_after{i}"], 0.0)
            i += 1
    for key, want in tensors.items():
        name, _, rest = key.partition(".")
        if _DEVICE_DEPENDENT.search(key) or not rest.endswith("kept"):
            continue
        if name == "fifo" and rest == "kept":
            yield exact(key, _kept(tensors["fifo.x"], "released", len(want), 1).index, want)
        else:
            yield exact(key, _kept(tensors[f"{name}.x"], "released", *_sizes(key)).index, want)


@family("mem_audio_merge*", "audio merging of the public release")
def check_audio_merge(file: GoldenFile) -> Iterator[Check]:
    """Merged embeddings within 1e-6, position ids exact."""
    for key, want in file.tensors.items():
        if _DEVICE_DEPENDENT.search(key) or key.endswith(".x"):
            continue
        name = key.split(".")[0]
        kept = _kept(file.tensors[f"{name}.x"], "merge_released", *_sizes(key))
        if key.endswith(".pos_ids"):
            yield exact(key, kept.index, want)
        else:
            yield close(key, kept.z, want, 1e-6)
