"""Folders of checkpoints are read as transformers reads them; what is no such checkpoint is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig

from salmonn_node.cli import main
from salmonn_node.model.checkpoint import load, prepare
from salmonn_node.model.checkpoint_config import read_folder
from salmonn_node.model.checkpoint_files import CheckpointError, weight_files
from salmonn_node.model.hf_config import hf_config, rope
from salmonn_node.model.tiny import tiny_config, tiny_tokenizer
from salmonn_node.stream.observations import SECOND_NS, Frame

HEAD, TABLE = "lm_head.weight", "model.language_model.embed_tokens.weight"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4255140312\n"


def stock_config(text: dict | None = None, vision: dict | None = None, tied: bool = True) -> Qwen3VLConfig:
    """Transformers' configuration of a tiny Qwen3-VL."""
    tiny, ids = tiny_config(), tiny_tokenizer().specials
    return Qwen3VLConfig(
        text_config=dict(tiny.text) | (text or {}),
        vision_config=dict(tiny.vision) | (vision or {}),
        tie_word_embeddings=tied,
        image_token_id=ids.image_pad,
        video_token_id=ids.video_pad,
        vision_start_token_id=ids.vision_start,
        vision_end_token_id=ids.vision_end,
    )


def write_stock(folder: Path, config: Qwen3VLConfig, **how: object) -> Qwen3VLForConditionalGeneration:
    """A folder as transformers writes it, with random float32 weights."""
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1) if parameter.dim() > 1 else parameter.uniform_(0.5, 1.5)
    model.save_pretrained(folder, **how)
    tiny_tokenizer().save(folder)
    return model


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    write_stock(folder, stock_config())
    return folder


@pytest.fixture
def folder(stock: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stock, tmp_path / "copy"))


