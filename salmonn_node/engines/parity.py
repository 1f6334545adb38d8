"""Parity check: does an encoder compute what torch computes? The rule, the test inputs, and the record.

The rule, for every case and output: all values are finite. The relative L2 error against fp32 torch (TF32 off) is at
most min(3e-2, 1.5 x the error of torch in the plan's dtype), or 1e-3 for an fp32 plan. The smallest cosine over tokens
is at least 0.999.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from salmonn_node.engines import reasons
from salmonn_node.engines.machine import Gpu
from salmonn_node.engines.reasons import Reason
from salmonn_node.engines.spec import DTYPES, EngineSpec

FILE = "parity.json"
SEEDS = 3
LARGEST_ERROR = 3e-2
LARGEST_ERROR_FP32 = 1e-3
SLACK = 1.5
SMALLEST_COSINE = 0.999

Encoder = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class Measure:
    """One output of one case: relative L2 error, its limit, smallest cosine over tokens, and whether all are finite."""

    case: str
    output: str
    error: float
    limit: float
    cosine: float
    finite: bool

    @property
    def passed(self) -> bool:
        """Whether this output satisfies the rule."""
        return self.finite and self.error <= self.limit and self.cosine >= SMALLEST_COSINE


@dataclass
class Parity:
    """Content of `parity.json`: results of the graph on ONNX Runtime and of the plan on a GPU (or why not run)."""

    graph: list[Measure] = field(default_factory=list)
    plan: list[Measure] = field(default_factory=list)
    plan_sha256: str = ""
    compute_capability: str = ""
    gpu_name: str = ""
    not_run: str = ""

    def refusal(self, plan_sha256: str, device: Gpu) -> Reason | None:
        """Why the plan may not run on a GPU (never compared there, compared as another file, or different), or None."""
        if not self.plan:
            return Reason(
                reasons.PARITY_FAIL,
                f"never compared with torch on a GPU ({self.not_run or 'no record'}): run `salmonn engines verify`",
            )
        if self.plan_sha256 != plan_sha256:
            return Reason(reasons.PARITY_FAIL, "the parity record is of another plan: run `salmonn engines verify`")
        if (self.compute_capability, self.gpu_name) != (device.compute_capability, device.name):
            return Reason(
                reasons.PARITY_FAIL, f"compared on {self.gpu_name}, not on {device.name}: run `salmonn engines verify`"
            )
        return worst(self.plan)

    def write(self, folder: Path) -> None:
        """Write `parity.json` into a folder."""
        temporary = folder / f".{FILE}"
        temporary.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")
        temporary.replace(folder / FILE)


def read_parity(folder: Path) -> Parity:
    """Read the record of a folder. An unreadable record counts as never compared."""
    try:
        values = json.loads((folder / FILE).read_text())
        for name in ("graph", "plan"):
            values[name] = [Measure(**m) for m in values[name]]
        return Parity(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Parity(not_run=f"{FILE}: {type(error).__name__}")


def worst(measures: Sequence[Measure]) -> Reason | None:
    """Return None if every measure passed, else a reason that names the worst one."""
    failed = [m for m in measures if not m.passed]
    if not failed:
        return None
    m = max(failed, key=lambda m: float("inf") if not m.finite else m.error)
    what = f"error {m.error:.2e} (limit {m.limit:.2e}), smallest cosine {m.cosine:.5f}" if m.finite else "not finite"
    return Reason(reasons.PARITY_FAIL, f"{m.output} on {m.case}: {what}; {len(failed)} of {len(measures)} outputs fail")


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Context manager: switch TF32 off while the reference is computed."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def cases(spec: EngineSpec, real: Sequence[tuple[str, Tensor]] = (), seeds: int = SEEDS) -> dict[str, Tensor]:
    """Return test inputs by name, float32 on the CPU: `seeds` of noise, a smooth pattern, `real` frames or clips."""
    shape = spec.inputs[0].shape
    found = {}
    for seed in range(seeds):
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        found[f"noise{seed}"] = noise.clamp_(-1, 1)
    ramp = torch.linspace(0, 12, shape[-1]).sin() * torch.linspace(0, 7, shape[-2]).cos()[:, None]
    found["smooth"] = ramp.expand(shape).contiguous()
    for name, tensor in real:
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: shape {tuple(tensor.shape)} is not the engine's {shape}")
        found[name] = tensor.float()
    return found


def relative_error(found: Tensor, reference: Tensor) -> float:
    """L2 norm of the difference over that of the reference, in float64."""
    difference = found.double() - reference.double()
    return float(difference.norm() / reference.double().norm().clamp_min(1e-300))


def smallest_cosine(found: Tensor, reference: Tensor) -> float:
    """Smallest cosine over tokens (the last axis is a token's vector)."""
    a, b = found.double().flatten(0, -2), reference.double().flatten(0, -2)
    return float(torch.nn.functional.cosine_similarity(a, b, dim=-1, eps=1e-300).min())


def compare(
    encoder: Encoder,
    reference: nn.Module,
    same_dtype: nn.Module | None,
    spec: EngineSpec,
    inputs: dict[str, Tensor],
    device: torch.device | str = "cpu",
) -> list[Measure]:
    """Run an encoder on every case and compare it with torch.

    Args:
        encoder: the plan or the exported graph. Maps a tensor of the spec's input dtype to the spec's outputs.
        reference: the static wrapper with fp32 weights, on `device`.
        same_dtype: the static wrapper in the plan's dtype. Its own error sets the limit. None for fp32.
        spec: names of the outputs and the dtype.
        inputs: cases, see `cases`.
        device: device of the encoder and of both modules.
    """
    measures = []
    for case, tensor in inputs.items():
        given = tensor.to(device=device, dtype=DTYPES[spec.inputs[0].dtype])
        with exact_float32(), torch.no_grad():
            right = reference(given.float())
            rough = same_dtype(given) if same_dtype is not None else None
        found = encoder(given)
        for i, output in enumerate(spec.outputs):
            limit = LARGEST_ERROR_FP32
            if rough is not None:
                limit = min(LARGEST_ERROR, SLACK * relative_error(rough[i], right[i]))
            finite = bool(torch.isfinite(found[i]).all())
            error = relative_error(found[i], right[i]) if finite else float("inf")
            cosine = smallest_cosine(found[i], right[i]) if finite else 0.0
            measures.append(Measure(case, output.name, error, limit, cosine, finite))
    return measures
