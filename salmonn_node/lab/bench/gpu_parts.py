"""Parts of `salmonn bench gpu`: what each one times, and its floor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from salmonn_node.engines import networks
from salmonn_node.engines.cache import EngineCache
from salmonn_node.engines.runtime import BackendName, EngineSettings, load
from salmonn_node.engines.spec import DTYPES
from salmonn_node.engines.timing import seconds
from salmonn_node.engines.wrappers import StaticAudio, StaticVision, cast_copy, spec_of, weights_sha256
from salmonn_node.lab.bench.persist import SHAPES, full_state
from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.memory.token_memory import TokenMemory, TokenMemoryConfig
from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.kv_cache import KVCache
from salmonn_node.model.language import LanguageModel, PromptTokens
from salmonn_node.model.network import Network
from salmonn_node.ttt.layer import TTTConfig, TTTLayer

Shape = tuple[int, int, int, int]  # B, heads, rows, channels
WAYS: tuple[tuple[str, BackendName, bool], ...] = (
    ("torch", "torch", False),
    ("torch_graph", "torch_graph", False),
    ("torch_compiled_graph", "torch_graph", True),
    ("tensorrt", "tensorrt", False),
    ("tensorrt_rtx", "tensorrt_rtx", False),
)


aten = torch.ops.aten
ATTENTION = (
    aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention,
    aten._scaled_dot_product_flash_attention_for_cpu,
)


def attention_flops(query: Shape, key: Shape, value: Shape, *_: object, **__: object) -> int:
    """Count an attention with fewer heads of keys than of queries too, which torch's own counter refuses."""
    batch, heads, rows, width = query
    return 2 * batch * heads * rows * key[2] * (width + value[3])


