"""Network: all trained parts in one module, with the names of the released checkpoint where it has them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.evidence_head import EvidenceHead, RecallReadout
from salmonn_node.model.language import LanguageModel
from salmonn_node.model.towers import AudioTower, VisionTower
from salmonn_node.ttt.layer import TTTConfig, TTTLayer


def ttt_config(config: SalmonnConfig) -> TTTConfig | None:
    """Return the settings of the TTT layer, or None if the network has no fast weights."""
    if config.ttt is None:
        return None
    values: dict[str, Any] = dict(config.ttt)
    if isinstance(values.get("state_dtype"), str):
        values["state_dtype"] = getattr(torch, values["state_dtype"])
    return TTTConfig(hidden_size=config.hidden_size, mode=config.mode, **values)


class Network(nn.Module):
    """Vision tower, audio tower, TTT layer, language model, and the optional heads of the tiny network."""

    def __init__(self, config: SalmonnConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionTower(config)
        self.audio = AudioTower(config.audio, config.hidden_size) if config.audio else None
        ttt = ttt_config(config)
        self.ttt = TTTLayer(ttt) if ttt else None
        self.language = LanguageModel(config)
        self.evidence = EvidenceHead(config.hidden_size) if config.evidence_head else None
        self.recall = RecallReadout(config.hidden_size) if config.recall else None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.language.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.language.lm_head.weight.dtype

    def cast(self, dtype: torch.dtype) -> Network:
        """Cast all weights. Rotary frequencies stay fp32; `to(dtype)` would round them."""
        for parameter in self.parameters():
            parameter.data = parameter.data.to(dtype)
        return self

    def initialise(self, seed: int) -> None:
        """Set random weights from a seed, scaled by fan-in. They are the same on every machine with the same torch."""
        generator = torch.Generator().manual_seed(seed)
        done: set[int] = set()
        for name, parameter in sorted(self.named_parameters()):
            if id(parameter) in done:
                continue
            done.add(id(parameter))
            with torch.no_grad():
                parameter.copy_(_initial(name, parameter, generator))


def _initial(name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "gating_alpha":
        return torch.full(parameter.shape, 0.1)
    norm = "norm" in name.rsplit(".", 2)[-2].lower() or leaf == "ttt_norm_weight"
    if norm and "weight" in leaf:
        return torch.ones(parameter.shape)
    if parameter.dim() < 2 or leaf in ("b1", "b2", "ttt_norm_bias", "learnable_ttt_lr_bias"):
        return torch.zeros(parameter.shape)
    noise = torch.randn(parameter.shape, generator=generator)
    if "embed" in name or leaf == "q_tokens":
        return noise * 0.1
    if leaf in ("W1", "W2"):
        return noise / math.sqrt(parameter.shape[1])
    fan_in = parameter[0].numel()
    return noise / math.sqrt(fan_in)
