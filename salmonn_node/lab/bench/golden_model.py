"""Golden families of the network: end to end through the node's code, positions, and prompts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from salmonn_node.lab.bench.golden import Check, GoldenFile, close, exact, family
from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.model.answer_decoder import AnswerDecoder
from salmonn_node.model.checkpoint_names import network_name
from salmonn_node.model.config import AudioConfig, MemoryConfig, ReaderConfig, SalmonnConfig
from salmonn_node.model.network import Network
from salmonn_node.model.prompt import time_mark
from salmonn_node.model.released_prompt import audio_pads, mrope_positions, patch_time, render_turn
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.tokenizer import SpecialIds
from salmonn_node.model.video_salmonn_s import CheckpointInfo, VideoSalmonnS
from salmonn_node.stream.observations import SECOND_NS

SPECIALS = SpecialIds(151_644, 151_645, 151_652, 151_653, 151_655, 151_656, 151_669)
TEXTS = {
    "<|im_start|>": 151_644,
    "<|im_end|>": 151_645,
    "<|vision_start|>": 151_652,
    "<|vision_end|>": 151_653,
    "<|image_pad|>": 151_655,
    "<|video_pad|>": 151_656,
    "<|audio_pad|>": 151_669,
}
VOCABULARY = 151_936
START_NS = SECOND_NS


class CodePointTokenizer:
    """Toy tokenizer of the vectors: special tokens have their real ids, other characters their code point."""

    specials = SPECIALS
    ends: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        ids: list[int] = []
        for piece in re.split(r"(<\|\w+\|>)", text):
            ids += [TEXTS[piece]] if piece in TEXTS else [ord(c) for c in piece]
        return ids

    def escape(self, text: str) -> str:
        """Return the text unchanged. The questions of the vectors contain no special tokens."""
        return text

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids without special tokens."""
        known = set(TEXTS.values())
        return "".join(chr(i) for i in ids if i not in known)


def e2e_config(metadata: dict[str, str], tensors: dict[str, Tensor]) -> SalmonnConfig:
    """Configuration of the vectors' tiny network: sizes from the tensors, settings from the checked file's metadata."""
    visual, step = int(metadata["fixed_memory_size"]), int(metadata["stepsize"])
    conjugate = int(metadata.get("CG_max_iter", 0))
    hidden = tensors["param.lm_head.weight"].shape[1] if "param.lm_head.weight" in tensors else 32
    return SalmonnConfig(
        name="golden",
        vision={
            "depth": 3,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": hidden,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1, 2],
        },
        text={
            "vocab_size": VOCABULARY,
            "hidden_size": hidden,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 262_144,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5_000_000.0,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
        },
        audio=AudioConfig(
            d_model=16,
            layers=1,
            heads=2,
            ffn=32,
            mel_bins=8,
            qformer_hidden=24,
            qformer_layers=2,
            qformer_heads=2,
            qformer_ffn=48,
        ),
        ttt={
            "num_heads": 2,
            "mini_batch": int(metadata["mb"]),
            "base_lr": float(metadata["ttt_base_lr"]),
            "lag_distance": int(metadata["lag"]),
            "lag_weight": 0.1,
            "optimizer": "hf" if conjugate else "sgd",
            "cg_iterations": max(conjugate, 1),
        },
        memory=MemoryConfig(visual, int(metadata["fixed_memory_size_audio"]), step, step, "released", "merge_released"),
        reader=ReaderConfig(
            int(metadata["workingmemsize"]), int(metadata["memgroupsize"]), float(metadata["div_factor"])
        ),
        mode="released",
        time_marks="all",
        prefill_chunk=512,
        dtype="float32",
    )


def e2e_model(config: SalmonnConfig, inputs: GoldenFile) -> VideoSalmonnS:
    """Make the network with the vectors' weights, which have the names of the released checkpoint."""
    network = Network(config)
    state = network.state_dict()
    given = {name.removeprefix("param."): t for name, t in inputs.tensors.items() if name.startswith("param.")}
    used = inputs.tensors["used_token_ids"].long()
    for name, rows in (("model.language_model.embed_tokens.weight", "embed_rows"), ("lm_head.weight", "lm_head_rows")):
        given[name] = torch.zeros(VOCABULARY, config.hidden_size)
        given[name][used] = inputs.tensors[rows]
    given["model.audio.embed_positions.weight"] = inputs.tensors["audio_embed_positions"]
    for name, tensor in given.items():
        ours = network_name(name)
        if ours not in state:
            raise ValueError(f"{name} has no place in the network")
        state[ours] = tensor
    network.load_state_dict(state)
    return VideoSalmonnS(config, network, CodePointTokenizer(), CheckpointInfo("golden", "golden", trained=False))


