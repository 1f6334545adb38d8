"""The TTT layer: tokens train a small model per head, mini-batch by mini-batch, and are read back through it.

Each mini-batch of m tokens is projected to queries, keys and values; the fast weights take one step toward mapping
keys to values (and to what stood `lag` tokens earlier); the queries then go through the new weights. Equations:
video-SALMONN S (TTT_HF) on top of "Learning to (Learn at Test Time)" (arXiv:2407.04620).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from salmonn_node.memory import hessian_free, inner_model
from salmonn_node.memory.fast_state import TTTState
from salmonn_node.memory.hessian_free import Solution
from salmonn_node.memory.inner_model import InnerWeights, Objective
from salmonn_node.memory.rotary import rotary_angles, rotate


@dataclass(frozen=True)
class TTTConfig:
    """Sizes and switches of the TTT layer; the defaults are the released sizes in streaming mode.

    Attributes:
        hidden_size: channels of a token.
        num_heads: heads; hidden_size / num_heads must be a multiple of 16 when `rotary`.
        inner_size: hidden channels of the inner model of a head; None means those of the head.
        mini_batch: tokens per update, m.
        base_lr: scale of the per-token rates eta = base_lr sigmoid(.) / head_dim / m. With `hf` the step is about eta
            times a Gauss-Newton step, so base_lr = head_dim * m makes sigmoid(.) the fraction of it that is taken.
        lag_weight: lambda of the long-span term.
        lag_distance: how many tokens back the long-span term looks; 0 turns it off and drops its projections.
        lag_use_key: the long-span target has its own key projection (as released); otherwise the key serves.
        optimizer: `sgd`; `hf`: conjugate gradient as in the paper's TTT_HF; `damped`: ours, with Tikhonov damping,
            a right-hand side that base_lr does not scale, and refusal of steps that raise the objective; `static`:
            no update, a control.
        cg_iterations: K of `hf` and `damped`.
        damping: first damping of `damped`, on the scale of the mean curvature per token.
        decay: after each update the weights move this fraction of the way back to their initial values; 0 is off.
        rotary: turn queries and keys by position. Off suits read-outs, whose queries have no place in the stream.
        mode: `streaming`: rows wait for a whole mini-batch. `released`: zero-padded slices, see `observe_slice`.
        state_dtype: dtype in which the fast weights are kept between updates.
    """

    hidden_size: int = 4096
    num_heads: int = 8
    inner_size: int | None = None
    mini_batch: int = 1024
    base_lr: float = 0.1
    lag_weight: float = 0.1
    lag_distance: int = 1024
    lag_use_key: bool = True
    optimizer: Literal["sgd", "hf", "damped", "static"] = "sgd"
    cg_iterations: int = 2
    damping: float = 0.1
    decay: float = 0.0
    rotary: bool = True
    mode: Literal["streaming", "released"] = "streaming"
    state_dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        for name in ("hidden_size", "num_heads", "mini_batch", "cg_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} should be at least 1, not {getattr(self, name)}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} does not divide into num_heads {self.num_heads}")
        if self.rotary and self.head_dim % 16:
            raise ValueError(f"hidden_size / num_heads is {self.head_dim}; rotary needs a multiple of 16")
        if self.lag_distance < 0:
            raise ValueError(f"lag_distance should be 0 or more, not {self.lag_distance}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay should lie in 0 to 1, not {self.decay}")
        if self.optimizer not in ("sgd", "hf", "damped", "static"):
            raise ValueError(f"optimizer {self.optimizer!r} is none of sgd, hf, damped, static")
        if self.mode not in ("streaming", "released"):
            raise ValueError(f"mode {self.mode!r} is neither streaming nor released")

    @property
    def head_dim(self) -> int:
        """Channels of a head, D."""
        return self.hidden_size // self.num_heads


class Rows(NamedTuple):
    """Projected rows: what an update of the fast weights needs."""

    query: Tensor  # (B, H, m, D)
    key: Tensor  # (B, H, m, D)
    target: Tensor  # R, (B, H, m, D)
    rate: Tensor  # eta, (B, H, m, 1); for `damped` without base_lr / D / m
    lag_key: Tensor | None = None  # (B, H, m, D)
    lag_target: Tensor | None = None  # R_lag, (B, H, m, D)
    seen: Tensor | None = None  # M, (m, 1): whether the row `lag` earlier exists

    def goal(self, lag_weight: float) -> Objective:
        """The objective of the update."""
        if self.lag_target is None or self.seen is None:
            return Objective(self.target, None, self.rate)
        pull = lag_weight * self.seen
        return Objective(torch.addcmul(self.target, self.lag_target, pull), pull, self.rate)


class Step(NamedTuple):
    """The outcome of an update, before it is committed to a state."""

    weights: InnerWeights
    damping: Tensor
    gradient: InnerWeights | None = None
    solution: Solution | None = None  # of `hf`
    rejected: Tensor | None = None  # (B, H) bool
    skipped: Tensor | None = None  # (B, H) bool


class TTTLayer(nn.Module):
    """The TTT layer with the release's parameter names, its gate included (`gating_alpha`).

    Parameters live in the compute dtype; the fast weights of a `TTTState` in `config.state_dtype`. All token tensors
    are (L, hidden) for one stream or (B, L, hidden) for B streams that advance together; outputs have the same rank.
    """

    def __init__(self, config: TTTConfig) -> None:
        super().__init__()
        self.config = config
        hidden, heads, D = config.hidden_size, config.num_heads, config.head_dim
        inner = config.inner_size or D
        self.wq = nn.Linear(hidden, hidden)
        self.wk = nn.Linear(hidden, hidden)
        self.wv = nn.Linear(hidden, hidden)
        self.wo = nn.Linear(hidden, hidden)
        if config.lag_distance:
            self.lag_linear = nn.Linear(hidden, hidden)
            if config.lag_use_key:
                self.lag_linear_key = nn.Linear(hidden, hidden)
        self.W1 = nn.Parameter(torch.randn(heads, D, inner) * 0.02)
        self.b1 = nn.Parameter(torch.zeros(heads, 1, inner))
        self.W2 = nn.Parameter(torch.randn(heads, inner, D) * 0.02)
        self.b2 = nn.Parameter(torch.zeros(heads, 1, D))
        self.ttt_norm_weight = nn.Parameter(torch.ones(heads, D))
        self.ttt_norm_bias = nn.Parameter(torch.zeros(heads, D))
        self.learnable_ttt_lr_weight = nn.Parameter(torch.randn(heads, 1, hidden) * 0.02)
        self.learnable_ttt_lr_bias = nn.Parameter(torch.zeros(heads, 1))
        self.post_norm = nn.LayerNorm(hidden, eps=1e-6)
        self.gating_alpha = nn.Parameter(torch.full((hidden,), 0.1))

    # -- a stream ---------------------------------------------------------------------------------------------------

    def init_state(self, batch: int = 1, differentiable: bool = False) -> TTTState:
        """The state before the first token: fast weights at their learned initial values.

        Args:
            batch: streams that advance together.
            differentiable: let gradients flow through everything done with this state (training). Otherwise nothing
                is recorded, whatever the caller's grad mode.
        """
        config, dtype, device = self.config, self.wq.weight.dtype, self.wq.weight.device
        with _grad_mode(differentiable):
            W1, b1, W2, b2 = self._initial_weights(batch)
            lag = 0 if config.mode == "released" else config.lag_distance
            return TTTState(
                W1=W1,
                b1=b1,
                W2=W2,
                b2=b2,
                damping=torch.full((batch, config.num_heads), config.damping, device=device),
                lag_rows=torch.zeros(batch, lag, config.hidden_size, dtype=dtype, device=device),
                differentiable=differentiable,
            )

    def observe(self, tokens: Tensor, positions: Tensor, state: TTTState) -> Tensor:
        """Take tokens in; each whole mini-batch updates the weights and comes out. The rest waits in the state.

        How the stream is cut into calls makes no difference, bit for bit: work is done per whole mini-batch.

        Args:
            tokens: (L, hidden) or (B, L, hidden), L >= 1, finite.
            positions: (L, 3) or (B, L, 3) int64 (t, y, x), each >= 0.
            state: changed in place; unchanged if an error is raised.

        Returns:
            x + tanh(alpha) * out of the R rows that completed mini-batches, in order: (R, hidden) or (B, R, hidden).

        Raises:
            ValueError: tokens or positions are empty, of a wrong shape or type, not finite or negative.
        """
        if self.config.mode != "streaming":
            raise ValueError("observe: this layer is in released mode, use observe_slice")
        rows, places = self._checked(tokens, positions, state)
        m = self.config.mini_batch
        with _grad_mode(state.differentiable):
            state.chunks.append((rows.clone(), places.clone()))
            if state.pending_rows < m:
                return self._as_given(rows[:, :0].clone(), tokens)
            rows, places = state.pending_tokens()
            done = []
            whole = rows.shape[1] // m * m
            for start in range(0, whole, m):
                # A copy, so that the products see the same memory layout however the rows arrived.
                x = rows[:, start : start + m].clone()
                out = self._observe_mini_batch(x, places[:, start : start + m], state)
                done.append(self.gate(x, out))
            state.chunks = [(rows[:, whole:].clone(), places[:, whole:].clone())] if whole < rows.shape[1] else []
            return self._as_given(torch.cat(done, dim=1), tokens)

    def pending(self, state: TTTState) -> Tensor:
        """The waiting rows through the current weights, as a question sees them; the state is untouched.

        Returns:
            (P, hidden), or (B, P, hidden) for a state of several streams; P may be 0.
        """
        with _grad_mode(state.differentiable):
            rows, places = state.pending_tokens()
            if rows.shape[1]:
                rows = self.gate(rows, self._read(self._query(rows, places), state.weights))
            return rows if state.batch > 1 else rows[0]

    def recall(self, queries: Tensor, state: TTTState, positions: Tensor | None = None) -> Tensor:
        """Ask the fast weights directly: what they hold for these queries, without residual and gate.

        Args:
            queries: (Q, hidden) or (B, Q, hidden), Q >= 1, finite.
            state: untouched.
            positions: (Q, 3) or (B, Q, 3) int64 to ask about a time and place; None leaves the queries unturned.

        Returns:
            wo(post_norm(q + f(q))) with the current weights, shaped like queries.

        Raises:
            ValueError: as `observe`.
        """
        zeros = torch.zeros(queries.shape[-2] if queries.dim() > 1 else 1, 3, dtype=torch.int64, device=queries.device)
        rows, places = self._checked(queries, zeros if positions is None else positions, state, "queries")
        with _grad_mode(state.differentiable):
            out = self._read(self._query(rows, None if positions is None else places), state.weights)
            return self._as_given(out, queries)

    # -- the release's way ------------------------------------------------------------------------------------------

    def observe_slice(self, tokens: Tensor, grid: tuple[int, int], state: TTTState) -> Tensor:
        """Take one slice in as the release does: zero rows fill the last mini-batch, train the weights and stay as lag.

        Positions are those of the flat token count: padding does not advance it, so padded rows reuse the positions
        of the next slice. The long-span term sees only the previous padded slice.

        Args:
            tokens: (L, hidden) or (B, L, hidden), one slice.
            grid: merged rows and columns of a temporal patch (h, w).
            state: changed in place; unchanged if an error is raised.

        Returns:
            Gated tokens shaped like `tokens`.

        Raises:
            ValueError: as `observe`, or the layer is in streaming mode.
        """
        padded = self.padded_slice_output(tokens, grid, state)
        rows = self._with_batch(tokens)
        with _grad_mode(state.differentiable):
            return self._as_given(self.gate(rows, padded[:, : rows.shape[1]]), tokens)

    def padded_slice_output(self, tokens: Tensor, grid: tuple[int, int], state: TTTState) -> Tensor:
        """`observe_slice` before gate and removal of padding: (B, L', hidden)."""
        if self.config.mode != "released":
            raise ValueError("observe_slice: this layer is in streaming mode, use observe")
        if min(grid) < 1:
            raise ValueError(f"grid should be positive, not {grid}")
        config = self.config
        height, width = grid
        L = tokens.shape[-2] if tokens.dim() > 1 else 0
        m = config.mini_batch
        n = torch.arange(state.rows, state.rows + -(-L // m) * m, device=tokens.device)
        index = torch.stack([n // (height * width), n % (height * width) // width, n % width], dim=-1)
        x, _ = self._checked(tokens, index[:L], state)
        with _grad_mode(state.differentiable):
            x = F.pad(x, (0, 0, 0, len(n) - L))
            places = index.expand(state.batch, -1, -1)
            source, seen = _released_lag(state.lag_rows, x, config.lag_distance)
            out = []
            for start in range(0, len(n), m):
                here = slice(start, start + m)
                out.append(self._mini_batch(x[:, here], places[:, here], source[:, here], seen[here], state))
            state.lag_rows = x
            state.rows += L
            state.slices += 1
            return torch.cat(out, dim=1)

    def load_release(self, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
        """Load tensors named as in the release's checkpoint: `ttt_layers.ttt.*` and `ttt_gating.gating_alpha`.

        Raises:
            KeyError or RuntimeError: as `load_state_dict(strict=True)`.
        """
        inner = prefix + "ttt_layers.ttt."
        named = {name[len(inner) :]: tensor for name, tensor in tensors.items() if name.startswith(inner)}
        named["gating_alpha"] = tensors[prefix + "ttt_gating.gating_alpha"]
        self.load_state_dict(named)

    # -- one mini-batch ---------------------------------------------------------------------------------------------

    def _observe_mini_batch(self, x: Tensor, places: Tensor, state: TTTState) -> Tensor:
        """One mini-batch of the unpadded stream: the long-span sources are the last `lag_distance` rows of it."""
        m, lag = self.config.mini_batch, self.config.lag_distance
        stream = torch.cat([state.lag_rows, x], dim=1)
        seen = torch.arange(state.rows - lag, state.rows - lag + m, device=x.device) >= 0
        out = self._mini_batch(x, places, stream[:, :m], seen, state)
        state.lag_rows = stream[:, m:].clone()
        state.rows += m
        return out

    def _mini_batch(self, x: Tensor, places: Tensor, source: Tensor, seen: Tensor, state: TTTState) -> Tensor:
        """Update the weights of the state with m rows, then read the rows back: `out`, (B, m, hidden)."""
        rows = self.project(x, places, source, seen)
        step = self.update(rows, state.weights, state.damping)
        state.W1, state.b1, state.W2, state.b2 = step.weights
        state.damping = step.damping
        state.rejected += 0 if step.rejected is None else int(step.rejected.sum())
        state.skipped += 0 if step.skipped is None else int(step.skipped.sum())
        state.updates += 1
        return self._read(rows.query, state.weights)

    def project(self, x: Tensor, places: Tensor, source: Tensor, seen: Tensor) -> Rows:
        """Queries, keys, targets and rates of one mini-batch.

        Args:
            x: (B, m, hidden).
            places: (B, m, 3).
            source: (B, m, hidden), the row `lag_distance` earlier; not read without a long-span term.
            seen: (m,) bool, whether that row exists.
        """
        config = self.config
        gamma, beta = self._norm()
        rotation = self._rotation(places)
        query, key = self._turned(self.wq, x, rotation), self._turned(self.wk, x, rotation)
        target = inner_model.normalise_target(self._heads(self.wv(x)) - key, gamma, beta)
        rate = torch.sigmoid(
            F.linear(x, self.learnable_ttt_lr_weight.squeeze(1), self.learnable_ttt_lr_bias.squeeze(1))
        )
        if config.optimizer != "damped":
            rate = config.base_lr * rate / config.head_dim / config.mini_batch
        rows = Rows(query, key, target, rate.mT.unsqueeze(-1))
        if not config.lag_distance:
            return rows
        lag_key = self._turned(self.lag_linear_key, x, rotation) if config.lag_use_key else key
        lag_target = inner_model.normalise_target(self._heads(self.lag_linear(source)) - lag_key, gamma, beta)
        return rows._replace(lag_key=lag_key, lag_target=lag_target, seen=seen.to(x.dtype)[:, None])

    def update(self, rows: Rows, weights: InnerWeights, damping: Tensor) -> Step:
        """The new fast weights after one mini-batch; nothing is changed in place."""
        config = self.config
        if config.optimizer == "static":
            return Step(weights, damping)
        compute = rows.key.dtype
        goal = rows.goal(config.lag_weight)
        at = inner_model.linearise(rows.key, weights.to(compute))
        b = inner_model.gradient(at, goal, *self._norm())
        if config.optimizer == "sgd":
            delta, step = b, Step(weights, damping, b)
        else:
            delta, step = self._second_order(at, goal, Step(weights, damping, b))
        new = InnerWeights(*(w - d.to(w.dtype) for w, d in zip(weights, delta, strict=True)))
        if config.decay:
            start = self._initial_weights(rows.key.shape[0])
            new = InnerWeights(*(torch.lerp(w, w0, config.decay) for w, w0 in zip(new, start, strict=True)))
        if config.mode == "released":
            return step._replace(weights=new)
        finite = torch.stack([part.isfinite().flatten(2).all(-1) for part in new]).all(0)
        if not finite.all():
            keep = finite[..., None, None]
            new = InnerWeights(*(torch.where(keep, w, old) for w, old in zip(new, weights, strict=True)))
        return step._replace(weights=new, skipped=~finite)

    def _second_order(self, at: inner_model.Linearisation, goal: Objective, before: Step) -> tuple[InnerWeights, Step]:
        """What `hf` or `damped` subtract; vectors are float32 or wider, products run in the compute dtype."""
        config, compute = self.config, at.X1.dtype
        wide = torch.promote_types(compute, torch.float32)
        b = before.gradient
        assert b is not None

        def product(v: Tensor) -> Tensor:
            return inner_model.gauss_newton_product(at, b.unflat(v.to(compute))).flat().to(wide)

        rhs = b.flat().to(wide)
        if config.optimizer == "hf":
            solution = hessian_free.conjugate_gradient(product, rhs, config.cg_iterations)
            return b.unflat(solution.u), before._replace(solution=solution)
        m = config.mini_batch
        u, predicted = hessian_free.damped_conjugate_gradient(
            lambda v: product(v) / m, rhs / m, before.damping.to(wide), config.cg_iterations
        )
        with torch.no_grad():
            trial = InnerWeights(*(w - d for w, d in zip(before.weights, b.unflat(u), strict=True))).to(compute)
            was = inner_model.objective_value(at, goal, *self._norm())
            now = inner_model.objective_value(inner_model.linearise(at.X1, trial), goal, *self._norm())
            actual = ((was - now) / m).to(before.damping.dtype)
            accepted = actual >= 0
            damping = hessian_free.adapt_damping(before.damping, actual, predicted.to(actual.dtype))
        step = before._replace(damping=damping, rejected=~accepted)
        return b.unflat(torch.where(accepted.unsqueeze(-1), u, 0)), step

    def _read(self, query: Tensor, weights: InnerWeights) -> Tensor:
        """Read back: wo(post_norm(q + gamma LN(f(q)) + beta)): (B, H, L, D) -> (B, L, hidden)."""
        gamma, beta = self._norm()
        read = query + inner_model.evaluate(query, weights.to(query.dtype), gamma, beta)
        return self.wo(self.post_norm(read.transpose(1, 2).flatten(2)))

    def gate(self, x: Tensor, out: Tensor) -> Tensor:
        """Gated tokens: x + tanh(alpha) * out."""
        return torch.addcmul(x, torch.tanh(self.gating_alpha), out)

    # -- parts ------------------------------------------------------------------------------------------------------

    def _initial_weights(self, batch: int) -> InnerWeights:
        learned = (self.W1, self.b1, self.W2, self.b2)
        return InnerWeights(*(w.to(self.config.state_dtype).expand(batch, *w.shape).clone() for w in learned))

    def _norm(self) -> tuple[Tensor, Tensor]:
        return self.ttt_norm_weight.unsqueeze(1), self.ttt_norm_bias.unsqueeze(1)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, L, hidden) -> (B, H, L, D); a head is a contiguous block of channels."""
        return x.unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2)

    def _rotation(self, places: Tensor | None) -> Tensor | None:
        if places is None or not self.config.rotary:
            return None
        return rotary_angles(places, self.config.head_dim).unsqueeze(1)

    def _turned(self, projection: nn.Module, x: Tensor, rotation: Tensor | None) -> Tensor:
        """Projected, normalised per head and turned by position: (B, H, L, D)."""
        vectors = F.normalize(self._heads(projection(x)), dim=-1, eps=1e-12)
        return vectors if rotation is None else rotate(vectors, rotation)

    def _query(self, x: Tensor, places: Tensor | None) -> Tensor:
        return self._turned(self.wq, x, self._rotation(places))

    @staticmethod
    def _with_batch(tokens: Tensor) -> Tensor:
        return tokens.unsqueeze(0) if tokens.dim() == 2 else tokens

    @staticmethod
    def _as_given(rows: Tensor, tokens: Tensor) -> Tensor:
        return rows[0] if tokens.dim() == 2 else rows

    def _checked(
        self, tokens: Tensor, positions: Tensor, state: TTTState, name: str = "tokens"
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, hidden) in the compute dtype and positions (B, L, 3); a ValueError names what is wrong."""
        hidden = self.config.hidden_size
        if tokens.dim() not in (2, 3) or tokens.shape[-1] != hidden:
            raise ValueError(f"{name}: shape {tuple(tokens.shape)}, expected (L, {hidden}) or (B, L, {hidden})")
        rows = self._with_batch(tokens)
        if rows.shape[0] != state.batch:
            raise ValueError(f"{name}: {rows.shape[0]} streams, but the state holds {state.batch}")
        if rows.shape[1] == 0:
            raise ValueError(f"{name}: empty, expected at least one row")
        if not rows.is_floating_point():
            raise ValueError(f"{name}: dtype {tokens.dtype}, expected a floating-point type")
        if not rows.isfinite().all():
            raise ValueError(f"{name}: NaN or infinite values")
        if positions.shape not in ((rows.shape[1], 3), (*rows.shape[:2], 3)):
            raise ValueError(f"positions: shape {tuple(positions.shape)}, expected ({rows.shape[1]}, 3)")
        if positions.is_floating_point() or positions.is_complex() or positions.dtype == torch.bool:
            raise ValueError(f"positions: dtype {positions.dtype}, expected int64")
        if (positions < 0).any():
            raise ValueError("positions: negative values")
        places = positions.to(rows.device, torch.int64).expand(*rows.shape[:2], 3)
        return rows.to(self.wq.weight.dtype), places


def _released_lag(previous: Tensor, x: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    """Long-span sources of a padded slice (B, L, hidden), and which of its rows have one (L,)."""
    L, before = x.shape[1], previous.shape[1]
    stream = torch.cat([previous, x], dim=1)
    index = torch.arange(before - lag, before - lag + L, device=x.device)
    source = stream[:, index.clamp(min=0)] * (index >= 0)[:, None]
    if before == 0:
        return source, index >= 0
    return source, torch.full_like(index, before >= lag, dtype=torch.bool)


def _grad_mode(differentiable: bool) -> AbstractContextManager[None]:
    return torch.enable_grad() if differentiable else torch.no_grad()
