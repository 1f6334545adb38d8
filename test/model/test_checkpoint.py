"""Checkpoints: the release written with PEFT, our folder, a stock Qwen3-VL folder; and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from salmonn_node.answering.confidence import read_calibration
from salmonn_node.cli import main
from salmonn_node.model.checkpoint import CheckpointError, load, merged, save
from salmonn_node.model.checkpoint_names import network_name, released_name
from salmonn_node.model.config import AudioConfig
from salmonn_node.model.hf_config import rope
from salmonn_node.model.tiny import tiny_config, tiny_tokenizer
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame

TTT = {"num_heads": 8, "mini_batch": 1024, "base_lr": 0.1, "lag_weight": 0.1, "lag_distance": 1024}


def released_model(dtype: str) -> VideoSalmonnS:
    """A tiny random network with what the release has, and nothing of ours."""
    audio = AudioConfig(32, 1, 2, 64, 64, 30, 25, 48, 2, 2, 96)
    config = tiny_config(ttt=TTT, evidence_head=False, recall=False, audio=audio, dtype=dtype, tied_embeddings=False)
    return VideoSalmonnS.untrained(config, tiny_tokenizer(), seed=7)


def write_release(model: VideoSalmonnS, folder, infix: bool = False) -> None:
    """Split a network into the release's base/ and adapter folders; the adapter goes through PEFT itself."""
    network, config = model.network, model.config
    base, adapter = folder / "base", folder / "video_salmonn_s_ttt_lora"
    base.mkdir(parents=True)
    text = {k: v for k, v in config.text.items() if k != "rope_parameters"}
    text |= {"rope_theta": 10_000.0, "rope_scaling": {"rope_type": "default", "mrope_section": [8, 4, 4]}}
    a = config.audio
    audio = {
        "d_model": a.d_model,
        "encoder_layers": a.layers,
        "encoder_attention_heads": a.heads,
        "encoder_ffn_dim": a.ffn,
        "num_mel_bins": a.mel_bins,
        "max_source_positions": a.window_s * 50,
        "qformer_config": {
            "hidden_size": a.qformer_hidden,
            "num_hidden_layers": a.qformer_layers,
            "num_attention_heads": a.qformer_heads,
            "intermediate_size": a.qformer_ffn,
        },
    }
    values = {"text_config": text, "vision_config": dict(config.vision), "audio_config": audio, "dtype": config.dtype}
    (base / "config.json").write_text(json.dumps(values))
    model.tokenizer.save(base)

    wrapper = nn.Module()
    wrapper.model = nn.Module()
    wrapper.model.language_model = network.language.decoder
    wrapper.model.ttt_layers = nn.Module()
    wrapper.model.ttt_layers.ttt = network.ttt
    lora = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=r".*language_model\.layers\.\d+\.self_attn\.[qkv]_proj",
        modules_to_save=["ttt_layers"],
        init_lora_weights=False,
    )
    before = {n: t.clone() for n, t in network.state_dict().items()}
    peft = get_peft_model(wrapper, lora)
    peft.save_pretrained(adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    gate = tensors.pop("base_model.model.model.ttt_layers.ttt.gating_alpha")
    tensors["base_model.model.model.ttt_gating.gating_alpha"] = gate
    if infix:
        tensors = {n.replace("ttt_layers.", "ttt_layers.modules_to_save.default."): t for n, t in tensors.items()}
    save_file(tensors, adapter / "adapter_model.safetensors")
    state = {released_name(n): t.contiguous() for n, t in before.items() if not n.startswith("ttt.")}
    names = sorted(state)
    for i, part in enumerate((names[::2], names[1::2])):
        save_file({n: state[n].clone() for n in part}, base / f"model-{i + 1:05d}-of-00002.safetensors")


def answer(model: VideoSalmonnS):
    rng = np.random.default_rng(0)
    memory = model.new_memory()
    for t in range(6):
        image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        model.observe_frame(memory, Frame((t + 1) * SECOND_NS, "front", image))
    model.observe_audio(memory, AudioSpan(SECOND_NS, "mic", rng.normal(0, 0.1, 48_000).astype(np.float32)))
    return model.answer("where is the cup?", model.view(memory), max_new_tokens=8)


@pytest.mark.parametrize(("dtype", "infix"), [("bfloat16", False), ("float32", True)])
def test_release_written_with_peft_answers_like_the_model_it_came_from(tmp_path, dtype, infix):
    write_release(released_model(dtype), tmp_path, infix)
    adapter = load_file(tmp_path / "video_salmonn_s_ttt_lora" / "adapter_model.safetensors")
    origin = released_model(dtype)
    for i, layer in enumerate(origin.network.language.decoder.layers):
        for name in ("q_proj", "k_proj", "v_proj"):
            stem = f"base_model.model.model.language_model.layers.{i}.self_attn.{name}"
            weight = getattr(layer.self_attn, name).weight
            low, high = adapter[f"{stem}.lora_A.weight"], adapter[f"{stem}.lora_B.weight"]
            weight.data.copy_(merged(weight.data, low, high, 2.0))
    loaded = load(str(tmp_path))
    assert loaded.checkpoint.trained
    for (name, want), got in zip(
        origin.network.state_dict().items(), loaded.network.state_dict().values(), strict=True
    ):
        assert torch.equal(want, got), name
    origin = VideoSalmonnS(loaded.config, origin.network, origin.tokenizer, origin.checkpoint)
    want, got = answer(origin), answer(loaded)
    assert got.token_ids == want.token_ids
    assert got.token_logprobs == want.token_logprobs


def test_merge_equals_peft(tmp_path):
    layer = nn.Linear(24, 16, bias=False)
    holder = nn.ModuleDict({"q_proj": layer})
    weight = layer.weight.data.clone()
    peft = get_peft_model(holder, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], init_lora_weights=False))
    wrapped = peft.base_model.model["q_proj"]
    low, high = wrapped.lora_A["default"].weight, wrapped.lora_B["default"].weight
    ours = merged(weight, low.data, high.data, 2.0)
    theirs = peft.merge_and_unload()["q_proj"].weight
    assert torch.equal(ours, theirs.data)


