"""Golden families of the token memory and the reader: discard rules, audio merging, pruning."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from salmonn_node.lab.bench.golden import Check, GoldenFile, close, exact, family
from salmonn_node.memory.token_memory import TokenBatch, TokenMemory, TokenMemoryConfig
from salmonn_node.model import token_selection

# Keys that depend on the device's top-k order or on bf16 rounding.
_DEVICE_DEPENDENT = re.compile(r"^ties|_bf16$")


def _tokens(z: Tensor, first: int = 0, deepstack: Tensor | None = None) -> TokenBatch:
    """Make tokens. The vectors give no stamp, source or place."""
    index = first + torch.arange(len(z))
    zeros = torch.zeros(len(z), dtype=torch.int64)
    return TokenBatch(z, deepstack, index, zeros, index, zeros, zeros, zeros - 1)


def _sizes(key: str) -> tuple[int, int]:
    """Read budget and step from a key such as `static.M64_s32.kept`."""
    match = re.search(r"M(\d+)_s(\d+)", key)
    if match is None:
        raise ValueError(f"{key}: no sizes M.._s.. in this key")
    return int(match[1]), int(match[2])


def _kept(z: Tensor, rule: str, budget: int, step: int) -> TokenBatch:
    """Return the memory after one stream. As in the release after a slice, it ends with a step for the rest."""
    memory = TokenMemory(TokenMemoryConfig(budget=budget, step=step, rule=rule))
    memory.append(_tokens(z))
    memory.settle()
    return memory.view()


@family("mem_discard_paper*", "the literal discard rule of the paper")
def check_discard_paper(file: GoldenFile) -> Iterator[Check]:
    """Check kept indices exactly. The streams are in the neighbouring file of the release's rule."""
    beside = file.path.with_name(file.path.name.replace("_paper_DERIVED", ""))
    source = file.neighbour(beside.name if beside.exists() else "mem_discard.safetensors").tensors
    for key, want in file.tensors.items():
        name = key.split(".")[0]
        if name.endswith("_concat"):
            name = name.removesuffix("_concat")
            stream = torch.cat([torch.cat([z, *_deepstack(source, name, i)], dim=1) for i, z in _slices(source, name)])
        else:
            stream = source[f"{name}.x"]
        yield exact(key, _kept(stream, "paper", *_sizes(key)).index, want)


def _slices(tensors: dict[str, Tensor], name: str) -> Iterator[tuple[int, Tensor]]:
    i = 0
    while f"{name}.v{i}" in tensors:
        yield i, tensors[f"{name}.v{i}"]
        i += 1


def _deepstack(tensors: dict[str, Tensor], name: str, i: int) -> list[Tensor]:
    rows: list[Tensor] = []
    while f"{name}.ds{i}.{len(rows)}" in tensors:
        rows.append(tensors[f"{name}.ds{i}.{len(rows)}"])
    return rows


@family("mem_discard*", "the discard rule of the public release")
def check_discard(file: GoldenFile) -> Iterator[Check]:
    """Check slices with deepstack (`NAME.v0`...), streams (`NAME.x`, `NAME.M.._s...kept`), and steps of 1 (`fifo`)."""
    tensors = file.tensors
    names = {key.split(".")[0] for key in tensors if key.endswith(".v0")}
    for name in sorted(n for n in names if not _DEVICE_DEPENDENT.search(n)):
        yield from _check_slices(file, name)
    for key, want in tensors.items():
        name, _, rest = key.partition(".")
        if _DEVICE_DEPENDENT.search(key) or not rest.endswith("kept"):
            continue
        sizes = (len(want), 1) if rest == "kept" else _sizes(key)
        yield exact(key, _kept(tensors[f"{name}.x"], _rule(file), *sizes).index, want)


def _rule(file: GoldenFile) -> str:
    """Return the rule named in a file's metadata. Defaults to the release's rule."""
    rule = file.metadata.get("rule", "released")
    if rule not in ("released", "paper"):
        raise ValueError(f"metadata: rule {rule!r} is not one of the rules that vectors exist for")
    return rule


