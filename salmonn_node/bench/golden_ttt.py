"""Golden checks of the TTT layer and its Hessian-free solver: every key of a file against what our layer computes.

A check takes a safetensors file, reads sizes and settings from its metadata and shapes, computes from its inputs and
parameters alone, and returns one row per key: (key, largest absolute error, tolerance).
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from salmonn_node.memory import hessian_free, inner_model
from salmonn_node.memory.fast_state import TTTState
from salmonn_node.memory.fast_weights import Rows, Step, TTTConfig, TTTLayer
from salmonn_node.memory.inner_model import InnerWeights, Objective
from salmonn_node.memory.rotary import rotary_angles

LAYER_TOLERANCE = {torch.float64: 2e-6, torch.float32: 1e-5, torch.bfloat16: 0.1}
INPUTS = ("param.", "x")


class Row(NamedTuple):
    """One compared key."""

    key: str
    error: float
    tolerance: float


class GoldenFile:
    """Tensors and metadata of a file, and which of its keys have been compared."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            self.meta: dict[str, str] = file.metadata() or {}
            self.tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        self.rows: list[Row] = []
        self.left = set(self.tensors)

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def has(self, prefix: str) -> bool:
        """Whether any key starts with the prefix."""
        return any(key.startswith(prefix) for key in self.tensors)

    def take(self, key: str, dtype: torch.dtype) -> Tensor:
        """An input of the computation."""
        self.left.discard(key)
        return self.tensors[key].to(dtype)

    def ignore(self, *prefixes: str) -> None:
        """Keys that are inputs or that the vectors' description excludes."""
        self.left = {key for key in self.left if not key.startswith(prefixes)}

    def compare(self, key: str, ours: Tensor | float | int, tolerance: float) -> None:
        """Compare one key if the file has it; a wrong shape or a NaN on one side only is an infinite error."""
        if key not in self.tensors:
            return
        self.left.discard(key)
        want = self.tensors[key].double()
        got = torch.as_tensor(ours).detach().double()
        error = float("inf")
        if got.numel() == want.numel():
            got = got.reshape(want.shape)
            if torch.equal(got.isnan(), want.isnan()):
                difference = (got - want).nan_to_num(nan=0.0, posinf=float("inf"), neginf=float("-inf")).abs()
                error = float(difference.max()) if difference.numel() else 0.0
        self.rows.append(Row(key, error, tolerance))

    def finish(self) -> list[Row]:
        """All rows; a key that nothing compared is a failure, so that no value passes unseen."""
        return self.rows + [Row(f"{key} (not compared)", float("inf"), 0.0) for key in sorted(self.left)]


class TracedLayer(TTTLayer):
    """The layer, with each mini-batch's projections and step noted."""

    def __init__(self, config: TTTConfig) -> None:
        super().__init__(config)
        self.projected: list[Rows] = []
        self.steps: list[Step] = []

    def project(self, x: Tensor, places: Tensor, source: Tensor, seen: Tensor) -> Rows:
        """As the layer's, noted."""
        self.projected.append(super().project(x, places, source, seen))
        return self.projected[-1]

    def update(self, rows: Rows, weights: InnerWeights, damping: Tensor) -> Step:
        """As the layer's, noted."""
        self.steps.append(super().update(rows, weights, damping))
        return self.steps[-1]


def _layer(file: GoldenFile, parameters: GoldenFile, dtype: torch.dtype, iterations: int) -> TracedLayer:
    """The layer that a file describes: sizes from shapes, settings from metadata."""
    named = {
        key.removeprefix("param."): parameters.take(key, dtype)
        for key in parameters.tensors
        if key.startswith("param.")
    }
    ttt = {key.removeprefix("ttt_layers.ttt."): tensor for key, tensor in named.items()}
    lag = int(file.meta.get("lag", "0")) if "lag_linear.weight" in ttt else 0
    heads, _, inner = ttt["W1"].shape
    config = TTTConfig(
        hidden_size=ttt["wq.weight"].shape[1],
        num_heads=heads,
        inner_size=inner,
        mini_batch=int(file.meta["mini_batch_size"]),
        base_lr=float(file.meta["ttt_base_lr"]),
        lag_weight=float(file.meta.get("ema_factor", "0.1")),
        lag_distance=lag,
        lag_use_key="lag_linear_key.weight" in ttt,
        optimizer="hf" if iterations else "sgd",
        cg_iterations=iterations or 1,
        mode="released",
        state_dtype=dtype,
    )
    layer = TracedLayer(config).to(dtype)
    layer.load_release(named)
    return layer


