"""The state of a running memory as a message of salmonn_interfaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from salmonn_node.messages.base import MessageTypes, time_message


def memory_status_to_message(
    types: MessageTypes,
    observed: Any,
    *,
    encoders: Mapping[str, tuple[str, str]],
    checkpoint_id: str,
    trained: bool,
    persistence: str = "off",
    reader: str = "",
    stamp_ns: int = 0,
    last_snapshot_ns: int = 0,
) -> Any:
    """salmonn_interfaces/MemoryStatus.

    Args:
        types: makes the messages.
        observed: the observer's counters (`ingest.status.ObserverStatus`).
        encoders: (backend, reason) for "vision" and "audio".
        checkpoint_id: id of the network's weights.
        trained: False for untrained weights.
        persistence: "off", "on", or what is wrong with the memory on disk.
        reader: who answers, and where log and pictures go.
        stamp_ns: ROS time of the status.
        last_snapshot_ns: wall time of the newest snapshot; 0: none.
    """
    vision, audio = encoders["vision"], encoders["audio"]
    return types.new(
        "salmonn_interfaces/msg/MemoryStatus",
        stamp=time_message(types, stamp_ns),
        memory_id=observed.memory_id,
        session=observed.session,
        memory_start=time_message(types, observed.start_ns),
        last_observation=time_message(types, observed.newest_ns),
        frames=observed.frames,
        audio_s=float(observed.audio_s),
        poses=observed.poses,
        visual_tokens=observed.tokens[0],
        visual_budget=observed.budgets[0],
        audio_tokens=observed.tokens[1],
        audio_budget=observed.budgets[1],
        drops=[
            types.new("salmonn_interfaces/msg/DropCount", reason=reason, count=count)
            for reason, count in sorted(observed.drops.items())
        ],
        vision_backend=vision[0],
        vision_backend_reason=vision[1],
        audio_backend=audio[0],
        audio_backend_reason=audio[1],
        checkpoint_id=checkpoint_id,
        checkpoint_trained=trained,
        reader=reader,
        last_snapshot=time_message(types, last_snapshot_ns),
        persistence=persistence,
    )
