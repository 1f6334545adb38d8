"""Configuration of the TTT layer: sizes and switches, checked when you create it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class TTTConfig:
    """Sizes and switches of the TTT layer. The defaults are the released sizes, in streaming mode.

    Attributes:
        hidden_size: channels of a token.
        num_heads: number of heads, H. With `rotary`, hidden_size / num_heads must be a multiple of 16.
        inner_size: hidden channels of each head's inner model, F. None means head_dim.
        mini_batch: tokens per update, m.
        base_lr: scale of the per-token learning rate eta = base_lr * sigmoid(.) / head_dim / m. With `hf` the step is
            about eta times a Gauss-Newton step. Set base_lr = head_dim * m to take the fraction sigmoid(.) of it.
        lag_weight: weight of the long-span term, lambda.
        lag_distance: how many tokens back the long-span term looks. 0 turns the term off and drops its projections.
        lag_use_key: give the long-span target its own key projection, as the release does. False reuses the key.
        optimizer: `sgd`: plain gradient steps. `hf`: conjugate gradient as in the paper's TTT_HF. `damped`: our
            variant of `hf`. It adds Tikhonov damping, does not scale the right-hand side by base_lr, and rejects
            steps that raise the objective. `static`: no updates, a control.
        cg_iterations: conjugate-gradient iterations of `hf` and `damped`, K.
        damping: initial damping of `damped`, relative to the mean curvature per token.
        decay: after each update, the fraction of the way that the weights move back to their initial values. 0 is off.
        rotary: rotate queries and keys by position. Turn it off for read-outs whose queries have no position.
        mode: `streaming`: rows wait until a mini-batch is complete. `released`: zero-padded slices, see
            `observe_slice`.
        state_dtype: dtype of the fast weights between updates.
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
        """Channels per head, D."""
        return self.hidden_size // self.num_heads
