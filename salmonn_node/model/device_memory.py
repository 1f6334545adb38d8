"""Device memory: how many bytes the GPU or the computer has for a network."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP_LIMIT, CGROUP_USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
GIB = 1 << 30


@dataclass(frozen=True)
class DeviceMemory:
    """Memory of the device on which a network will run.

    Attributes:
        device: "cuda" or "cpu".
        name: the GPU's name, or "no GPU".
        total, free: bytes. If the GPU shares the computer's memory (Jetson), those of the computer.
    """

    device: str
    name: str
    total: int
    free: int

    def describe(self) -> str:
        """Describe the memory in one line."""
        what = "GPU memory" if self.device == "cuda" else "memory"
        return f"{self.name}; {self.total / GIB:.1f} GiB of {what}, {self.free / GIB:.1f} GiB free"


def device_memory(device: str) -> DeviceMemory:
    """Read the memory of this machine.

    Args:
        device: "cuda" or "cpu", as returned by `network_settings.device_of`.
    """
    total, free = computer_memory()
    if device != "cuda":
        return DeviceMemory("cpu", "no GPU is used", total, free)
    import torch

    properties = torch.cuda.get_device_properties(0)
    if getattr(properties, "is_integrated", False):
        return DeviceMemory("cuda", f"{properties.name}, which shares the computer's memory", total, free)
    free_there, total_there = torch.cuda.mem_get_info(0)
    return DeviceMemory("cuda", str(properties.name), total_there, free_there)


def computer_memory() -> tuple[int, int]:
    """Return (total, free) bytes of this computer, or of the container that limits it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    if MEMINFO.exists():
        # Memory available without swapping, including the file cache.
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else free
    try:
        limit, used = int(CGROUP_LIMIT.read_text()), int(CGROUP_USED.read_text())
    except (OSError, ValueError):  # no limit: "max", or no such file
        return total, free
    return min(total, limit), min(free, max(0, limit - used))