def observe_inputs(model: VideoSalmonnS, inputs: GoldenFile) -> Iterator[tuple[StreamMemory, int]]:
    """Observe the vectors' frames patch by patch, then the sound. Yield the memory after each patch and at the end."""
    memory = model.new_memory()
    count, high, wide = inputs.tensors["video_grid_thw"][0].tolist()
    pixels = inputs.tensors["pixel_values_videos_f16"].float().unflatten(0, (count, high * wide))
    for patch in range(count):
        stamps = (START_NS + 2 * patch * SECOND_NS, START_NS + (2 * patch + 1) * SECOND_NS)
        model.writer.observe_patch(memory, pixels[patch], (high, wide), stamps)
        yield memory, patch + 1
    for window, mel in enumerate(inputs.tensors["mel_f16"].float()):
        model.writer.observe_window(memory, mel, START_NS + window * 30 * SECOND_NS)
    yield memory, count


def question_of(inputs: GoldenFile) -> str:
    """Return the user text of the vectors' prompt, with `<video>` in place of the memory."""
    ids = inputs.tensors["input_ids"][0].tolist()
    tokenizer = CodePointTokenizer()
    last = len(ids) - 1 - ids[::-1].index(SPECIALS.vision_end)
    after = ids[last + 1 : len(ids) - 1 - ids[::-1].index(SPECIALS.im_end)]
    before = tokenizer.decode(ids[: ids.index(SPECIALS.vision_start)]).removeprefix("user\n")
    return before[: before.rindex("<")] + "<video>" + tokenizer.decode(after)


@family("e2e_noread*", "end to end, every kept token read")
def check_noread(file: GoldenFile) -> Iterator[Check]:
    """Check towers, fast weights, memory, prompt, logits and generated ids."""
    yield from _check_e2e(file, 1e-4 if int(file.metadata.get("CG_max_iter", 0)) else 5e-5)


@family("e2e_read*", "end to end with the prompt-dependent reader")
def check_read(file: GoldenFile) -> Iterator[Check]:
    """Check the same, and what each layer keeps after each group."""
    yield from _check_e2e(file, 1e-4)


