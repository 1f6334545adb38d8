"""Fast weights over events: a linear inner model with sparse addresses and one Hessian-free step per event.

An event writes a value v (V,) at an address a (M,). The address is zero in all but a few slots. The inner model is
f(a) = a W with W (M, V), and its loss is |v - a W|^2 / 2. The Gauss-Newton curvature aᵀ a has rank one, so one
iteration of conjugate gradient from zero gives the exact damped Hessian-free step:

    W <- W + aᵀ (v - a W) / (a aᵀ + lambda)

The layer also keeps a sum and a count per slot, S <- S + aᵀ v and n <- n + a. Their mean suits facts that do not
change but are perceived with noise.
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
        slots: length of an address, M.
        values: length of a value, V.
        optimizer: `hf`: damped conjugate gradient on the curvature of the mini-batch. `sgd`: the gradient times `lr`.
            `static`: no updates, a control.
        mini_batch: events per update, m. With m = 1, `hf` is exact after one iteration.
        cg_iterations: conjugate-gradient iterations of `hf`, K.
        damping: damping of `hf`, lambda.
        lr: learning rate of `sgd`.
        decay: after each update, the fraction of the way that the weights move back to the initial value. 0 is off.
        prior_count: weight of the initial value in the mean, as a number of events.
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
    """Softmax over the `top` largest of scores (..., n). All other entries are exactly 0; each row sums to 1.

    Ties go to the lower position.
    """
    values, order = torch.sort(scores, dim=-1, descending=True, stable=True)
    chosen = torch.softmax(values[..., :top] / temperature, dim=-1)
    return torch.zeros_like(scores).scatter(-1, order[..., :top], chosen)


def product_address(*parts: Tensor) -> Tensor:
    """Combine several parts into one address: (..., n1), (..., n2), ... -> (..., n1 * n2 * ...).

    Each slot stands for one combination of parts, such as a colour and a shape, or a sound and a room. The address is
    the outer product of the parts. Summing it over one part gives the address of the other parts.
    """
    address = parts[0]
    for part in parts[1:]:
        address = (address.unsqueeze(-1) * part.unsqueeze(-2)).flatten(-2)
    return address


class EventLayer:
    """An event layer with its state. The state has a constant size, however many events you write.

    Args:
        config: sizes and switches.
        initial: (V,), the value that an empty slot returns. Defaults to zeros.

    Attributes:
        weights: W, (M, V) float32.
        sums: S, (M, V) float32.
        counts: n, (M,) float32.
        events: events written so far, including those that wait for their mini-batch.
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
        """Size of the state in bytes, including the largest possible partial mini-batch."""
        waiting = (self.config.mini_batch - 1) * (self.config.slots + self.config.values)
        return 4 * (self.weights.numel() + self.sums.numel() + self.counts.numel() + self.initial.numel() + waiting)

    def write(self, address: Tensor, value: Tensor) -> None:
        """Write one event: address (M,), value (V,). The weights update when a mini-batch is complete.

        Raises:
            ValueError: the shape is wrong, or a number is not finite. The state is then unchanged.
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
        """Return the weights (M, V) after a mini-batch: addresses (m, M), values (m, V). Does not change the state."""
        config = self.config
        if config.optimizer == "static":
            return self.weights
        # The columns of W are independent problems with the same curvature: V heads of M weights for the solver.
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
        """Read the fast weights at addresses (..., M) -> (..., V)."""
        return address.float() @ self.weights

    def mean(self, address: Tensor) -> Tensor:
        """Mean of all values written at addresses (..., M) -> (..., V). The initial value counts as `prior_count`."""
        prior = self.config.prior_count
        sums = address.float() @ (self.sums + prior * self.initial)
        return sums / (address.float() @ (self.counts + prior)).unsqueeze(-1)

    def count(self, address: Tensor) -> Tensor:
        """Number of events written at addresses (..., M) -> (...). An event over several slots counts in fractions."""
        return address.float() @ self.counts

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the whole state as tensors and JSON values. `from_tensors` restores it bit for bit."""
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
        """Restore a layer from `to_tensors`.

        Raises:
            ValueError: a tensor is missing, or its shape does not match the configuration.
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
