"""The settings of a memory: one dataclass, filled by the node's ROS parameters or by command-line flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from salmonn_node.model.network_settings import NetworkSettings


@dataclass(frozen=True)
class Settings:
    """How network, memory, answers and disk are set up. The defaults are the node's.

    Attributes:
        network: which network answers, where it runs, and how much it remembers.
        threads: CPU threads of the network; 0 leaves the choice to torch.
        engine_backend: what runs the encoders: "auto", "torch", "tensorrt" or "tensorrt_rtx".
        require_engine: refuse to start when an encoder cannot run on an engine.
        engine_directory: where built engines are; None is the default directory.
        memory_directory: where memories are stored; None is the default directory.
        memory_name: name of the memory.
        persistence: keep the memory on disk.
        snapshot_period_s: seconds between snapshots.
        snapshots_kept: snapshots that stay on disk, each with the journal that leads on from it.
        sessions_kept: earlier sessions that stay on disk, each as a memory of its own.
        memory_disk_gib: bound on disk use, GiB.
        evidence_ram_mib: bound on the evidence in RAM when nothing is kept on disk, MiB.
        frame_rate_hz: frames taken per second and camera.
        max_evidence: pieces of evidence for a question that names no number.
        mounts: by camera (x, y, z, roll, pitch, yaw) of its optical frame in base_frame, metres and radians (REP-103).
        base_frame: frame of the robot.
        ground_z_m: height of the plane that objects stand on.
        max_object_range_m: objects further from the camera get no position.
    """

    network: NetworkSettings = field(default_factory=NetworkSettings)
    threads: int = 0
    engine_backend: str = "auto"
    require_engine: bool = False
    engine_directory: Path | None = None
    memory_directory: Path | None = None
    memory_name: str = "default"
    persistence: bool = True
    snapshot_period_s: float = 300.0
    snapshots_kept: int = 3
    sessions_kept: int = 5
    memory_disk_gib: float = 8.0
    evidence_ram_mib: int = 128
    frame_rate_hz: float = 1.0
    max_evidence: int = 5
    mounts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    base_frame: str = "base_link"
    ground_z_m: float = 0.0
    max_object_range_m: float = 10.0