@torch.no_grad()
def _check_e2e(file: GoldenFile, tolerance: float) -> Iterator[Check]:
    inputs = file.neighbour("e2e_weights_inputs.safetensors")
    config = e2e_config(file.metadata, inputs.tensors)
    model = e2e_model(config, inputs)
    want = file.tensors
    tokens = int(inputs.tensors["video_grid_thw"][0].prod()) // 4
    per_patch = tokens // int(inputs.tensors["video_grid_thw"][0, 0])
    encoded: list[Tensor] = []
    heard: list[Tensor] = []
    vision, audio = model.encoder.vision, model.encoder.audio
    assert audio is not None

    def seen(pixels: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        out, deepstack = vision(pixels, grid)
        encoded.append(torch.cat([out, *deepstack], dim=-1)[0])
        return out, deepstack

    def listened(mel: Tensor) -> Tensor:
        heard.append(audio(mel))
        return heard[-1]

    model.encoder.vision, model.encoder.audio = seen, listened
    for memory, patches in observe_inputs(model, inputs):
        if patches % config.slice_patches == 0 and "kept_call0" in want and len(heard) == 0:
            call = patches // config.slice_patches - 1
            got = memory.kept("visual")[0]
            yield exact(f"kept_call{call}", got, want[f"kept_call{call}"])
            assert memory.state is not None
            if f"ttt.slice{call}.W1" in want:
                yield close(f"ttt.slice{call}.W1", memory.state.W1, want[f"ttt.slice{call}.W1"], tolerance)
    yield from _check_towers(want, torch.cat(encoded), torch.cat(heard), config, per_patch, tolerance)
    yield from _check_fast_weights(want, torch.cat(encoded)[:, : config.hidden_size], model, per_patch, tolerance)

    view = model.view(memory)
    assert view.visual is not None
    assert view.audio is not None
    assert view.visual.deepstack is not None
    last = max((int(k.removeprefix("kept_call")) for k in want if k.startswith("kept_call")), default=-1)
    kept = {"video_kept": view.visual.index, f"kept_call{last}": view.visual.index, "audio_pos_idx": view.audio.index}
    for key, index in kept.items():
        if key in want:
            yield exact(key, index, want[key])
    held = {"video_mem": view.visual.z, "audio_mem": view.audio.z}
    held |= {f"deepstack_mem{i}": rows for i, rows in enumerate(view.visual.deepstack)}
    for key, rows in held.items():
        if key in want:
            yield close(key, rows, want[key], tolerance)
    yield from _check_positions(want, inputs)
    yield from _check_answer(file, model, view, question_of(inputs), inputs, tolerance)


def _check_towers(
    want: dict[str, Tensor], seen: Tensor, heard: Tensor, config: SalmonnConfig, per_patch: int, tolerance: float
) -> Iterator[Check]:
    width, size = config.hidden_size, config.slice_patches * per_patch
    for key in (k for k in want if k.startswith("vit.slice")):
        number, name = re.fullmatch(r"vit\.slice(\d+)\.(\w+)", key).groups()  # type: ignore[union-attr]
        part = 0 if name == "embeds" else 1 + int(name.removeprefix("deepstack"))
        rows = seen[int(number) * size : (int(number) + 1) * size, part * width : (part + 1) * width]
        yield close(key, rows, want[key], tolerance)
    if "audio_embeds" in want:
        yield close("audio_embeds", heard, want["audio_embeds"], tolerance)


def _check_fast_weights(
    want: dict[str, Tensor], seen: Tensor, model: VideoSalmonnS, per_patch: int, tolerance: float
) -> Iterator[Check]:
    ttt = model.network.ttt
    assert ttt is not None
    state = ttt.init_state()
    for number, rows in enumerate(seen.split(model.config.slice_patches * per_patch)):
        out = ttt.padded_slice_output(rows, (2, 3), state)
        for key, got in ((f"ttt.slice{number}.out_padded", out), (f"ttt.slice{number}.W1", state.W1)):
            if key in want:
                yield close(key, got, want[key], tolerance)


def _check_positions(want: dict[str, Tensor], inputs: GoldenFile) -> Iterator[Check]:
    count, high, wide = inputs.tensors["video_grid_thw"][0].tolist()
    ids = inputs.tensors["input_ids"][0].tolist()
    positions, after = mrope_positions(ids, [(high // 2, wide // 2)] * count, SPECIALS)
    if "rope_position_ids_full" in want:
        yield exact("rope_position_ids_full", positions[:, None], want["rope_position_ids_full"])
    if "rope_delta" in want:
        yield exact("rope_delta", torch.tensor([[after - len(ids)]]), want["rope_delta"])


def _check_answer(
    file: GoldenFile, model: VideoSalmonnS, view: SceneView, question: str, inputs: GoldenFile, tolerance: float
) -> Iterator[Check]:
    want = file.tensors
    used = inputs.tensors["used_token_ids"].long()
    logits: list[Tensor] = []
    passes: list[tuple[Tensor, Tensor]] = []
    language = model.network.language
    hooks = [
        language.lm_head.register_forward_hook(lambda _m, _i, out: logits.append(out[-1])),
        language.register_forward_pre_hook(lambda _m, args: passes.append((args[0].embeddings, args[0].positions))),
    ]
    steps = int(file.metadata["max_new_tokens"])
    decoder = model.answers.read(question, view)
    generation = decoder.decode(steps, lambda: False, None)
    for hook in hooks:
        hook.remove()
    prompt = decoder.prompt
    if "lm00.modality_mask" in want:
        yield exact("lm00.modality_mask", (prompt.memory >= 0)[None], want["lm00.modality_mask"])
    if "lm00.position_ids" in want and want["lm00.position_ids"].shape[-1] == len(prompt):
        yield exact("lm00.position_ids", prompt.positions[:, None], want["lm00.position_ids"])
    if "lm00.inputs_embeds" in want and want["lm00.inputs_embeds"].shape[1] == len(prompt):
        reading = [p for p in passes if len(p[0]) > 1]
        if not decoder.reading.history:
            embeddings = torch.cat([p[0] for p in reading])[None]
            yield close("lm00.inputs_embeds", embeddings, want["lm00.inputs_embeds"], tolerance)
    if "lm01.position_ids" in want and want["lm01.position_ids"].shape[-1] == 1:
        first = next(p for p in passes if len(p[0]) == 1)
        yield exact("lm01.position_ids", first[1][:, None], want["lm01.position_ids"])
        yield close("lm01.inputs_embeds", first[0][None], want["lm01.inputs_embeds"], tolerance)
    if "generated" in want:
        got = torch.tensor(generation.token_ids)
        yield exact("generated", got, want["generated"].flatten()[-len(got) :])
    if "logits_used_rows" in want:
        yield close("logits_used_rows", torch.stack(logits)[:, used], want["logits_used_rows"], tolerance)
    yield from _check_reader(want, decoder, tolerance)


def _check_reader(want: dict[str, Tensor], decoder: AnswerDecoder, tolerance: float) -> Iterator[Check]:
    """Check what the reader keeps. `group{g}` keys number memory tokens among the tokens after assembly."""
    keys = [re.fullmatch(r"group(\d+)\.layer(\d+)\.kept_mm_index", k) for k in want]
    history = decoder.reading.history
    for match in (m for m in keys if m):
        group, layer = (int(x) for x in match.groups())
        selection, rows = history[group][layer]
        mine = rows[selection.is_memory]
        name = f"group{group}.layer{layer}"
        yield exact(f"{name}.kept_mm_index", mine, want[f"{name}.kept_mm_index"].flatten())
        if f"{name}.kept_mm_score" in want:
            got = selection.scores[selection.is_memory]
            yield close(f"{name}.kept_mm_score", got, want[f"{name}.kept_mm_score"].flatten(), tolerance)
        if f"{name}.n_kept_total" in want:
            total = torch.tensor(len(rows)).view_as(want[f"{name}.n_kept_total"])
            yield exact(f"{name}.n_kept_total", total, want[f"{name}.n_kept_total"])


@family("rope_index*", "M-RoPE positions of unsliced prompts")
def check_rope_index(file: GoldenFile) -> Iterator[Check]:
    """Check positions and delta of each case, including thinned prompts."""
    for case in sorted({key.split(".")[0] for key in file.tensors}):
        ids = file.tensors[f"{case}.input_ids"][0].tolist()
        grids = []
        for count, high, wide in file.tensors[f"{case}.grid"].tolist():
            grids += [(high // 2, wide // 2)] * count
        positions, after = mrope_positions(ids, grids, SPECIALS)
        yield exact(f"{case}.position_ids", positions[:, None], file.tensors[f"{case}.position_ids"])
        yield exact(f"{case}.delta", torch.tensor([[after - len(ids)]]), file.tensors[f"{case}.delta"])


@family("prompt_cases*", "rendered prompts")
def check_prompts(file: GoldenFile) -> Iterator[Check]:
    """Check rendered text and audio pads of each patch. Long texts are compared by digest."""
    for name, case in file.data.items():
        frames = case["frame_idx"]
        frames = list(range(2 * case["T"])) if isinstance(frames, str) else frames
        times = [index / case["fps"] for index in frames]
        marks = [
            time_mark(patch_time(times[2 * t], times[2 * t + 1] if 2 * t + 1 < len(times) else None))
            for t in range(case["T"])
        ]
        pads = None
        if case["audio_lengths"]:
            second = case["second_per_grid_ts"][0] if case["second_per_grid_ts"] else None
            pads = audio_pads(case["T"], sum(case["audio_lengths"]), second)
            if isinstance(case["audio_pads_per_patch"], list):
                yield exact(f"{name}.audio_pads_per_patch", pads, case["audio_pads_per_patch"])
            else:
                text = f"sum {sum(pads)}, unique {sorted(set(pads))}, last {pads[-1]}"
                yield exact(f"{name}.audio_pads_per_patch", text, case["audio_pads_per_patch"])
        high, wide = case["grid_hw"]
        text = render_turn(case["user"], marks, high * wide // 4, pads, case["ref"])
        if "rendered_text_user_then_assistant" in case:
            yield exact(f"{name}.text", text, case["rendered_text_user_then_assistant"])
        if "rendered_text_sha256" in case:
            yield exact(f"{name}.sha256", hashlib.sha256(text.encode()).hexdigest(), case["rendered_text_sha256"])
            yield exact(f"{name}.length", len(text), case["rendered_text_len"])
            yield exact(f"{name}.n_vision_start", text.count("<|vision_start|>"), case["n_vision_start"])
            yield exact(f"{name}.n_video_pad", text.count("<|video_pad|>"), case["n_video_pad"])
