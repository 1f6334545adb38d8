"""Files of small read-outs: their weights as safetensors, and what describes them as JSON in the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn


def save_readout(module: nn.Module, path: Path, name: str, about: Any) -> None:
    """Write the weights of a module, with `about` under a name of its own."""
    tensors = {key: tensor.contiguous() for key, tensor in module.state_dict().items()}
    save_file(tensors, str(path), {name: json.dumps(about)})


def about_readout(path: Path, name: str) -> dict[str, Any]:
    """What `save_readout` wrote under that name. Raises ValueError when the file holds nothing there."""
    with safe_open(str(path), framework="pt") as file:
        text = (file.metadata() or {}).get(name)
    about: dict[str, Any] = json.loads(text or "")
    return about