class Bench:
    """Shared state of the parts: sizes, device, dtype, and the measured rates after `rates` has run."""

    def __init__(self, config: SalmonnConfig, repeats: int, cache: EngineCache):
        self.config, self.repeats, self.cache = config, repeats, cache
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = getattr(torch, config.dtype)
        self.flops_per_s = self.bytes_per_s = 0.0

    def ms(self, call: Callable[[], object], repeats: int | None = None) -> float:
        """Median milliseconds of a call."""
        return round(1e3 * seconds(call, repeats or self.repeats), 4)

    def floor_ms(self, call: Callable[[], object]) -> float:
        """Counted operations of a call divided by the measured matrix rate, in milliseconds."""
        with FlopCounterMode(display=False, custom_mapping=dict.fromkeys(ATTENTION, attention_flops)) as counter:
            call()
        return round(1e3 * counter.get_total_flops() / self.flops_per_s, 4)

    def made(self, make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
        """Make a module with random weights on the device, in the network's dtype."""
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            with self.device:
                module = make()
        finally:
            torch.set_default_dtype(before)
        return module.eval().requires_grad_(False)


def rates(bench: Bench) -> dict[str, Any]:
    """Measure the matrix and copy rates of this device, for the floors."""
    n = 8192 if bench.device.type == "cuda" else 256
    a, b = (torch.randn(n, n, device=bench.device, dtype=bench.dtype) for _ in range(2))
    bench.flops_per_s = 2 * n**3 / seconds(lambda: a @ b, bench.repeats)
    big = torch.empty((1 << 30) if bench.device.type == "cuda" else (1 << 20), dtype=torch.uint8, device=bench.device)
    other = torch.empty_like(big)
    bench.bytes_per_s = 2 * big.numel() / seconds(lambda: other.copy_(big), bench.repeats)
    return {"tflop_per_s": bench.flops_per_s / 1e12, "tb_per_s": bench.bytes_per_s / 1e12}


# The encoders have the weights of `salmonn engines build --profile`, so that its plans fit.


def _encoder(bench: Bench, static: StaticVision | StaticAudio) -> dict[str, Any]:
    spec = spec_of(static, bench.config.name)
    given = torch.rand(spec.inputs[0].shape).to(bench.device, DTYPES[spec.dtype])
    found: dict[str, Any] = {"shape": spec.label, "floor_ms": bench.floor_ms(lambda: static(given))}
    for label, backend, compiled in WAYS:
        settings = EngineSettings(backend, root=bench.cache.root, compiled=compiled, cuda_graph=True)
        encoder = load(spec, static, lambda: weights_sha256(static.tower, spec.dtype), settings)
        if encoder.backend == backend:
            found[f"{label}_ms"] = bench.ms(lambda run=encoder: run(given))
        else:
            found[f"{label}_why"] = str(encoder.reason)
        encoder.close()
    return found


def vision(bench: Bench) -> dict[str, Any]:
    """Time the vision tower on one temporal patch of a 640x360 camera."""
    camera = networks.DEFAULT_CAMERA if bench.config.name != "tiny" else (160, 96)
    tower = cast_copy(networks.random_towers(bench.config).vision, bench.dtype).to(bench.device)
    return _encoder(bench, StaticVision(tower, networks.camera_grid(bench.config, *camera)))


def audio(bench: Bench) -> dict[str, Any]:
    """Time the Whisper encoder, the Q-Former and the projection on one window."""
    assert bench.config.audio is not None
    tower = cast_copy(networks.random_towers(bench.config).audio, bench.dtype).to(bench.device)
    return _encoder(bench, StaticAudio(tower))


def fast_weights(bench: Bench) -> dict[str, Any]:
    """Time the TTT layer on one mini-batch, with SGD and Hessian-free steps."""
    values = {k: v for k, v in (bench.config.ttt or {}).items() if k in ("num_heads", "mini_batch", "lag_distance")}
    found: dict[str, Any] = {}
    for optimizer in ("sgd", "hf"):
        config = TTTConfig(hidden_size=bench.config.hidden_size, optimizer=optimizer, **values)
        layer = bench.made(lambda c=config: TTTLayer(c))
        state = layer.init_state()
        m = config.mini_batch
        tokens = torch.randn(m, config.hidden_size, device=bench.device, dtype=bench.dtype) * 0.1
        places = torch.zeros(m, 3, dtype=torch.long, device=bench.device)
        taken = bench.ms(lambda layer=layer, state=state, t=tokens, p=places: layer.observe(t, p, state))
        found[f"{optimizer}_ms"], found[f"{optimizer}_tokens_per_s"] = taken, round(m / taken * 1e3)
        found["mini_batch"] = m
    return found


def token_memory(bench: Bench) -> dict[str, Any]:
    """Time one step of the visual memory: from a step over the budget back to the budget."""
    m, d = bench.config.memory, bench.config.hidden_size
    levels = len(bench.config.vision["deepstack_visual_indexes"])
    total, per_patch = m.visual_tokens + 2 * m.visual_step, 64
    memory, taken, done = TokenMemory(TokenMemoryConfig(m.visual_tokens, m.visual_step, m.visual_rule)), [], 0
    while done < total:
        z = torch.randn(per_patch, d, device=bench.device, dtype=bench.dtype)
        deepstack = torch.randn(levels, per_patch, d, device=bench.device, dtype=bench.dtype)
        batch = TokenBatch.of_patch(
            z, deepstack, grid=(8, 8), first_index=done, stamp_ns=done, patch=done // per_patch, source=0, pose_id=-1
        )
        started = time.perf_counter()
        dropped = memory.append(batch)
        if bench.device.type == "cuda":
            torch.cuda.synchronize()
        if dropped:
            taken.append(1e3 * (time.perf_counter() - started))
        done += per_patch
    return {"step_ms": round(min(taken), 3), "steps": len(taken), "budget": m.visual_tokens, "step": m.visual_step}


def language(bench: Bench) -> dict[str, Any]:
    """Time the prefill of a full visual memory, and one decoding step after it."""
    count = bench.config.memory.visual_tokens
    model = bench.made(lambda: LanguageModel(replace(bench.config, prefill_chunk=2048)))
    layers, d = model.layers, bench.config.hidden_size

    def tokens(n: int, first: int) -> PromptTokens:
        rows = torch.randn(n, d, device=bench.device, dtype=bench.dtype) * 0.05
        positions = torch.arange(first, first + n, device=bench.device).expand(3, n)
        return PromptTokens(rows, positions, torch.zeros(n, dtype=torch.bool, device=bench.device))

    prompt, one, cache = tokens(count, 0), tokens(1, count), KVCache(layers)
    floor = bench.floor_ms(lambda: model.prefill(prompt, KVCache(layers)))
    prefill = bench.ms(lambda: model.prefill(prompt, KVCache(layers)), max(1, bench.repeats // 7))
    model.prefill(prompt, cache)

    def step() -> None:
        model.logits(model(one, cache)[-1])
        cache.truncate(count)

    weights = sum(p.numel() * p.element_size() for p in model.parameters()) - model.decoder.embed_tokens.weight.nbytes
    return {
        "tokens": count,
        "prefill_ms": prefill,
        "prefill_floor_ms": floor,
        "decode_ms": bench.ms(step),
        "decode_floor_ms": round(1e3 * (weights + cache.nbytes()) / bench.bytes_per_s, 4),
    }


def ingest(bench: Bench) -> dict[str, Any]:
    """Time the ingest of a camera at 1 FPS and a microphone through towers, fast weights and memory."""
    from salmonn_node.model.tiny import tiny_tokenizer
    from salmonn_node.model.video_salmonn_s import CheckpointInfo, VideoSalmonnS

    # Ingest does not use the language model. One layer of it is enough for the network's class.
    config = replace(bench.config, text={**bench.config.text, "num_hidden_layers": 1, "vocab_size": 512})
    network = bench.made(lambda: Network(config))
    info = CheckpointInfo("bench", "bench (untrained)", trained=False)
    model = VideoSalmonnS(config, network, tiny_tokenizer(), info)
    memory = model.new_memory()
    camera = networks.DEFAULT_CAMERA if config.name != "tiny" else (160, 96)
    grid = networks.camera_grid(config, *camera)
    width = int(config.vision["patch_size"]) ** 2 * 3 * 2
    assert config.audio is not None
    patches, window_s = (60, config.audio.window_s) if bench.repeats > 1 else (10, config.audio.window_s)
    pixels = torch.rand(grid[0] * grid[1], width) * 2 - 1
    mel = torch.rand(config.audio.mel_bins, 100 * window_s) * 2 - 1
    started, second = 0.0, 1_000_000_000
    for i in range(patches + 2):
        if i == 2:  # two patches warm up
            started = time.perf_counter()
        model.writer.observe_patch(memory, pixels, grid, (2 * i * second, (2 * i + 1) * second))
        if 2 * i % window_s == 0:
            model.writer.observe_window(memory, mel, 2 * i * second)
    if bench.device.type == "cuda":
        torch.cuda.synchronize()
    taken = time.perf_counter() - started
    return {"stream_s": 2 * patches, "wall_s": round(taken, 3), "times_real_time": round(2 * patches / taken, 2)}


def snapshot(bench: Bench) -> dict[str, Any]:
    """Time a snapshot's copy of a full memory on the device, for which ingest waits, and its way to the host."""
    shape = SHAPES["8B" if bench.config.name != "tiny" else "tiny"]
    state = {name: tensor.to(bench.device) for name, tensor in full_state(shape).items()}
    return {
        "mib": round(sum(tensor.nbytes for tensor in state.values()) / 2**20),
        "pause_ms": bench.ms(lambda: {name: tensor.clone() for name, tensor in state.items()}),
        "to_host_ms": bench.ms(lambda: {name: tensor.cpu() for name, tensor in state.items()}),
    }


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "rates": rates,
    "vision": vision,
    "audio": audio,
    "fast_weights": fast_weights,
    "token_memory": token_memory,
    "language": language,
    "ingest": ingest,
    "snapshot": snapshot,
}
