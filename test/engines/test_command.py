"""`salmonn engines` and `salmonn doctor` as a user calls them."""

from __future__ import annotations

import json
import shutil

import pytest

from salmonn_node import cli
from salmonn_node.engines import machine


def test_doctor_says_what_this_machine_can_do(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    can = {a["what"]: a["can"] for a in report["abilities"]}
    assert can["build TensorRT-RTX plans"] is True
    assert can["check exports without a GPU"] is True
    assert can["run TensorRT-RTX plans"] is (machine.can_run("tensorrt_rtx") is None)
    if machine.bindings("tensorrt") is None:
        assert any("salmonn_node[cuda]" in line for line in report["advice"])
    assert cli.main(["doctor"]) == 0
    assert "build TensorRT-RTX plans" in capsys.readouterr().out


def test_list_and_prune(built, tmp_path, capsys):
    root = tmp_path / "root"
    shutil.copytree(built[0].root, root)
    assert cli.main(["engines", "list", "--root", str(root)]) == 0
    out = capsys.readouterr().out
    assert "vision4x6-bf16" in out
    assert "audio100-bf16" in out
    for plan in root.glob("small/vision*/engine.plan"):
        plan.write_bytes(b"x")
    assert cli.main(["engines", "prune", "--root", str(root), "--dry-run"]) == 0
    assert "would remove small/vision4x6" in capsys.readouterr().out
    assert cli.main(["engines", "prune", "--root", str(root)]) == 0
    assert len(list(root.glob("small/*/engine.plan"))) == 1
    assert cli.main(["engines", "list", "--root", str(tmp_path / "none")]) == 0


def tiny(encoder: str) -> list[str]:
    return ["--profile", "tiny", "--camera", "160x96", "--flavour", "tensorrt_rtx", "--encoder", encoder]


@pytest.mark.parametrize("encoder", ["audio", pytest.param("both", marks=pytest.mark.full)])
def test_build_and_verify_the_tiny_profile(tmp_path, capsys, encoder):
    root, plans = str(tmp_path / "root"), 2 if encoder == "both" else 1
    assert cli.main(["engines", "build", *tiny(encoder), "--root", root]) == 0
    out = capsys.readouterr().out
    assert "tiny: random, untrained weights, grid 6x10" in out
    assert "peak memory: " in out
    assert out.count("graph (ONNX Runtime): largest error") == plans
    if encoder == "both":
        assert "6 inputs" in out, "two photographs besides noise and the smooth pattern"
    assert cli.main(["engines", "verify", *tiny(encoder), "--root", root]) == 0
    assert capsys.readouterr().out.count("manifest and plan file agree") == plans
    assert cli.main(["engines", "verify", *tiny(encoder), "--root", root, "--seed", "1"]) == 1
    assert "STALE:weights_sha256" in capsys.readouterr().out


def test_bench_names_every_backend_and_why_it_cannot_run(tmp_path, capsys):
    assert cli.main(["engines", "bench", *tiny("audio"), "--root", str(tmp_path), "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    assert " torch: " in out
    if machine.gpu() is None:
        assert out.count("NO_TRT") == 2
        assert out.count("NO_CUDA") == 2


@pytest.mark.full
def test_export_writes_onnx_files(tmp_path, capsys):
    assert cli.main(["engines", "export", *tiny("audio"), "--out", str(tmp_path / "onnx")]) == 0
    assert len(list((tmp_path / "onnx").glob("audio*/graph.onnx"))) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "unheard-of"], "profile: 'unheard-of'"),
        (["--profile", "tiny", "--grid", "3x5"], "grid: (3, 5)"),
        (["--profile", "tiny", "--grid", "large"], "grid: 'large'"),
        (["--profile", "tiny", "--frame", "/nowhere.png"], "/nowhere.png: cannot be read"),
    ],
)
def test_bad_arguments_are_named(tmp_path, capsys, arguments, words):
    command = ["engines", "build", *arguments, "--flavour", "tensorrt_rtx", "--root", str(tmp_path)]
    assert cli.main(command) == 1
    assert words in capsys.readouterr().err
