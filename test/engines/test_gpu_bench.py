"""The GPU benchmark's code at tiny size on this machine, and its table."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from salmonn_node import cli
from salmonn_node.lab.bench import gpu_report
from salmonn_node.lab.bench.gpu_parts import ATTENTION, PARTS, attention_flops


def test_dry_run_takes_every_figure_and_marks_itself(tmp_path):
    parts = [word for part in PARTS for word in ("--only", part)]
    assert cli.main(["bench", "gpu", "--dry-run", "--json", str(tmp_path / "gpu.json"), *parts]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())["gpu"]
    assert found["dry_run"] is True
    assert found["vision"]["torch_ms"] > 0
    assert found["audio"]["floor_ms"] > 0
    assert found["fast_weights"]["hf_ms"] > 0
    assert found["token_memory"]["step_ms"] > 0
    assert found["language"]["prefill_ms"] > found["language"]["prefill_floor_ms"] * 0.1
    assert found["ingest"]["times_real_time"] > 0
    assert found["snapshot"]["pause_ms"] > 0
    assert gpu_report.render(found) == gpu_report.render(None), "a dry run fills no cell"


def test_attention_with_fewer_heads_of_keys_is_counted():
    query, key = torch.zeros(1, 8, 5, 16), torch.zeros(1, 2, 5, 16)
    with FlopCounterMode(display=False, custom_mapping=dict.fromkeys(ATTENTION, attention_flops)) as counter:
        scaled_dot_product_attention(query, key, key, enable_gqa=True)
    assert counter.get_total_flops() == 2 * 8 * 5 * 5 * (16 + 16)


def test_without_a_gpu_the_bench_refuses():
    if torch.cuda.is_available():
        pytest.skip("not shown here: there is a GPU")
    with pytest.raises(RuntimeError, match="torch sees no GPU"):
        cli.main(["bench", "gpu"])


def test_the_table_shows_what_ran_and_why_the_rest_is_empty(tmp_path):
    figures = {
        "date": "2027-01-01",
        "profile": "p",
        "dry_run": False,
        "device": {"gpu": "NVIDIA X", "torch": "2.13"},
        "rates": {"tflop_per_s": 700.0, "tb_per_s": 4.0},
        "vision": {"floor_ms": 1.0, "torch_ms": 12.345, "tensorrt_why": "NO_TRT: not installed"},
        "language": {"error": "OutOfMemoryError: no memory"},
    }
    results = tmp_path / "RESULTS.md"
    results.write_text(f"before\n{gpu_report.BEGIN}\nold\n{gpu_report.END}\nafter\n")
    gpu_report.insert(results, figures)
    text = results.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| 1.00 | 12.35 |  |" in text
    assert "- tensorrt: NO_TRT: not installed" in text
    assert "- language: OutOfMemoryError: no memory" in text
    (tmp_path / "empty.md").write_text("")
    with pytest.raises(ValueError, match="are missing"):
        gpu_report.insert(tmp_path / "empty.md", figures)


def test_the_empty_table_says_why():
    text = gpu_report.render(None)
    assert text.startswith(gpu_report.NOT_RUN)
    assert text.count("|  |") >= 5