def _check_slices(file: GoldenFile, name: str) -> Iterator[Check]:
    """Check kept ids and rows after each slice."""
    tensors = file.tensors
    match = re.search(r"M=(\d+) step=(\d+)", file.metadata.get(name, ""))
    if match is None:
        raise ValueError(f"metadata: {name} gives no M= and step=")
    memory = TokenMemory(TokenMemoryConfig(budget=int(match[1]), step=int(match[2]), rule=_rule(file)))
    first = 0
    for i, z in _slices(tensors, name):
        rows = _deepstack(tensors, name, i)
        memory.append(_tokens(z, first, torch.stack(rows) if rows else None))
        memory.settle()
        first += len(z)
        kept = memory.view()
        got = {f"kept_after{i}": kept.index, f"emb_after{i}": kept.z}
        if kept.deepstack is not None:
            got |= {f"ds{k}_after{i}": kept.deepstack[k] for k in range(len(rows))}
        for key, value in got.items():
            if f"{name}.{key}" in tensors:
                yield exact(f"{name}.{key}", value, tensors[f"{name}.{key}"])


@family("mem_audio_merge*", "audio merging of the public release")
def check_audio_merge(file: GoldenFile) -> Iterator[Check]:
    """Check merged embeddings within 1e-6, and position ids exactly."""
    for key, want in file.tensors.items():
        if _DEVICE_DEPENDENT.search(key) or key.endswith(".x"):
            continue
        name = key.split(".")[0]
        kept = _kept(file.tensors[f"{name}.x"], "merge_released", *_sizes(key))
        if key.endswith(".pos_ids"):
            yield exact(key, kept.index, want)
        else:
            yield close(key, kept.z, want, 1e-6)


@family("reader_pruning*", "per-layer selection of the prompt-dependent reader")
def check_reader(file: GoldenFile) -> Iterator[Check]:
    """Check chained groups: scores of cached and new tokens within 1e-5, kept positions and flags exactly."""
    tensors = file.tensors
    for case in sorted({key.split(".")[0] for key in tensors}):
        start, stop = (_setting(file, case, key) for key in ("query_start_pos", "gen_start_pos"))
        cached = token_selection.nothing_cached()
        g = 0
        while f"{case}.g{g}.q" in tensors:
            name = f"{case}.g{g}."
            is_memory = tensors[f"{name}new_modality_mask"].bool()
            length = len(is_memory)
            queries = tensors[f"{name}q"][:, start % length : stop % length or length]
            diverse = f"{name}div_dist" in tensors
            scores = token_selection.dot_scores(queries, tensors[f"{name}k"], normalised=diverse)
            if diverse:
                term = token_selection.diversity_term(tensors[f"{name}hidden"], _delta(file, case))
                yield close(f"{name}div_dist", term, tensors[f"{name}div_dist"], 1e-5)
                scores = scores + term
            seen = torch.cat([cached.scores, token_selection.new_scores(scores, is_memory)])
            cached = token_selection.select(
                scores, is_memory, length - start % length, int(tensors[f"{name}memsize"]), cached
            )
            yield close(f"{name}scores_all", seen, tensors[f"{name}scores_all"], 1e-5)
            yield exact(f"{name}sel_indices", cached.positions, tensors[f"{name}sel_indices"])
            yield close(f"{name}kept_scores", cached.scores, tensors[f"{name}kept_scores"], 1e-5)
            yield exact(f"{name}kept_modality_mask", cached.is_memory, tensors[f"{name}kept_modality_mask"])
            g += 1


def _setting(file: GoldenFile, case: str, key: str) -> int:
    """Return a setting of the case, or of the whole file."""
    return int(file.metadata.get(f"{case}.{key}", file.metadata[key]))


def _delta(file: GoldenFile, case: str) -> float:
    """Return delta of a case from the metadata. If it is missing, fit one number for the whole case."""
    for key in (f"{case}.div_factor", "div_factor"):
        if key in file.metadata:
            return float(file.metadata[key])
    unit = token_selection.diversity_term(file.tensors[f"{case}.g0.hidden"], 1.0)
    return round(float((unit @ file.tensors[f"{case}.g0.div_dist"]) / (unit @ unit)), 4)
