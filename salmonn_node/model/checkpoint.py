"""Which network to run: the tiny one that comes with the package, or a folder of weights."""

from __future__ import annotations

from pathlib import Path

from salmonn_node.model.video_salmonn_s import VideoSalmonnS

TINY = "tiny"
BUNDLED = Path(__file__).resolve().parent.parent / "checkpoints"


def load(checkpoint: str = TINY, **changes: object) -> VideoSalmonnS:
    """Load a network.

    Args:
        checkpoint: "tiny", or a folder.
        changes: fields of the configuration to replace.

    Raises:
        ValueError: unknown checkpoint.
    """
    if checkpoint == TINY and not (BUNDLED / TINY).is_dir():
        return VideoSalmonnS.tiny(**changes)
    raise ValueError(f"checkpoint: {checkpoint!r} is not known")
