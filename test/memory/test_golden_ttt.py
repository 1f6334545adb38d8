"""The TTT layer and its solver reproduce every golden vector, and the checker itself notices wrong values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from salmonn_node.bench.golden_ttt import FAMILIES

GOLDEN = Path(__file__).parent.parent / "data" / "golden"
FILES = [(path, check) for pattern, check in FAMILIES.items() for path in sorted(GOLDEN.glob(pattern))]


@pytest.mark.parametrize(("path", "check"), FILES, ids=[path.stem for path, _ in FILES])
def test_every_key_within_tolerance(path, check):
    rows = check(path)
    assert rows
    wrong = [row for row in rows if not row.error <= row.tolerance]
    assert not wrong, wrong


def test_all_families_are_here():
    assert {pattern for pattern in FAMILIES if list(GOLDEN.glob(pattern))} == set(FAMILIES)


@pytest.mark.parametrize("name", ["ttt_c_carry_lag16_d16_f64", "hf_cg_direct_f64"])
def test_a_wrong_or_unknown_value_is_noticed(name, tmp_path):
    path = GOLDEN / f"{name}.safetensors"
    check = next(check for known, check in FILES if known == path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    outputs = [row.key for row in check(path)]
    for key in outputs[:: max(1, len(outputs) // 8)]:
        changed = {**tensors, key: tensors[key] + 1}
        save_file(changed, tmp_path / path.name, metadata)
        assert key in {row.key for row in check(tmp_path / path.name) if not row.error <= row.tolerance}
    save_file({**tensors, "surprise": torch.ones(2)}, tmp_path / path.name, metadata)
    assert any(row.key.startswith("surprise") and row.error > 1 for row in check(tmp_path / path.name))
