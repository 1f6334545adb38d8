"""The token memory against vectors of the public release, and the checker that compares them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from salmonn_node.cli import main
from salmonn_node.lab.bench import golden

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


def slow_released(features: torch.Tensor, kept: list[int], new: list[int], budget: int, step: int) -> list[int]:
    """The release's rule over one slice in float64, from its description."""
    kept, waiting = kept + new[: max(0, budget - len(kept))], new[max(0, budget - len(kept)) :]
    for start in range(0, len(waiting), step):
        kept = kept + waiting[start : start + step]
        unit = torch.nn.functional.normalize(features[kept].double(), dim=1)
        order = torch.sort((unit[:-1] * unit[1:]).sum(1), stable=True).indices[:budget]
        kept = [kept[int(n) + 1] for n in order.sort().values]
    return kept


def test_sizes_are_read_from_the_file(tmp_path: Path) -> None:
    """Vectors of another width, budget, step and number of deepstack rows."""
    generator = torch.Generator().manual_seed(5)
    tensors, kept, first = {}, [], 0
    slices = [torch.randn(n, 24, generator=generator) for n in (31, 8, 19)]
    features = torch.cat(slices)
    for i, rows in enumerate(slices):
        tensors[f"rand.v{i}"], tensors[f"rand.ds{i}.0"] = rows[:, :12].contiguous(), rows[:, 12:].contiguous()
        kept = slow_released(features, kept, list(range(first, first + len(rows))), 20, 6)
        first += len(rows)
        tensors[f"rand.kept_after{i}"] = torch.tensor(kept, dtype=torch.int32)
        tensors[f"rand.emb_after{i}"] = features[kept][:, :12].contiguous()
        tensors[f"rand.ds0_after{i}"] = features[kept][:, 12:].contiguous()
    tensors["walk.x"] = torch.randn(50, 7, generator=generator)
    walk = slow_released(tensors["walk.x"], [], list(range(50)), 11, 4)
    tensors["walk.M11_s4.kept"] = torch.tensor(walk, dtype=torch.int32)
    tensors["ties.x"], tensors["ties.kept_somewhere"] = torch.ones(20, 4), torch.zeros(8, dtype=torch.int32)
    path = tmp_path / "mem_discard_w12.safetensors"
    save_file(tensors, path, {"rule": "released", "rand": "M=20 step=6 slices 31,8,19"})
    result = golden.check_file(path)
    assert result.state == "passed", (result.detail, [c for c in result.checks if not c.passed])
    assert len(result.checks) == 10
