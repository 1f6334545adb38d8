"""Fast weights over events: a linear inner model with sparse addresses, one Hessian-free step for each event.

An event writes a value v (V,) at an address a (M,), which is zero at all but a few slots. The inner model is a W, its
loss |v - a W|^2 / 2, and its Gauss-Newton curvature aᵀ a has rank one. One iteration of conjugate gradient from zero
then finds the damped Hessian-free step exactly:

    W <- W + aᵀ (v - a W) / (a aᵀ + lambda)

A sum and a count stand beside it, for facts that last while perception errs: S <- S + aᵀ v, n <- n + a.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from salmonn_node.ttt.hessian_free import damped_conjugate_gradient


@dataclass(frozen=True)
class EventLayerConfig:
    """Sizes and switches of the layer.

    Attributes:
        slots: M, length of an address.
        values: V, length of a value.
        optimizer: `hf`: damped conjugate gradient on the curvature of the mini-batch; `sgd`: the gradient times `lr`;
            `static`: no update, the control.
        mini_batch: events of an update. With one, `hf` is exact after one iteration.
        cg_iterations: K of `hf`.
        damping: lambda of `hf`.
        lr: learning rate of `sgd`.
        decay: after each update the weights move this fraction of the way back to the initial value; 0 is off.
        prior_count: how many events the initial value counts for in the mean.
    """

    slots: int
    values: int
    optimizer: Literal["hf", "sgd", "static"] = "hf"
    mini_batch: int = 1
    cg_iterations: int = 1
    damping: float = 0.01
    lr: float = 0.5
    decay: float = 0.0
    prior_count: float = 0.05

    def __post_init__(self) -> None:
        for name in ("slots", "values", "mini_batch", "cg_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.optimizer not in ("hf", "sgd", "static"):
            raise ValueError(f"optimizer: {self.optimizer!r} is none of hf, sgd, static")
        if self.damping <= 0:
            raise ValueError(f"damping: expected more than 0, got {self.damping}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay: expected 0 to 1, got {self.decay}")


def sparse_part(scores: Tensor, top: int, temperature: float) -> Tensor:
    """Softmax over the `top` largest of scores (..., n); exact zeros elsewhere, each row sums to 1.

    Of equal scores the lower position counts first.
    """
    values, order = torch.sort(scores, dim=-1, descending=True, stable=True)
    chosen = torch.softmax(values[..., :top] / temperature, dim=-1)
    return torch.zeros_like(scores).scatter(-1, order[..., :top], chosen)


def product_address(*parts: Tensor) -> Tensor:
    """The address of several parts together: (..., n1), (..., n2), ... -> (..., n1 * n2 * ...).

    A slot stands for one choice of every part, such as a colour and a shape, or a sound and a room. The address is
    the outer product of the parts, so summing slots over one part gives the address of the others.
    """
    address = parts[0]
    for part in parts[1:]:
        address = (address.unsqueeze(-1) * part.unsqueeze(-2)).flatten(-2)
    return address


class EventLayer:
    """The layer with its state; constant in size however many events are written.

    Args:
        config: sizes and switches.
        initial: (V,) what an empty slot reads as; zeros when left out.

    Attributes:
        weights: W, (M, V) float32.
        sums: S, (M, V) float32.
        counts: n, (M,) float32.
        events: events written so far, those that wait for their mini-batch included.
    """

    def __init__(self, config: EventLayerConfig, initial: Tensor | None = None) -> None:
        self.config = config
        self.initial = torch.zeros(config.values) if initial is None else initial.detach().float().clone()
        if tuple(self.initial.shape) != (config.values,):
            raise ValueError(f"initial: expected shape {(config.values,)}, got {tuple(self.initial.shape)}")
        self.weights = self.initial.expand(config.slots, -1).clone()
        self.sums = torch.zeros(config.slots, config.values)
        self.counts = torch.zeros(config.slots)
        self.events = 0
        self._waiting: list[tuple[Tensor, Tensor]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the state, the largest partial mini-batch included."""
        waiting = (self.config.mini_batch - 1) * (self.config.slots + self.config.values)
        return 4 * (self.weights.numel() + self.sums.numel() + self.counts.numel() + self.initial.numel() + waiting)

    def write(self, address: Tensor, value: Tensor) -> None:
        """Take one event in: address (M,), value (V,). The update happens when a mini-batch is whole.

        Raises:
            ValueError: another shape, or a number that is not finite; the state is unchanged.
        """
        for name, tensor, size in (("address", address, self.config.slots), ("value", value, self.config.values)):
            if tuple(tensor.shape) != (size,):
                raise ValueError(f"{name}: expected shape ({size},), got {tuple(tensor.shape)}")
            if not bool(torch.isfinite(tensor).all()):
                raise ValueError(f"{name}: contains NaN or Inf")
        address, value = address.detach().float(), value.detach().float()
        self.sums += address[:, None] * value
        self.counts += address
        self.events += 1
        self._waiting.append((address.clone(), value.clone()))
        if len(self._waiting) == self.config.mini_batch:
            rows, self._waiting = self._waiting, []
            self.weights = self.updated(torch.stack([a for a, _ in rows]), torch.stack([v for _, v in rows]))

    def updated(self, addresses: Tensor, values: Tensor) -> Tensor:
        """The weights (M, V) after one mini-batch of addresses (m, M) and values (m, V); the state is unchanged."""
        config = self.config
        if config.optimizer == "static":
            return self.weights
        # Each column of W is a problem of its own with the same curvature: V heads of M weights for the solver.
        gradient = (values - addresses @ self.weights).T @ addresses
        if config.optimizer == "sgd":
            step = config.lr * gradient
        else:
            step, _ = damped_conjugate_gradient(
                lambda u: (u @ addresses.T) @ addresses,
                gradient,
                torch.full((config.values,), config.damping),
                config.cg_iterations,
            )
        weights = self.weights + step.T
        return torch.lerp(weights, self.initial.expand_as(weights), config.decay) if config.decay else weights

    def read(self, address: Tensor) -> Tensor:
        """What the fast weights hold at addresses (..., M): (..., V)."""
        return address.float() @ self.weights

    def mean(self, address: Tensor) -> Tensor:
        """The mean of all values written at addresses (..., M), the initial value counted a little: (..., V)."""
        prior = self.config.prior_count
        sums = address.float() @ (self.sums + prior * self.initial)
        return sums / (address.float() @ (self.counts + prior)).unsqueeze(-1)

    def count(self, address: Tensor) -> Tensor:
        """How many events were written at addresses (..., M), in parts of an event where they were shared: (...)."""
        return address.float() @ self.counts

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The whole state as tensors and JSON values; `from_tensors` continues bit for bit."""
        M, V = self.config.slots, self.config.values
        waiting = [torch.cat(row) for row in self._waiting]
        return {
            "weights": self.weights.clone(),
            "sums": self.sums.clone(),
            "counts": self.counts.clone(),
            "initial": self.initial.clone(),
            "waiting": torch.stack(waiting) if waiting else torch.empty(0, M + V),
        }, {"events": self.events}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], config: EventLayerConfig
    ) -> EventLayer:
        """The inverse of `to_tensors`.

        Raises:
            ValueError: a tensor is missing or has another shape than the configuration asks for.
        """
        layer = cls(config)
        M, V = config.slots, config.values
        shapes = {"weights": (M, V), "sums": (M, V), "counts": (M,), "initial": (V,)}
        for name, shape in shapes.items():
            if name not in tensors or tuple(tensors[name].shape) != shape:
                found = tuple(tensors[name].shape) if name in tensors else "nothing"
                raise ValueError(f"tensors: {name} should have shape {shape}, found {found}")
            setattr(layer, name, tensors[name].float().clone())
        waiting = tensors.get("waiting", torch.empty(0, M + V))
        layer._waiting = [(row[:M].clone(), row[M:].clone()) for row in waiting]
        layer.events = int(meta["events"])
        return layer
