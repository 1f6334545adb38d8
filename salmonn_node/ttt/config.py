"""Sizes and switches of the TTT layer, checked when they are set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch


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