def test_own_folder_round_trip_and_commands(tmp_path, capsys):
    model = VideoSalmonnS.tiny(seed=3)
    save(model, tmp_path / "own", card="# a card\n")
    loaded = load(str(tmp_path / "own"))
    assert not loaded.checkpoint.trained
    assert loaded.checkpoint.card.read_text() == "# a card\n"
    assert answer(loaded).token_logprobs == answer(model).token_logprobs
    assert main(["checkpoint", "inspect", str(tmp_path / "own")]) == 0
    assert main(["checkpoint", "verify", str(tmp_path / "own")]) == 0
    assert "untrained" in capsys.readouterr().out


def test_convert_merges_the_release_into_our_folder(tmp_path):
    write_release(released_model("float32"), tmp_path / "release")
    assert main(["checkpoint", "convert", str(tmp_path / "release"), str(tmp_path / "own")]) == 0
    own, release = load(str(tmp_path / "own")), load(str(tmp_path / "release"))
    assert answer(own).token_logprobs == answer(release).token_logprobs
    assert main(["checkpoint", "convert", str(tmp_path / "release"), str(tmp_path / "own")]) == 1


def test_convert_keeps_the_calibration(tmp_path):
    own, again = tmp_path / "own", tmp_path / "again"
    save(VideoSalmonnS.tiny(seed=3), own)
    figures = {"checkpoint": load(str(own)).checkpoint.id, "temperature": {"TEXT": 2.0}}
    (own / "calibration.json").write_text(json.dumps(figures))
    assert main(["checkpoint", "convert", str(own), str(again)]) == 0
    converted = load(str(again)).checkpoint
    assert converted.calibration is not None
    assert read_calibration(converted.calibration, converted.id).temperature == {"TEXT": 2.0}


def test_stock_folder_sees_but_does_not_hear(tmp_path):
    model = VideoSalmonnS.tiny(ttt=None, audio=None, evidence_head=False, recall=False)
    state = model.network.state_dict()
    state.pop("language.lm_head.weight")
    save_file({released_name(n): t.contiguous() for n, t in state.items()}, tmp_path / "model.safetensors")
    text = dict(model.config.text)
    values = {"text_config": text, "vision_config": dict(model.config.vision), "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(values | {"model_type": "qwen3_vl", "dtype": "float32"}))
    model.tokenizer.save(tmp_path)
    loaded = load(str(tmp_path))
    assert not loaded.hears
    assert loaded.config.memory.visual_rule == "place"
    assert len(loaded.checkpoint.missing) == 2
    assert answer(loaded).token_ids


def test_misfits_are_listed_and_nothing_is_loaded(tmp_path, capsys):
    save(VideoSalmonnS.tiny(), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.ttt_layers.ttt.wq.weight"]
    tensors["model.stranger"] = torch.zeros(2)
    tensors["model.ttt_layers.ttt.wk.weight"] = torch.zeros(3, 3)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        load(str(tmp_path))
    for text in ("missing: model.ttt_layers.ttt.wq.weight", "unexpected: model.stranger", "wrong shape: model.ttt"):
        assert text in str(error.value)
    assert main(["checkpoint", "verify", str(tmp_path)]) == 1


def test_parts_can_be_left_out_of_what_is_loaded(tmp_path):
    save(VideoSalmonnS.tiny(seed=3), tmp_path)
    parts = {"ttt": None, "recall": False, "evidence_head": False, "audio": None}
    for name in ("recall", "evidence_head", "audio"):
        without = load(str(tmp_path), **{name: parts[name]})
        assert answer(without).token_ids
    plain = load(str(tmp_path), **parts)
    assert (plain.network.ttt, plain.network.recall, plain.network.evidence, plain.network.audio) == (None,) * 4
    kept = {k: v for k, v in VideoSalmonnS.tiny(seed=3).network.state_dict().items() if k.startswith("vision.")}
    assert all(torch.equal(plain.network.state_dict()[name], tensor) for name, tensor in kept.items())
    save(VideoSalmonnS.tiny(evidence_head=False), tmp_path / "headless")
    with pytest.raises(CheckpointError, match="missing: model.evidence"):
        load(str(tmp_path / "headless"), evidence_head=True)


@pytest.mark.parametrize("damage", ["truncated", "not json", "no weights", "no tokenizer", "pickle"])
def test_damaged_folders_are_refused(tmp_path, damage):
    save(VideoSalmonnS.tiny(), tmp_path)
    weights = tmp_path / "model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "not json":
        (tmp_path / "config.json").write_text("{")
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no tokenizer":
        (tmp_path / "tokenizer.json").unlink()
    else:
        weights.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises((ValueError, FileNotFoundError)):
        load(str(tmp_path))


def test_names_are_inverse_and_old_rope_is_read():
    for name in VideoSalmonnS.tiny().network.state_dict():
        assert network_name(released_name(name)) == name
    old = rope({"rope_theta": 5e6, "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}})
    assert old == {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