def _slices(file: GoldenFile, inputs: GoldenFile, dtype: torch.dtype) -> list[Tensor]:
    names = ["x"] if "x" in inputs else [f"x{i}" for i in range(len(ast.literal_eval(file.meta["slices"])))]
    return [inputs.take(name, dtype) for name in names]


def _compare_run(
    file: GoldenFile, prefix: str, layer: TracedLayer, slices: list[Tensor], tolerance: float, weights_tolerance: float
) -> TTTState:
    """Stream the slices through the layer and compare outputs, carried weights and intermediate results."""
    grid = ast.literal_eval(file.meta["grid_hw"])
    state = layer.init_state()
    for i, x in enumerate(slices):
        name = f"{prefix}s{i}."
        file.compare(name + "freqs_start", state.rows, 0)
        layer.projected.clear()
        out = layer.padded_slice_output(x, grid, state)
        gated = layer.gate(x, out[:, : x.shape[1]])
        file.compare(name + "ttt_out_padded", out, tolerance)
        file.compare(name + "gated_out", gated, tolerance)
        for part in ("W1", "b1", "W2", "b2"):
            file.compare(f"{name}final.{part}_states", getattr(state, part), weights_tolerance)
        for mid in (name + "mid.", prefix + "mid.") if i == 0 else (name + "mid.",):
            _compare_intermediate(file, mid, layer, tolerance)
    return state


def _compare_intermediate(file: GoldenFile, mid: str, layer: TracedLayer, tolerance: float) -> None:
    """Projections of one slice, [batch, head, mini-batch, row, channel]; XV = R + k and XV_lag = R_lag + lag key."""
    if not file.has(mid):
        return

    def stacked(part: Callable[[Rows], Tensor | None]) -> Tensor:
        return torch.stack([tensor for rows in layer.projected if (tensor := part(rows)) is not None], dim=2)

    file.compare(mid + "XQ", stacked(lambda r: r.query), tolerance)
    file.compare(mid + "XK", stacked(lambda r: r.key), tolerance)
    file.compare(mid + "XV", stacked(lambda r: r.target + r.key), tolerance)
    file.compare(mid + "eta_token", stacked(lambda r: r.rate.squeeze(-1)), tolerance)
    if layer.config.lag_distance:
        file.compare(mid + "XK_lag", stacked(lambda r: r.lag_key), tolerance)
        file.compare(
            mid + "XV_lag", stacked(lambda r: None if r.lag_target is None else r.lag_target + r.lag_key), tolerance
        )
        file.compare(mid + "lag_loss_mask", torch.stack([r.seen for r in layer.projected if r.seen is not None]), 0)


