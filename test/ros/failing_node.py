"""The real node with the tiny network, whose vision tower fails at its fourth patch as a broken GPU does."""

from __future__ import annotations

import sys
import threading
from typing import Any

from salmonn_node.ros.node import main
from salmonn_node.runtime.build import Backend, build_backend, load_model
from salmonn_node.runtime.settings import Settings

GOOD_PATCHES = 3


def breaking(settings: Settings) -> Any:
    model = load_model(settings)
    tower, calls = model.network.vision, [0]
    encode = tower.forward

    def forward(*args: Any) -> Any:
        # What configure times is not the stream's: a GPU that fails there fails configure.
        calls[0] += threading.current_thread().name == "observer"
        if calls[0] > GOOD_PATCHES:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return encode(*args)

    tower.forward = forward
    return model


def build(settings: Settings) -> Backend:
    return build_backend(settings, breaking)


if __name__ == "__main__":
    sys.exit(main(sys.argv, build))
