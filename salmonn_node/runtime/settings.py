"""Settings of a running memory: one dataclass, filled from ROS parameters or command-line flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from salmonn_node.answering.server_settings import ServerSettings
from salmonn_node.model.network_settings import NetworkSettings


@dataclass(frozen=True)
class Settings:
    """Settings of network, memory, answers and disk. The defaults are those of the node.

    Attributes:
        network: which network answers, where it runs, and how much it remembers.
        server: whether a server outside the network answers, and which.
        threads: CPU threads of the network; 0 lets torch choose.
        engine_backend: what runs the encoders: "auto", "torch", "tensorrt" or "tensorrt_rtx".
        require_engine: refuse to start when an encoder cannot run on an engine.
        engine_directory: where built engines are; None is the default directory.
        memory_directory: where memories are stored; None is the default directory.
        memory_name: name of the memory.
        persistence: keep the memory on disk.
        snapshot_period_s: seconds between snapshots.
        snapshots_kept: snapshots to keep on disk, each with the journal that follows it.
        sessions_kept: earlier sessions to keep on disk, each as its own memory.
        memory_disk_gib: bound on disk use, GiB.
        evidence_ram_mib: bound on the evidence in RAM without persistence, MiB.
        frame_rate_hz: frames taken per second and camera.
        max_evidence: most pieces of evidence for a question that sets no number.
        mounts: by camera, (x, y, z, roll, pitch, yaw) of its optical frame in base_frame, metres, radians (REP-103).
        base_frame: frame of the robot.
        ground_z_m: height of the plane that objects stand on, in the frame of the poses, metres.
        max_object_range_m: objects further from the camera get no position, metres.
    """

    network: NetworkSettings = field(default_factory=NetworkSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
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
