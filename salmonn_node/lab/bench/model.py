"""The network as a stream on this machine: ingest, first token, and the cost of recomputing for each question."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch.nn.functional import scaled_dot_product_attention

from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.model.checkpoint import load
from salmonn_node.model.config import MemoryConfig, SalmonnConfig
from salmonn_node.model.kv_cache import causal_mask
from salmonn_node.model.plan import tokens_per_patch
from salmonn_node.model.profiles import profile
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame

QUESTION = "where did you last see the red ball?"
MEMORY_TOKENS = (1_000, 4_000, 20_000)
# A stream after which the tiny network's visual and audio budgets are both full.
FULL_S = 400


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All figures; times are process times, so that other work on the machine counts little."""
    return {
        "ingest": _ingest(args.seconds),
        "first token": [first_token(prefill, n) for prefill in ("exact", "cached") for n in MEMORY_TOKENS],
        "first token, full memory": [full_memory(prefill=prefill) for prefill in ("exact", "cached")],
        "ten questions": _ten_questions(args.frames),
        "8B": _full_size(),
    }


def tables(results: dict[str, Any]) -> list[Table]:
    """One table a part."""
    out = []
    for name, rows in results.items():
        rows = rows if isinstance(rows, list) else [rows]
        table = Table(*rows[0], title=name)
        for row in rows:
            table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
        out.append(table)
    return out


def _feed(model: VideoSalmonnS, memory: StreamMemory, seconds: int, sound: bool = True) -> None:
    rng = np.random.default_rng(0)
    for t in range(seconds):
        stamp = (t + 1) * SECOND_NS
        image = rng.integers(0, 255, (360, 640, 3), dtype=np.uint8)
        model.observe_frame(memory, Frame(stamp, "camera", image))
        if sound:
            samples = rng.normal(0, 0.1, 16_000).astype(np.float32)
            model.observe_audio(memory, AudioSpan(stamp, "microphone", samples))


def _ingest(seconds: int) -> dict[str, Any]:
    model = load()
    memory = model.new_memory()
    _feed(model, memory, 20)
    memory = model.new_memory()
    begin = time.process_time()
    _feed(model, memory, seconds)
    took = time.process_time() - begin
    begin = time.process_time()
    model.answer(QUESTION, model.view(memory), max_new_tokens=1)
    first = time.process_time() - begin
    return {
        "stream s": seconds,
        "x real time": seconds / took,
        "tokens kept": len(memory.view()),
        "first token s": first,
    }


