"""State of the TTT layer: one explicit object that you can copy, save and compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from salmonn_node.ttt.inner_model import InnerWeights

COUNTERS = ("rows", "updates", "slices", "rejected", "skipped")


@dataclass(eq=False)
class TTTState:
    """State of B streams that advance together. On a robot, B is 1.

    Attributes:
        W1, b1, W2, b2: fast weights, (B, H, D, F), (B, H, 1, F), (B, H, F, D), (B, H, 1, D).
        damping: Levenberg-Marquardt damping of the solver `damped`, (B, H) float32.
        lag_rows: in streaming mode, the last `lag_distance` rows that went through an update, (B, lag, hidden);
            zeros before the stream began. In released mode, the previous padded slice, (B, rows, hidden).
        rows: tokens that went through an update, without padding.
        updates: mini-batches processed.
        slices: slices processed in released mode.
        rejected: updates of one head that the solver `damped` rejected because they raised the objective.
        skipped: updates of one head that were not applied because they were not finite.
        chunks: tokens (B, P, hidden) and positions (B, P, 3) that wait for a complete mini-batch, in arrival order.
        differentiable: whether the layer records gradients through operations on this state.
    """

    W1: Tensor
    b1: Tensor
    W2: Tensor
    b2: Tensor
    damping: Tensor
    lag_rows: Tensor
    rows: int = 0
    updates: int = 0
    slices: int = 0
    rejected: int = 0
    skipped: int = 0
    chunks: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    differentiable: bool = False

    @property
    def weights(self) -> InnerWeights:
        """The four fast weights as one tuple."""
        return InnerWeights(self.W1, self.b1, self.W2, self.b2)

    @property
    def batch(self) -> int:
        """Number of streams, B."""
        return self.W1.shape[0]

    @property
    def pending_rows(self) -> int:
        """Number of tokens that wait for a complete mini-batch, P."""
        return sum(tokens.shape[1] for tokens, _ in self.chunks)

    def pending_tokens(self) -> tuple[Tensor, Tensor]:
        """The waiting tokens (B, P, hidden) and their positions (B, P, 3). P may be 0."""
        if not self.chunks:
            empty = self.lag_rows.new_zeros(self.batch, 0, self.lag_rows.shape[-1])
            return empty, torch.zeros(self.batch, 0, 3, dtype=torch.int64, device=empty.device)
        tokens, positions = zip(*self.chunks, strict=True)
        return torch.cat(tokens, dim=1), torch.cat(positions, dim=1)

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes. It is largest when m - 1 tokens wait, and does not grow with the stream."""
        return sum(tensor.nbytes for tensor in self.to_tensors().values())

    def clone(self) -> TTTState:
        """Return an independent copy."""
        copies = {f.name: getattr(self, f.name).clone() for f in fields(self) if f.type == "Tensor"}
        return replace(self, **copies, chunks=[(t.clone(), p.clone()) for t, p in self.chunks])

    def detach(self) -> TTTState:
        """Return the same values without their gradient graph, for training that carries weights across segments."""
        cut = {f.name: getattr(self, f.name).detach() for f in fields(self) if f.type == "Tensor"}
        return replace(self, **cut, chunks=[(t.detach(), p) for t, p in self.chunks])

    def to_tensors(self) -> dict[str, Tensor]:
        """Return contiguous tensors by flat name, ready for safetensors. One int64 tensor holds the counters."""
        tokens, positions = self.pending_tokens()
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "Tensor"}
        named |= {"pending_tokens": tokens, "pending_positions": positions}
        named["counters"] = torch.tensor([getattr(self, name) for name in COUNTERS], dtype=torch.int64)
        return {name: tensor.detach().contiguous() for name, tensor in named.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> TTTState:
        """Restore a state from `to_tensors`, bit for bit.

        Raises:
            ValueError: a tensor is missing, or the number of counters differs from this version's.
        """
        names = [f.name for f in fields(cls) if f.type == "Tensor"]
        missing = {*names, "pending_tokens", "pending_positions", "counters"} - set(tensors)
        if missing:
            raise ValueError(f"tensors: {sorted(missing)} missing")
        if tensors["counters"].shape != (len(COUNTERS),):
            raise ValueError(f"tensors: counters should be {len(COUNTERS)} numbers, {', '.join(COUNTERS)}")
        W1, b1, W2, b2, damping, lag_rows = (tensors[name].clone() for name in names)
        state = cls(W1, b1, W2, b2, damping, lag_rows)
        for name, count in zip(COUNTERS, tensors["counters"].tolist(), strict=True):
            setattr(state, name, count)
        tokens, positions = tensors["pending_tokens"], tensors["pending_positions"]
        state.chunks = [(tokens.clone(), positions.clone())] if tokens.shape[1] else []
        return state

    def __eq__(self, other: object) -> bool:
        """Compare tensors and counters bit for bit, dtypes included. How the waiting rows arrived does not matter."""
        if not isinstance(other, TTTState):
            return NotImplemented
        ours, theirs = self.to_tensors(), other.to_tensors()
        return all(t.dtype == theirs[name].dtype and torch.equal(t, theirs[name]) for name, t in ours.items())

    __hash__ = None  # type: ignore[assignment]