def check_layer(path: Path) -> list[Row]:
    """Files ttt_a_*, ttt_b_*, ttt_c_*: SGD, without and with the long-span term, carried across padded slices."""
    file = GoldenFile(path)
    dtype = file.tensors["s0.ttt_out_padded"].dtype
    layer = _layer(file, file, dtype, int(file.meta.get("cg", "0")))
    slices = _slices(file, file, dtype)
    tolerance = LAYER_TOLERANCE[dtype]
    _compare_run(file, "", layer, slices, tolerance, 0.2 if dtype == torch.bfloat16 else tolerance)
    if "freqs_real" in file:
        rows = file.tensors["freqs_real"].shape[0]
        height, width = ast.literal_eval(file.meta["grid_hw"])
        n = torch.arange(rows)
        places = torch.stack([n // (height * width), n % (height * width) // width, n % width], dim=-1)
        rotation = rotary_angles(places, layer.config.head_dim)
        file.compare("freqs_real", rotation.real, 1e-6)
        file.compare("freqs_imag", rotation.imag, 1e-6)
    return file.finish()


def check_hessian_free(path: Path) -> list[Row]:
    """Files ttt_hf_cg_<tag>: conjugate gradient for several K; parameters and x may lie in ttt_a_sgd_nolag_<tag>."""
    file = GoldenFile(path)
    beside = path.with_name(path.name.replace("ttt_hf_cg_", "ttt_a_sgd_nolag_"))
    inputs = file if file.has("param.") else GoldenFile(beside)
    runs = sorted({int(key[2 : key.index(".")]) for key in file.tensors if key.startswith("cg")})
    for iterations in runs:
        prefix = f"cg{iterations}."
        dtype = file.tensors[prefix + "s0.ttt_out_padded"].dtype
        tolerance = 5e-6 if dtype == torch.float64 else 1e-5 if iterations <= 4 else 5e-3
        if dtype == torch.bfloat16:
            tolerance = 0.2
        layer = _layer(file, inputs, dtype, iterations)
        _compare_run(file, prefix, layer, _slices(file, inputs, dtype), tolerance, tolerance)
        solutions = [step.solution for step in layer.steps if step.solution is not None]
        # After a break the file repeats the last mask or leaves zeros, so only iterations that ran are compared.
        counts = [solution.iterations for solution in solutions]
        file.compare(prefix + "n_iter_per_minibatch", torch.tensor(counts), 0)
        if prefix + "mask_after_iter" in file:
            want = file.tensors[prefix + "mask_after_iter"]
            ours = want.clone().double()
            for i, solution in enumerate(solutions):
                ours[i, : solution.iterations] = solution.live.flatten(1).double()
            file.compare(prefix + "mask_after_iter", ours, 0)
        first = layer.steps[0].gradient
        if first is not None:
            for part in InnerWeights._fields:
                file.compare(f"{prefix}mb0.b.g{part}", getattr(first, part), tolerance)
    file.ignore(*INPUTS)
    return file.finish()


def check_direct(path: Path) -> list[Row]:
    """Files hf_cg_direct_*: gradient, Gauss-Newton product and solver alone, with a right-hand side that is zero."""
    file = GoldenFile(path)
    dtype = file.tensors["Z1"].dtype
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5

    def get(name: str) -> Tensor:
        return file.take(name, dtype)

    def vector(prefix: str) -> InnerWeights:
        return InnerWeights(*(file.tensors[f"{prefix}.{part}"].to(dtype) for part in InnerWeights._fields))

    weights = InnerWeights(get("W1"), get("b1"), get("W2"), get("b2"))
    key, gamma, beta, eta = get("K"), get("ln_weight"), get("ln_bias"), get("eta")
    at = inner_model.linearise(key, weights)
    goal = Objective(get("V_plus") - key, None, eta)
    if "V_lag_plus" in file:
        pull = float(file.meta.get("ema_factor", "0.1")) * get("lag_mask")
        goal = Objective(goal.pooled + pull * (get("V_lag_plus") - get("K_lag")), pull, eta)
    file.compare("Z1", inner_model.batched(key, weights.W1, weights.b1), tolerance)
    file.compare("X2", at.X2, tolerance)
    file.compare("Z2", at.Z2, tolerance)
    file.compare("Y", inner_model.evaluate(key, weights, gamma, beta), tolerance)
    unweighted = inner_model.output_gradient(at, goal._replace(rate=torch.ones_like(eta)), gamma, beta)
    file.compare("g_Z1", unweighted[0], tolerance)
    file.compare("g_Z2", unweighted[1], tolerance)

    rhs = inner_model.gradient(at, goal, gamma, beta)
    zeroed = torch.stack([(part == 0).flatten(2).all(-1) for part in vector("rhs")]).all(0)[..., None, None]
    rhs = InnerWeights(*(part.masked_fill(zeroed, 0) for part in rhs))
    product = inner_model.gauss_newton_product(at, vector("v"))
    for part in InnerWeights._fields:
        file.compare(f"rhs.{part}", getattr(rhs, part), tolerance)
        file.compare(f"Gv.{part}", getattr(product, part), tolerance)
    file.ignore("v.", "Gv_LN_GN.", "cg32.")

    def solve(name: str, b: InnerWeights, iterations: int) -> None:
        solution = hessian_free.conjugate_gradient(
            lambda v: inner_model.gauss_newton_product(at, b.unflat(v)).flat(), b.flat(), iterations
        )
        for part, ours in zip(InnerWeights._fields, b.unflat(solution.u), strict=True):
            file.compare(f"{name}.u.{part}", ours, tolerance)
        file.compare(f"{name}.n_iter", solution.iterations, 0)
        file.compare(f"{name}.mask_after_iter", solution.live, 0)
        file.compare(f"{name}.rs_final", solution.residual, tolerance * 100)

    alone = torch.zeros_like(zeroed, dtype=dtype)
    alone[:, 0] = 1
    for name in sorted({key.split(".")[0] for key in file.left if key.startswith(("cg", "brk"))}):
        # brk*: only head 0 has a right-hand side, so that the three quarters rule ends the iteration.
        b = InnerWeights(*(part * alone for part in rhs)) if name.startswith("brk") else rhs
        solve(name, b, int(name.lstrip("cgbrk")))
    return file.finish()


# glob -> check
FAMILIES: dict[str, Callable[[Path], list[Row]]] = {
    "ttt_a_*.safetensors": check_layer,
    "ttt_b_*.safetensors": check_layer,
    "ttt_c_*.safetensors": check_layer,
    "ttt_hf_cg_*.safetensors": check_hessian_free,
    "hf_cg_direct_*.safetensors": check_direct,
}
