"""The token memory against vectors of the public release, and the checker that compares them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from salmonn_node.bench import golden
from salmonn_node.cli import main

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
golden.load_families()


@pytest.mark.parametrize("name", ["mem_discard", "mem_discard_paper_DERIVED", "mem_audio_merge", "reader_pruning"])
def test_matches_the_vectors(name: str) -> None:
    result = golden.check_file(GOLDEN / f"{name}.safetensors")
    assert result.state == "passed", (result.detail, [c for c in result.checks if not c.passed])


def test_a_wrong_value_fails_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(GOLDEN / "mem_audio_merge.safetensors")
    tensors["rand.M40_s20.pos_ids"][3] += 1
    save_file(tensors, tmp_path / "mem_audio_merge.safetensors")
    assert main(["golden", str(tmp_path)]) == 1
    assert "rand.M40_s20.pos_ids" in capsys.readouterr().out


def test_an_unknown_file_is_named_and_an_empty_directory_is_not_a_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "something_else.safetensors")
    assert main(["golden", str(tmp_path)]) == 2
    assert "something_else" in capsys.readouterr().out


def test_a_malformed_file_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mem_discard.safetensors").write_bytes(b"not tensors")
    (tmp_path / "mem_audio_merge.safetensors").write_bytes((GOLDEN / "mem_audio_merge.safetensors").read_bytes())
    assert main(["golden", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "error" in out
    assert "1 passed" in out


def test_shapes_and_nan_never_pass() -> None:
    assert not golden.close("x", torch.zeros(2), torch.zeros(3), 1.0).passed
    assert not golden.close("x", torch.tensor([float("nan")]), torch.zeros(1), 1.0).passed
    assert golden.close("x", torch.tensor([float("nan")]), torch.tensor([float("nan")]), 0.0).passed
    assert not golden.exact("x", torch.tensor([1, 2]), torch.tensor([1])).passed
