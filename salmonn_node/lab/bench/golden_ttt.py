"""Golden families of the TTT layer and its Hessian-free solver: compare every key of a file with our layer."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from salmonn_node.lab.bench.golden import Check, GoldenFile, close, exact, family
from salmonn_node.ttt import hessian_free, inner_model
from salmonn_node.ttt.inner_model import InnerWeights, Norm, Objective
from salmonn_node.ttt.layer import TTTConfig, TTTLayer
from salmonn_node.ttt.rotary import rotary_angles
from salmonn_node.ttt.update import Rows, Step

LAYER_TOLERANCE = {torch.float64: 2e-6, torch.float32: 1e-5, torch.bfloat16: 0.1}


class Ledger:
    """The comparisons of one file, and the keys that nothing has compared yet."""

    def __init__(self, file: GoldenFile, *inputs: str) -> None:
        self.file = file
        self.left = {key for key in file.tensors if not key.startswith(inputs)}
        self.checks: list[Check] = []

    def compare(self, key: str, ours: Tensor | float | int, tolerance: float) -> None:
        """Compare one key if the file has it, ignoring dimensions of size one. Tolerance 0 means exact."""
        if key not in self.file.tensors:
            return
        self.left.discard(key)
        want, got = self.file.tensors[key], torch.as_tensor(ours)
        if got.numel() == want.numel():
            got = got.reshape(want.shape)
        self.checks.append(close(key, got, want, tolerance) if tolerance else exact(key, got, want))

    def finish(self) -> Iterator[Check]:
        """Yield all comparisons. A key that nothing compared fails, so no value is skipped silently."""
        yield from self.checks
        for key in sorted(self.left):
            yield Check(f"{key} (not compared)", float("inf"), 0.0)


class TracedLayer(TTTLayer):
    """TTT layer that records the projections and the step of each mini-batch."""

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
    """Make the layer that a file describes: sizes from shapes, settings from metadata."""
    tensors = parameters.tensors
    named = {key.removeprefix("param."): tensors[key].to(dtype) for key in tensors if key.startswith("param.")}
    ttt = {key.removeprefix("ttt_layers.ttt."): tensor for key, tensor in named.items()}
    lag = int(file.metadata.get("lag", "0")) if "lag_linear.weight" in ttt else 0
    heads, _, inner = ttt["W1"].shape
    config = TTTConfig(
        hidden_size=ttt["wq.weight"].shape[1],
        num_heads=heads,
        inner_size=inner,
        mini_batch=int(file.metadata["mini_batch_size"]),
        base_lr=float(file.metadata["ttt_base_lr"]),
        lag_weight=float(file.metadata.get("ema_factor", "0.1")),
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


def _slices(inputs: GoldenFile, dtype: torch.dtype) -> list[Tensor]:
    """Return the slices x, or x0, x1, ..."""
    names = sorted((key for key in inputs.tensors if key[0] == "x"), key=lambda key: int(key[1:] or 0))
    return [inputs.tensors[name].to(dtype) for name in names]


def _compare_run(
    ledger: Ledger, prefix: str, layer: TracedLayer, slices: list[Tensor], tolerance: float, of_weights: float
) -> None:
    """Run the slices through the layer and compare outputs, carried weights and intermediate results."""
    grid = ast.literal_eval(ledger.file.metadata["grid_hw"])
    state = layer.init_state(slices[0].shape[0])
    for i, x in enumerate(slices):
        name = f"{prefix}s{i}."
        ledger.compare(name + "freqs_start", state.rows, 0)
        layer.projected.clear()
        out = layer.padded_slice_output(x, grid, state)
        ledger.compare(name + "ttt_out_padded", out, tolerance)
        ledger.compare(name + "gated_out", layer.gate(x, out[:, : x.shape[1]]), tolerance)
        for part in InnerWeights._fields:
            ledger.compare(f"{name}final.{part}_states", getattr(state, part), of_weights)
        for mid in (name + "mid.", prefix + "mid.") if i == 0 else (name + "mid.",):
            _compare_intermediate(ledger, mid, layer, tolerance)


def _compare_intermediate(ledger: Ledger, mid: str, layer: TracedLayer, tolerance: float) -> None:
    """Compare projections of one slice, (head, mini-batch, row, channel). XV is R + k; XV_lag is R_lag + lag key."""

    def rows(part: Callable[[Rows], Tensor | None]) -> Tensor:
        return torch.stack([tensor for r in layer.projected if (tensor := part(r)) is not None], dim=1)

    ledger.compare(mid + "XQ", rows(lambda r: r.query), tolerance)
    ledger.compare(mid + "XK", rows(lambda r: r.key), tolerance)
    ledger.compare(mid + "XV", rows(lambda r: r.target + r.key), tolerance)
    ledger.compare(mid + "eta_token", rows(lambda r: r.rate.squeeze(-1)), tolerance)
    if layer.config.lag_distance:
        ledger.compare(mid + "XK_lag", rows(lambda r: r.lag_key), tolerance)
        ledger.compare(mid + "XV_lag", rows(lambda r: r.lag_target + r.lag_key), tolerance)  # type: ignore[operator]
        ledger.compare(mid + "lag_loss_mask", torch.stack([r.seen for r in layer.projected if r.seen is not None]), 0)


def _check_layer(file: GoldenFile) -> Iterator[Check]:
    dtype = file.tensors["s0.ttt_out_padded"].dtype
    layer = _layer(file, file, dtype, int(file.metadata.get("cg", "0")))
    ledger = Ledger(file, "param.", "x")
    tolerance = LAYER_TOLERANCE[dtype]
    _compare_run(ledger, "", layer, _slices(file, dtype), tolerance, 0.2 if dtype == torch.bfloat16 else tolerance)
    if "freqs_real" in file.tensors:
        height, width = ast.literal_eval(file.metadata["grid_hw"])
        n = torch.arange(len(file.tensors["freqs_real"]))
        places = torch.stack([n // (height * width), n % (height * width) // width, n % width], dim=-1)
        rotation = rotary_angles(places, layer.config.head_dim)
        ledger.compare("freqs_real", rotation.real, 1e-6)
        ledger.compare("freqs_imag", rotation.imag, 1e-6)
    return ledger.finish()


@family("ttt_a_*", "the TTT layer with SGD, without the long-span term")
def check_without_lag(file: GoldenFile) -> Iterator[Check]:
    """Check outputs, final weights, projections, rates and rotary angles of one slice."""
    return _check_layer(file)


@family("ttt_b_*", "the TTT layer with the long-span term")
def check_with_lag(file: GoldenFile) -> Iterator[Check]:
    """Check outputs, final weights, long-span keys, targets and mask of one slice."""
    return _check_layer(file)


@family("ttt_c_*", "the TTT layer carried across padded slices")
def check_carried(file: GoldenFile) -> Iterator[Check]:
    """Check outputs, weights and position offsets of each slice."""
    return _check_layer(file)


@family("ttt_hf_cg_*", "the TTT layer with conjugate gradient")
def check_hessian_free(file: GoldenFile) -> Iterator[Check]:
    """Check several K. Parameters and x may be in the ttt_a_sgd_nolag file with the same tag."""
    own = any(key.startswith("param.") for key in file.tensors)
    inputs = file if own else file.neighbour(file.path.name.replace("ttt_hf_cg_", "ttt_a_sgd_nolag_"))
    ledger = Ledger(file, "param.", "x")
    for iterations in sorted({int(key[2 : key.index(".")]) for key in ledger.left if key.startswith("cg")}):
        prefix = f"cg{iterations}."
        dtype = file.tensors[prefix + "s0.ttt_out_padded"].dtype
        tolerance = 5e-6 if dtype == torch.float64 else 1e-5 if iterations <= 4 else 5e-3
        layer = _layer(file, inputs, dtype, iterations)
        _compare_run(ledger, prefix, layer, _slices(inputs, dtype), tolerance, tolerance)
        solutions = [step.solution for step in layer.steps if step.solution is not None]
        ledger.compare(prefix + "n_iter_per_minibatch", torch.tensor([s.iterations for s in solutions]), 0)
        if prefix + "mask_after_iter" in ledger.left:
            # Rows after a break were never computed, so compare only iterations that ran.
            mask = file.tensors[prefix + "mask_after_iter"].clone()
            for i, solution in enumerate(solutions):
                mask[i, : solution.iterations] = solution.live.flatten(1).to(mask.dtype)
            ledger.compare(prefix + "mask_after_iter", mask, 0)
        first = layer.steps[0].gradient
        for part in InnerWeights._fields:
            ledger.compare(f"{prefix}mb0.b.g{part}", getattr(first, part), tolerance)
    return ledger.finish()


@family("hf_cg_direct*", "gradient, Gauss-Newton product and conjugate gradient alone")
def check_direct(file: GoldenFile) -> Iterator[Check]:
    """Check one mini-batch with the long-span term. Zero the right-hand side of the same heads as the file."""
    dtype = file.tensors["Z1"].dtype
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    inputs = {key: tensor.to(dtype) for key, tensor in file.tensors.items() if tensor.is_floating_point()}
    # Neither is a reference: cg32 is chaotic, and Gv_LN_GN is not a true Gauss-Newton product.
    known = ("K", "V_", "W", "b1", "b2", "eta", "ln_", "lag_mask", "v.", "cg32.", "Gv_LN_GN.")
    ledger = Ledger(file, *known)

    def vector(prefix: str) -> InnerWeights:
        return InnerWeights(*(inputs[prefix + part] for part in InnerWeights._fields)).merged()

    streams = inputs["K"].shape[0]
    norm = Norm(inputs["ln_weight"].repeat(streams, 1, 1), inputs["ln_bias"].repeat(streams, 1, 1))
    weights, key, eta = vector(""), inputs["K"].flatten(0, 1), inputs["eta"].flatten(0, 1)
    at = inner_model.linearise(key, weights)
    goal = Objective(inputs["V_plus"].flatten(0, 1) - key, None, eta)
    if "V_lag_plus" in inputs:
        pull = float(file.metadata.get("ema_factor", "0.1")) * inputs["lag_mask"].expand_as(inputs["eta"]).flatten(0, 1)
        lag_target = (inputs["V_lag_plus"] - inputs["K_lag"]).flatten(0, 1)
        goal = Objective(goal.pooled + pull * lag_target, pull, eta)
    ledger.compare("Z1", inner_model.product(key, weights.W1, weights.b1), tolerance)
    ledger.compare("X2", at.X2, tolerance)
    ledger.compare("Z2", at.Z2, tolerance)
    ledger.compare("Y", inner_model.evaluate(key, weights, norm), tolerance)
    gZ1, gZ2 = inner_model.output_gradient(at, goal._replace(rate=torch.ones_like(eta)), norm)
    ledger.compare("g_Z1", gZ1, tolerance)
    ledger.compare("g_Z2", gZ2, tolerance)

    rhs = inner_model.gradient(at, goal, norm)
    zeroed = torch.stack([(part == 0).flatten(1).all(-1) for part in vector("rhs.")]).all(0)[..., None, None]
    rhs = InnerWeights(*(part.masked_fill(zeroed, 0) for part in rhs))
    product = inner_model.gauss_newton_product(at, vector("v."))
    for part in InnerWeights._fields:
        ledger.compare(f"rhs.{part}", getattr(rhs, part), tolerance)
        ledger.compare(f"Gv.{part}", getattr(product, part), tolerance)

    first_head = torch.zeros_like(zeroed, dtype=dtype)
    first_head[0] = 1
    for name in sorted({key.split(".")[0] for key in ledger.left if key.startswith(("cg", "brk"))}):
        # brk*: only the first head has a right-hand side, so the three-quarters rule ends the iteration.
        b = InnerWeights(*(part * first_head for part in rhs)) if name.startswith("brk") else rhs
        solution = hessian_free.conjugate_gradient(
            lambda v, like=b: inner_model.gauss_newton_product(at, like.unflat(v)).flat(),  # type: ignore[misc]
            b.flat(),
            int(name.lstrip("cgbrk")),
        )
        for part, ours in zip(InnerWeights._fields, b.unflat(solution.u), strict=True):
            ledger.compare(f"{name}.u.{part}", ours, tolerance)
        ledger.compare(f"{name}.n_iter", solution.iterations, 0)
        ledger.compare(f"{name}.mask_after_iter", solution.live, 0)
        ledger.compare(f"{name}.rs_final", solution.residual, tolerance)
    return ledger.finish()