@torch.no_grad()
def first_token(prefill: str, tokens: int) -> dict[str, Any]:
    """Time to first token with a memory of about this many tokens; the encoder is replaced by random tokens.

    Beside it the attention's own cost: bare scaled dot-product attention of the same sizes, in every layer.
    """
    size = MemoryConfig(tokens, tokens // 4, 64, 16, "place", "merge")
    text = dict(load().config.text) | {"max_position_embeddings": 262_144}
    model = load(memory=size, prefill=prefill, text=text, ttt=None, recall=False, evidence_head=False)
    generator = torch.Generator().manual_seed(0)
    rows, width = len(model.config.vision["deepstack_visual_indexes"]), model.config.hidden_size

    def see(pixels: torch.Tensor, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(1, 40, width, generator=generator), torch.zeros(rows, 1, 40, width)

    model.encoder.vision = see
    memory = model.new_memory()
    for patch in range(tokens // 40):
        stamp = SECOND_NS * (1 + 2 * patch)
        model.writer.observe_patch(memory, torch.zeros(160, 1), (10, 16), (stamp, stamp + SECOND_NS))
    begin = time.process_time()
    view = model.view(memory)
    decoder = model.answers.read(QUESTION, view)
    decoder.decode(1, lambda: False, None)
    took = time.process_time() - begin
    prompt = len(decoder.prompt)
    read = prompt - (len(view.prefill.keys) if view.prefill is not None else 0)
    return {
        "prefill": prefill,
        "memory tokens": len(view),
        "prompt": prompt,
        "rows read": read,
        "first token s": took,
        "attention alone s": _attention(model.config, prompt, read),
    }


def _attention(config: SalmonnConfig, prompt: int, read: int) -> float:
    """Process seconds of the attention of the last `read` rows of a prompt: in its chunks, all layers."""
    text, chunk = config.text, config.prefill_chunk
    d = text["head_dim"]
    key = torch.randn(1, text["num_key_value_heads"], prompt, d)
    took = 0.0
    for start in range(prompt - read, prompt, chunk):
        stop = min(start + chunk, prompt)
        query = torch.randn(1, text["num_attention_heads"], stop - start, d)
        mask = causal_mask(start, stop - start, query.device)
        seen = key[:, :, :stop]
        begin = time.process_time()
        scaled_dot_product_attention(query, seen, seen, attn_mask=mask, enable_gqa=True)
        took += time.process_time() - begin
    return took * text["num_hidden_layers"]


@torch.no_grad()
def full_memory(threads: int = 2, prefill: str = "exact", repeats: int = 5) -> dict[str, Any]:
    """First token of the tiny network with its own budgets full, sound and heads included; medians."""
    model = load(prefill=prefill)
    memory = model.new_memory()
    _feed(model, memory, FULL_S)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    wall, process = [], []
    try:
        for _ in range(repeats):
            begin = time.perf_counter(), time.process_time()
            view = model.view(memory)
            model.answer(QUESTION, view, max_new_tokens=1)
            wall.append(time.perf_counter() - begin[0])
            process.append(time.process_time() - begin[1])
    finally:
        torch.set_num_threads(before)
    return {
        "prefill": prefill,
        "threads": threads,
        "prompt": len(model.prompt(QUESTION, view)),
        "visual tokens": len(view.visual) if view.visual is not None else 0,
        "audio tokens": len(view.audio) if view.audio is not None else 0,
        "first token s": float(np.median(wall)),
        "process s": float(np.median(process)),
    }


def _ten_questions(frames: int) -> dict[str, Any]:
    """Ten questions, evenly spread over a stream: as a stream, and the release's way, everything anew for each."""
    model = load()
    rate = _cost_of_stream(model, frames)
    asked = [frames * (i + 1) // 10 for i in range(10)]
    memory = model.new_memory()
    _feed(model, memory, frames // 10)
    begin = time.process_time()
    model.answer(QUESTION, model.view(memory), max_new_tokens=4)
    answer = time.process_time() - begin
    stream, anew = frames * rate + 10 * answer, sum(asked) * rate + 10 * answer
    at_end = 10 * frames * rate + 10 * answer
    return {
        "frames": frames,
        "s per frame": rate,
        "s per answer": answer,
        "release / stream, spread": anew / stream,
        "release / stream, all at the end": at_end / stream,
    }


def _cost_of_stream(model: VideoSalmonnS, frames: int) -> float:
    memory = model.new_memory()
    begin = time.process_time()
    _feed(model, memory, frames)
    return (time.process_time() - begin) / frames


def _full_size() -> list[dict[str, Any]]:
    """FLOP and bytes of the 8B network by stage, from its sizes, and one decoder layer timed on this CPU."""
    config = profile("video_salmonn_s_8b")
    text, vision, audio, ttt = config.text, config.vision, config.audio, config.ttt
    assert audio is not None
    assert ttt is not None
    patches, tokens = 4 * tokens_per_patch(config), tokens_per_patch(config)
    seen, width = vision["hidden_size"], config.hidden_size
    block = 4 * seen**2 + 2 * seen * vision["intermediate_size"]
    mergers = (1 + len(vision["deepstack_visual_indexes"])) * (4 * seen) * (4 * seen + width)
    see = 2 * patches * vision["depth"] * (block + 2 * patches * seen) + 2 * tokens * mergers
    layer = 4 * audio.d_model**2 + 2 * audio.d_model * audio.ffn
    hear = 2 * 1500 * audio.layers * (layer + 2 * 1500 * audio.d_model)
    wide = text["num_attention_heads"] * text["head_dim"]
    narrow = text["num_key_value_heads"] * text["head_dim"]
    decoder = width * (2 * wide + 2 * narrow) + 3 * width * text["intermediate_size"]
    m = config.memory.visual_tokens + config.memory.audio_tokens
    read = 2 * m * text["num_hidden_layers"] * (decoder + m * wide)
    head = width // ttt["num_heads"]
    weights = 2 * (6 * width**2) + 2 * ttt["num_heads"] * head**2 * 2 * 3
    size = 2
    rows = [
        ("vision, one temporal patch", see, size * (vision["depth"] * block + mergers)),
        ("audio, one 30 s window", hear, size * audio.layers * layer),
        ("TTT layer, one mini-batch", weights * ttt["mini_batch"], size * 6 * width**2),
        (f"prefill of {m} memory tokens", read, size * text["num_hidden_layers"] * decoder),
        (
            f"decode, one token after {m}",
            2 * text["num_hidden_layers"] * (decoder + 2 * m * wide) + 2 * width * text["vocab_size"],
            size * (text["num_hidden_layers"] * (decoder + 2 * m * narrow) + width * text["vocab_size"]),
        ),
    ]
    result = [{"stage": name, "TFLOP": flop / 1e12, "GB read": read / 1e9, "CPU s": ""} for name, flop, read in rows]
    count = 256
    took = _decoder_layer(config, count)
    flop = 2 * count * (decoder + count * wide)
    result.append(
        {"stage": f"one decoder layer, {count} tokens, fp32", "TFLOP": flop / 1e12, "GB read": 0.0, "CPU s": took}
    )
    return result


@torch.no_grad()
def _decoder_layer(config: SalmonnConfig, tokens: int) -> float:
    """Process seconds of one decoder layer of full width with random weights."""
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

    text = dict(config.text) | {"num_hidden_layers": 1, "vocab_size": 8}
    decoder = Qwen3VLTextModel._from_config(Qwen3VLTextConfig(**text), attn_implementation="sdpa").eval()
    states = torch.randn(1, tokens, config.hidden_size)
    positions = torch.arange(tokens).expand(3, 1, -1)
    decoder(inputs_embeds=states[:, :8], position_ids=positions[..., :8], use_cache=False)
    begin = time.process_time()
    decoder(inputs_embeds=states, position_ids=positions, use_cache=False)
    return time.process_time() - begin
