"""Short names of published checkpoints: what each is called on the hub, and which profile has its sizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A published checkpoint.

    Attributes:
        hub_id: owner and name on the hub.
        profile: name in `model/profiles.py`; says what it needs before it is there.
    """

    hub_id: str
    profile: str


# Smallest first. Any other hub id of the same families works, too.
KNOWN = {
    "qwen3-vl-2b": Known("Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl_2b"),
    "qwen3-vl-4b": Known("Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl_4b"),
    "qwen3-vl-8b": Known("Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl_8b"),
    "video-salmonn-s": Known("tsinghua-ee/video_SALMONN_S", "video_salmonn_s_8b"),
}
