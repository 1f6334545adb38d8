"""`salmonn doctor` tries the GPU and a decoder instead of only looking for them."""

from __future__ import annotations

import json

import pytest
import torch

from salmonn_node.cli import main
from salmonn_node.commands import doctor
from salmonn_node.engines import machine


def abilities(capsys) -> dict[str, dict]:
    return {a["what"]: a for a in json.loads(capsys.readouterr().out)["abilities"]}


def test_a_picture_is_decoded(capsys):
    assert main(["doctor", "--json"]) == 0
    assert abilities(capsys)["decode JPEG images"]["can"]


@pytest.mark.parametrize(
    "fault", ["CUDA error: no kernel image is available for execution on the device\nmore lines", ""]
)
def test_a_torch_build_for_another_architecture_is_found(monkeypatch, capsys, fault):
    def cuda(tensor: torch.Tensor) -> torch.Tensor:
        if fault:
            raise RuntimeError(fault)
        return tensor

    monkeypatch.setattr(machine, "gpu", lambda: machine.Gpu("8.7", "Orin"))
    monkeypatch.setattr(torch.Tensor, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90", "sm_100"])

    assert main(["doctor", "--json"]) == (1 if fault else 0)
    told = capsys.readouterr().out
    assert json.loads(told)["facts"]["torch's kernels"] == "sm_90, sm_100"
    found = {a["what"]: a for a in json.loads(told)["abilities"]}["run kernels on the GPU"]
    assert found["can"] is not bool(fault)
    if fault:
        assert found["detail"] == fault.splitlines()[0]
        assert doctor.try_gpu() == found["detail"]
