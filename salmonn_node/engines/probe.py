"""Can TensorRT or TensorRT-RTX run anything on this GPU? `python -m salmonn_node.engines.probe FLAVOUR` tries a toy."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from salmonn_node.engines import builder, machine
from salmonn_node.engines.backends import EnginePlan
from salmonn_node.engines.export import export_onnx
from salmonn_node.engines.flavours import Flavour
from salmonn_node.engines.reasons import EngineError
from salmonn_node.engines.spec import EngineSpec, TensorSpec


def probe(flavour: Flavour) -> dict[str, object]:
    """Build, load and run a toy plan. `stage` is the last stage reached (import, build, load, run, equal)."""
    found: dict[str, object] = {"flavour": flavour, "version": machine.version(flavour), "stage": "import"}
    device = machine.gpu()
    found["gpu"] = device.name if device else None
    bindings = machine.bindings(flavour)
    if bindings is None:
        return {**found, "error": "cannot be imported"}
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)).eval()
    one = (TensorSpec("x", (4, 64), "fp32"),)
    spec = EngineSpec("probe", "audio", (4,), "fp32", one, (TensorSpec("y", (4, 64), "fp32"),), flavour=flavour)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            graph, plan = export_onnx(_Tuple(layer), spec, folder), folder / "toy.plan"
            job = {"flavour": flavour, "graph": str(graph), "plan": str(plan), "dtype": "fp32"}
            with (folder / "log").open("w") as stream:
                builder.build(job, stream)
            found["stage"] = "build"
            where = torch.device("cuda" if device else "cpu")
            loaded = EnginePlan(bindings, plan, spec, where)
            found["stage"] = "load"
            x = torch.randn(4, 64, device=where)
            y = loaded(x)[0]
            found["stage"] = "run"
            with torch.no_grad():
                found["difference"] = float((y - layer.to(where)(x)).abs().max())
            found["stage"] = "equal" if found["difference"] < 1e-3 else "run"  # type: ignore[operator]
        except (EngineError, RuntimeError) as error:
            found["error"] = str(error)
    return found


class _Tuple(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.inner(x),)


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1])))  # type: ignore[arg-type]
