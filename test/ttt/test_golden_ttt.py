"""The TTT layer and its solver reproduce every golden vector, and the checker itself notices wrong values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from salmonn_node.lab.bench.golden import check_file, load_families

load_families()
GOLDEN = Path(__file__).parent.parent / "data" / "golden"
FILES = sorted(path for pattern in ("ttt_*", "hf_cg_direct*") for path in GOLDEN.glob(pattern))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_every_key_within_tolerance(path):
    result = check_file(path)
    assert result.state == "passed", [check for check in result.checks if not check.passed] or result.detail


def test_all_families_are_here():
    stems = " ".join(path.stem for path in FILES)
    assert all(name in stems for name in ("ttt_a_", "ttt_b_", "ttt_c_", "ttt_hf_cg_", "hf_cg_direct"))


@pytest.mark.parametrize("name", ["ttt_c_carry_lag16_d16_f64", "hf_cg_direct_f64"])
def test_a_wrong_or_unknown_value_is_noticed(name, tmp_path):
    path = GOLDEN / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    outputs = [check.key for check in check_file(path).checks]
    for key in outputs[:: max(1, len(outputs) // 8)]:
        save_file({**tensors, key: tensors[key] + 1}, tmp_path / path.name, metadata)
        assert key in {check.key for check in check_file(tmp_path / path.name).checks if not check.passed}
    save_file({**tensors, "surprise": torch.ones(2)}, tmp_path / path.name, metadata)
    assert check_file(tmp_path / path.name).state == "failed"


def as_bfloat16(path: Path, folder: Path) -> Path:
    """The same problem with bfloat16 parameters, inputs and expected values."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = {
        key: tensor.bfloat16() if tensor.is_floating_point() and "freqs" not in key else tensor
        for key, tensor in load_file(path).items()
    }
    save_file(tensors, folder / path.name.replace("f64", "bf16"), metadata)
    return folder / path.name.replace("f64", "bf16")


@pytest.mark.parametrize("path", [p for p in FILES if p.stem[4] in "abc" and "f64" in p.stem], ids=lambda p: p.stem)
def test_bfloat16_module_and_state_stay_near_the_float64_values(path, tmp_path):
    result = check_file(as_bfloat16(path, tmp_path))
    assert result.state == "passed", [check for check in result.checks if not check.passed]