def split(folder: Path, parts: int = 2) -> None:
    """Cut the single file of a folder into a split with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, places = sorted(tensors), {}
    for part in range(parts):
        file = f"model-{part + 1:05d}-of-{parts:05d}.safetensors"
        save_file({name: tensors[name].clone() for name in names[part::parts]}, folder / file)
        places |= dict.fromkeys(names[part::parts], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def change(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@st.composite
def sizes(draw: st.DrawFn) -> tuple[dict, dict, bool]:
    """Small sizes of both parts that Qwen3-VL allows."""
    kv, share = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    head = draw(st.sampled_from([8, 16, 32]))
    section = [head // 2 - 2 * (head // 8), head // 8, head // 8]
    layers, width = draw(st.integers(1, 3)), draw(st.sampled_from([16, 40, 64]))
    text = {
        "hidden_size": width,
        "intermediate_size": draw(st.sampled_from([24, 64])),
        "num_hidden_layers": layers,
        "num_attention_heads": kv * share,
        "num_key_value_heads": kv,
        "head_dim": head,
        "attention_bias": draw(st.booleans()),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": draw(st.sampled_from([1e4, 5e5, 5e6])),
            "mrope_section": section,
            "mrope_interleaved": True,
        },
    }
    depth, seen = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    levels = draw(st.lists(st.integers(0, depth - 1), min_size=1, max_size=min(depth, layers), unique=True))
    vision = {
        "depth": depth,
        "hidden_size": seen * draw(st.sampled_from([8, 16])),
        "num_heads": seen,
        "intermediate_size": 32,
        "out_hidden_size": width,
        "num_position_embeddings": draw(st.sampled_from([16, 36])),
        "deepstack_visual_indexes": sorted(levels),
    }
    return text, vision, draw(st.booleans())


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=sizes(), patches=st.integers(1, 4), rows=st.integers(1, 3), columns=st.integers(1, 3))
def test_logits_equal_those_of_transformers_on_the_same_frames(tmp_path, parts, patches, rows, columns):
    text, vision, tied = parts
    shutil.rmtree(tmp_path / "random", ignore_errors=True)
    theirs = write_stock(tmp_path / "random", stock_config(text, vision, tied))
    ours = load(str(tmp_path / "random"))
    memory, rng, pixels = ours.new_memory(), np.random.default_rng(patches), []
    encoder = ours.encoder.vision

    def watched(given: torch.Tensor, grid: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        pixels.append(given[0])
        return encoder(given, grid)

    ours.encoder.vision = watched
    for second in range(2 * patches):
        image = rng.integers(0, 255, (32 * rows, 32 * columns, 3), dtype=np.uint8)
        ours.observe_frame(memory, Frame((second + 1) * SECOND_NS, "camera", image))
    view = ours.view(memory)
    decoder = ours.answers.read("what did you see?", view)
    ids = decoder.prompt.ids
    with torch.no_grad():
        want = theirs(
            input_ids=ids[None],
            mm_token_type_ids=2 * (ids == ours.tokenizer.specials.video_pad).long()[None],
            pixel_values_videos=torch.cat(pixels),
            video_grid_thw=torch.tensor([[patches, *(2 * side for side in view.visual.grid[0].tolist())]]),
        ).logits[0, -1]
        got = decoder.logits(decoder.reading.hidden[-1:])[0][-1]
    assert float((got - want).abs().max()) < 1e-5 * max(1.0, float(want.abs().max()))


@given(
    rope_type=st.sampled_from([None, "default"]),
    inside=st.sampled_from([None, 1e4, 2e6]),
    beside=st.sampled_from([None, 5e6, 7]),
    key=st.sampled_from(["rope_parameters", "rope_scaling"]),
    section=st.sampled_from([None, [8, 4, 4]]),
)
def test_rope_is_what_transformers_makes_of_the_same_values(rope_type, inside, beside, key, section):
    given_values = {"rope_type": rope_type, "rope_theta": inside, "mrope_section": section}
    text = {key: {name: value for name, value in given_values.items() if value is not None}}
    if beside is not None:
        text["rope_theta"] = beside
    want = Qwen3VLTextConfig(**json.loads(json.dumps(text))).rope_parameters
    got = rope(text)
    assert {name: got[name] for name in want} == want


def test_a_single_file_comes_before_the_rest_of_a_split(folder: Path, stock: Path) -> None:
    split(folder)
    assert [file.name[:7] for file in weight_files(folder)] == ["model-0", "model-0"]
    assert torch.equal(
        load(str(folder)).network.language.lm_head.weight, load(str(stock)).network.language.lm_head.weight
    )
    stray = folder / "old-00001-of-00001.safetensors"
    save_file({TABLE: torch.zeros(1)}, stray)
    assert stray not in weight_files(folder), "the index names the files"
    write_stock(folder, stock_config())
    assert [file.name for file in weight_files(folder)] == ["model.safetensors"]


def test_a_renamed_folder_is_the_same_checkpoint(folder: Path, stock: Path) -> None:
    moved, link = folder.rename(folder.with_name("My-Qwen3-VL")), folder.with_name("link")
    link.symlink_to(moved)
    models = [load(str(path)) for path in (stock, moved, link)]
    assert len({model.checkpoint.id for model in models}) == 1
    assert len({json.dumps(model.config.to_dict(), sort_keys=True) for model in models}) == 1
    assert models[1].checkpoint.name == "My-Qwen3-VL"


def test_two_splits_without_an_index_are_refused(folder: Path) -> None:
    split(folder)
    (folder / "model.safetensors.index.json").unlink()
    assert load(str(folder)).checkpoint.id
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00001-of-00003.safetensors")
    with pytest.raises(CheckpointError, match=r"different splits.*model-00001-of-00003"):
        load(str(folder))
    (folder / "model-00001-of-00003.safetensors").unlink()
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002"):
        load(str(folder))


def test_a_part_that_the_index_names_is_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert main(["checkpoint", "verify", str(folder)]) == 1
    assert "model-00002-of-00002.safetensors is missing" in capsys.readouterr().err


@pytest.mark.parametrize("case", ["other head", "same head", "head alone"])
def test_a_tied_configuration_yields_to_what_the_file_holds(folder: Path, case: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[HEAD] = tensors[TABLE].clone()
    if case == "other head":
        tensors[HEAD] += 1
    elif case == "head alone":
        tensors.pop(TABLE)
    save_file(tensors, folder / "model.safetensors")
    theirs = Qwen3VLForConditionalGeneration.from_pretrained(folder)
    network = load(str(folder)).network
    assert torch.equal(network.language.lm_head.weight, theirs.lm_head.weight)
    assert torch.equal(network.language.decoder.embed_tokens.weight, theirs.model.language_model.embed_tokens.weight)
    assert network.config.tied_embeddings == (case != "other head")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "qwen2_5_vl"}, "Qwen2.5-VL"),
        ({"model_type": "qwen3_vl_moe"}, "mixture of experts"),
        ({"model_type": "brand_new"}, "'brand_new'"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"dtype": "float8_e4m3fn"}, "float8_e4m3fn"),
        ({"dtype": "int4"}, "int4"),
        ({"vision_config": None}, "vision_config"),
    ],
)
def test_other_networks_are_refused_by_name_before_planning(folder: Path, values: dict, said: str, capsys) -> None:
    change(folder, **values)
    (folder / "model.safetensors").unlink()
    for command in (["plan", str(folder)], ["checkpoint", "verify", str(folder)]):
        assert main(command) != 0
        assert said in capsys.readouterr().err, command


@pytest.mark.parametrize(
    ("stated", "stored", "expected"),
    [("auto", "F16", "float16"), ("torch.bfloat16", "F32", "bfloat16"), (None, "BF16", "bfloat16")],
)
def test_the_type_of_the_weights(folder: Path, stated: str | None, stored: str, expected: str) -> None:
    types = {"F16": torch.float16, "F32": torch.float32, "BF16": torch.bfloat16}
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.to(types[stored]) for name, tensor in tensors.items()}, folder / "model.safetensors")
    values = json.loads((folder / "config.json").read_text())
    for part in (values, values["text_config"], values["vision_config"]):
        part.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(values | ({"dtype": stated} if stated else {})))
    assert str(load(str(folder)).network.dtype) == f"torch.{expected}"


def test_weights_of_a_type_that_cannot_be_loaded_are_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"stored as F8_E4M3: {name}"):
        prepare(read_folder(folder))


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_pointers_of_git_lfs_are_recognised(folder: Path, file: str) -> None:
    (folder / file).write_text(POINTER)
    with pytest.raises(ValueError, match=rf"{file}: this is a Git LFS pointer.*git lfs pull"):
        load(str(folder))


def test_a_broken_link_and_an_adapter_alone_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/gone")
    with pytest.raises(FileNotFoundError, match=r"model.safetensors is a link to a file that is missing"):
        load(str(folder))
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(ValueError, match="adapter alone"):
        load(str(folder))


def test_a_tokenizer_with_more_tokens_than_the_network_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[TABLE] = tensors[TABLE][:300].clone()
    save_file(tensors, folder / "model.safetensors")
    values = json.loads((folder / "config.json").read_text())
    change(folder, text_config=values["text_config"] | {"vocab_size": 300})
    with pytest.raises(CheckpointError, match="tokenizer has ids up to 439"):
        load(str(folder))


def test_what_a_folder_leaves_out_has_the_defaults_of_transformers() -> None:
    values = {"text_config": {"vocab_size": 9, "hidden_size": 64, "num_hidden_layers": 1}}
    values["vision_config"] = {"depth": 1, "hidden_size": 16, "out_hidden_size": 64}
    config = hf_config(values, "name")
    assert (config.text["head_dim"], config.vision["patch_size"], config.dtype) == (128, 16, "auto")
    with pytest.raises(ValueError, match=r"text_config: .*hidden_size"):
        hf_config(values | {"text_config": values["text_config"] | {"hidden_size": "wide"}}, "name")
