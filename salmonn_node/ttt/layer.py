"""TTT layer: each mini-batch of tokens trains a small model per head, then reads its output from that model.

For each mini-batch of m tokens:
1. project the tokens to queries, keys and values;
2. take one step of the fast weights, so that they map keys to values (and to the values `lag` tokens earlier);
3. run the queries through the new weights.

Equations: video-SALMONN S (TTT_HF), built on "Learning to (Learn at Test Time)" (arXiv:2407.04620).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from salmonn_node.ttt import inner_model
from salmonn_node.ttt import update as fast_update
from salmonn_node.ttt.checks import checked, with_batch
from salmonn_node.ttt.config import TTTConfig
from salmonn_node.ttt.inner_model import InnerWeights, Norm
from salmonn_node.ttt.rotary import rotary_angles, rotate
from salmonn_node.ttt.state import TTTState
from salmonn_node.ttt.update import Rows, Step

__all__ = ["TTTConfig", "TTTLayer", "TTTState"]


class TTTLayer(nn.Module):
    """TTT layer with its gate (`gating_alpha`). Parameters have the names of the public release.

    Parameters have the compute dtype; the fast weights in a `TTTState` have `config.state_dtype`. Token tensors are
    (L, hidden) for one stream, or (B, L, hidden) for B streams that advance together. Outputs have the same rank.
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
        """Return the state before the first token. The fast weights have their learned initial values.

        Args:
            batch: number of streams that advance together, B.
            differentiable: record gradients through all operations on this state, for training. If False, nothing
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
        """Observe tokens. Each complete mini-batch updates the weights and is returned; the rest waits in the state.

        The layer only works on complete mini-batches. So the result is the same, bit for bit, however you cut the
        stream into calls.

        Args:
            tokens: (L, hidden) or (B, L, hidden), L >= 1, finite.
            positions: (L, 3) or (B, L, 3) int64 (t, y, x), each >= 0.
            state: changed in place; unchanged if an error is raised.

        Returns:
            x + tanh(alpha) * out for the R rows of completed mini-batches, in order: (R, hidden) or (B, R, hidden).

        Raises:
            ValueError: tokens or positions are empty, have the wrong shape or dtype, or hold NaN, infinities or
                negative positions.
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
                # Copy, so that the matrix products see the same memory layout however the rows arrived.
                x = rows[:, start : start + m].clone()
                out = self._observe_mini_batch(x, places[:, start : start + m], state)
                done.append(self.gate(x, out))
            state.chunks = [(rows[:, whole:].clone(), places[:, whole:].clone())] if whole < rows.shape[1] else []
            return self._as_given(torch.cat(done, dim=1), tokens)

    def pending(self, state: TTTState) -> Tensor:
        """Run the waiting rows through the current weights, as a question sees them. Does not change the state.

        Returns:
            (P, hidden), or (B, P, hidden) for a state of several streams; P may be 0.
        """
        with _grad_mode(state.differentiable):
            rows, places = state.pending_tokens()
            if rows.shape[1]:
                rows = self.gate(rows, self._read(self._query(rows, places), state.weights.merged()))
            return rows if state.batch > 1 else rows[0]

    def recall(self, queries: Tensor, state: TTTState, positions: Tensor | None = None) -> Tensor:
        """Query the fast weights directly, without residual and gate.

        Args:
            queries: (Q, hidden) or (B, Q, hidden), Q >= 1, finite.
            state: not changed.
            positions: (Q, 3) or (B, Q, 3) int64, to query a time and place. None skips the rotary embedding.

        Returns:
            wo(post_norm(q + gamma LN(f(q)) + beta)) at the current weights, with the shape of queries.

        Raises:
            ValueError: as `observe`.
        """
        zeros = torch.zeros(queries.shape[-2] if queries.dim() > 1 else 1, 3, dtype=torch.int64, device=queries.device)
        rows, places = self._checked(queries, zeros if positions is None else positions, state, "queries")
        with _grad_mode(state.differentiable):
            out = self._read(self._query(rows, None if positions is None else places), state.weights.merged())
            return self._as_given(out, queries)

    # -- released mode ----------------------------------------------------------------------------------------------

    def observe_slice(self, tokens: Tensor, grid: tuple[int, int], state: TTTState) -> Tensor:
        """Observe one slice as the public release does, with zero rows that complete the last mini-batch.

        The zero rows train the weights and count as lag rows. Positions come from the flat token count. Padding does
        not advance that count, so padded rows reuse the positions of the next slice. The long-span term only sees
        the previous padded slice.

        Args:
            tokens: (L, hidden) or (B, L, hidden), one slice.
            grid: merged rows and columns of a temporal patch (h, w).
            state: changed in place; unchanged if an error is raised.

        Returns:
            Gated tokens with the shape of `tokens`.

        Raises:
            ValueError: as `observe`, or the layer is in streaming mode.
        """
        padded = self.padded_slice_output(tokens, grid, state)
        rows = with_batch(tokens).to(padded.dtype)
        with _grad_mode(state.differentiable):
            return self._as_given(self.gate(rows, padded[:, : rows.shape[1]]), tokens)

    def padded_slice_output(self, tokens: Tensor, grid: tuple[int, int], state: TTTState) -> Tensor:
        """Output of `observe_slice` before the gate, with the padding rows: (B, L', hidden)."""
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
        """Process one mini-batch of the unpadded stream. Its last `lag_distance` rows feed the long-span term."""
        m, lag = self.config.mini_batch, self.config.lag_distance
        stream = torch.cat([state.lag_rows, x], dim=1)
        seen = torch.arange(state.rows - lag, state.rows - lag + m, device=x.device) >= 0
        out = self._mini_batch(x, places, stream[:, :m], seen, state)
        state.lag_rows = stream[:, m:].clone()
        state.rows += m
        return out

    def _mini_batch(self, x: Tensor, places: Tensor, source: Tensor, seen: Tensor, state: TTTState) -> Tensor:
        """Update the state's weights with m rows, then read the rows back. Returns `out`, (B, m, hidden)."""
        rows = self.project(x, places, source, seen)
        step = self.update(rows, state.weights.merged(), state.damping.flatten())
        state.W1, state.b1, state.W2, state.b2 = step.weights.split(state.batch)
        state.damping = step.damping.view_as(state.damping)
        state.rejected += 0 if step.rejected is None else int(step.rejected.sum())
        state.skipped += 0 if step.skipped is None else int(step.skipped.sum())
        state.updates += 1
        return self._read(rows.query, step.weights)

    def project(self, x: Tensor, places: Tensor, source: Tensor, seen: Tensor) -> Rows:
        """Queries, keys, targets and rates of one mini-batch.

        Args:
            x: (B, m, hidden).
            places: (B, m, 3).
            source: (B, m, hidden), the rows `lag_distance` earlier. Not read if the long-span term is off.
            seen: (m,) bool, whether those rows exist.
        """
        config = self.config
        lag = config.lag_distance > 0
        turned = [self.wq(x), self.wk(x)]
        values = [self.wv(x)]
        if lag:
            values.append(self.lag_linear(source))
            if config.lag_use_key:
                turned.append(self.lag_linear_key(x))
        query, key, *lag_keys = self._turned(turned, places)
        lag_keys = lag_keys or [key]
        keys = torch.stack([key, *lag_keys]) if lag else key.unsqueeze(0)
        targets = inner_model.normalise_target(self._heads(values) - keys, self._norm(len(x)))
        rate = torch.sigmoid(
            F.linear(x, self.learnable_ttt_lr_weight.squeeze(1), self.learnable_ttt_lr_bias.squeeze(1))
        )
        if config.optimizer != "damped":
            rate = rate * (config.base_lr / config.head_dim / config.mini_batch)
        rows = Rows(query, key, targets[0], rate.mT.reshape(-1, x.shape[1], 1))
        if not lag:
            return rows
        return rows._replace(lag_key=lag_keys[0], lag_target=targets[1], seen=seen.to(x.dtype).unsqueeze(-1))

    def update(self, rows: Rows, weights: InnerWeights, damping: Tensor) -> Step:
        """Return the fast weights after one mini-batch. Weights and damping cover G = B * H heads."""
        batch = weights.b2.shape[0] // self.config.num_heads
        initial = self._initial_weights(batch).merged() if self.config.decay else weights
        return fast_update.update(rows, weights, initial, damping, self._norm(batch), self.config)

    def read_heads(self, query: Tensor, weights: InnerWeights) -> Tensor:
        """Run queries through the inner model: q + gamma LN(f(q)) + beta, (G, L, D)."""
        batch = query.shape[0] // self.config.num_heads
        return query + inner_model.evaluate(query, weights.to(query.dtype), self._norm(batch))

    def _read(self, query: Tensor, weights: InnerWeights) -> Tensor:
        """Read back: wo(post_norm(q + gamma LN(f(q)) + beta)), (G, L, D) -> (B, L, hidden)."""
        read = self.read_heads(query, weights).unflatten(0, (-1, self.config.num_heads))
        return self.wo(self.post_norm(read.transpose(1, 2).flatten(2)))

    def gate(self, x: Tensor, out: Tensor) -> Tensor:
        """Gated tokens: x + tanh(alpha) * out."""
        return torch.addcmul(x, torch.tanh(self.gating_alpha), out)

    # -- parts ------------------------------------------------------------------------------------------------------

    def _initial_weights(self, batch: int) -> InnerWeights:
        learned = (self.W1, self.b1, self.W2, self.b2)
        return InnerWeights(*(w.to(self.config.state_dtype).expand(batch, *w.shape).clone() for w in learned))

    def _norm(self, batch: int) -> Norm:
        """Affine parameters of the inner layer norm for every head of every stream."""
        gamma, beta = self.ttt_norm_weight.unsqueeze(1), self.ttt_norm_bias.unsqueeze(1)
        return Norm(gamma, beta) if batch == 1 else Norm(gamma.repeat(batch, 1, 1), beta.repeat(batch, 1, 1))

    def _heads(self, projected: list[Tensor]) -> Tensor:
        """Split n tensors (B, L, hidden) into heads: (n, G, L, D). A head is a contiguous block of channels."""
        split = [y.unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2) for y in projected]
        return torch.stack(split).flatten(1, 2)

    def _turned(self, projected: list[Tensor], places: Tensor | None) -> Tensor:
        """Split n tensors (B, L, hidden) into heads of length 1, rotated by position: (n, G, L, D)."""
        vectors = self._heads(projected)
        vectors = vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_min(1e-12)
        if places is None or not self.config.rotary:
            return vectors
        rotation = rotary_angles(places, self.config.head_dim)
        if len(places) > 1:
            rotation = rotation.repeat_interleave(self.config.num_heads, dim=0)
        return rotate(vectors, rotation)

    def _query(self, x: Tensor, places: Tensor | None) -> Tensor:
        return self._turned([self.wq(x)], places)[0]

    def _checked(
        self, tokens: Tensor, positions: Tensor, state: TTTState, name: str = "tokens"
    ) -> tuple[Tensor, Tensor]:
        return checked(tokens, positions, state.batch, self.config.hidden_size, self.wq.weight.dtype, name)

    @staticmethod
    def _as_given(rows: Tensor, tokens: Tensor) -> Tensor:
        return rows[0] if tokens.dim() == 2 else rows


def _released_lag(previous: Tensor, x: Tensor, lag: int) -> tuple[Tensor, Tensor]:
    """Return the long-span sources of a padded slice (B, L, hidden), and which of its rows have one (L,) bool."""
    L, before = x.shape[1], previous.shape[1]
    stream = torch.cat([previous, x], dim=1)
    index = torch.arange(before - lag, before - lag + L, device=x.device)
    source = stream[:, index.clamp(min=0)] * (index >= 0)[:, None]
    if before == 0:
        return source, index >= 0
    return source, torch.full_like(index, before >= lag, dtype=torch.bool)


def _grad_mode(differentiable: bool) -> AbstractContextManager[None]:
    return torch.enable_grad() if differentiable else torch.no_grad()
