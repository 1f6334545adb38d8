"""Short names of published checkpoints, with their hub id and the profile of their sizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A published checkpoint.

    Attributes:
        hub_id: owner and name on the hub.
        profile: name in `model/profiles.py`. It gives the sizes before the checkpoint is downloaded.
    """

    hub_id: str
    profile: str


# Smallest first. Other hub ids of the same families work, too.
KNOWN = {
    "qwen3-vl-2b": Known("Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl_2b"),
    "qwen3-vl-4b": Known("Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl_4b"),
    "qwen3-vl-8b": Known("Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl_8b"),
    "video-salmonn-s": Known("tsinghua-ee/video_SALMONN_S", "video_salmonn_s_8b"),
}
