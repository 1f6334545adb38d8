"""Empty shared memory of Fast DDS, for which every later ROS process of a domain would wait for ever, is removed.

Fast DDS makes a port in shared memory in two steps: a file without contents, then its contents. A process that is
killed in between, or may not write files of that size, leaves the empty file. Whoever opens the port later waits for
the contents, without end and without a word, while it makes its node.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

FOLDER = Path("/dev/shm")
# Ports of DDS domain d, by which its shared memory is named, too (DDSI-RTPS 2.5, 9.6.2.3).
FIRST_PORT, PORTS_PER_DOMAIN = 7400, 250
ABANDONED_S = 10.0  # making a port takes far less than a millisecond, unless the process is stopped in between
LOOK_S = 0.1


def remove_empty_ports(domain: int | None = None, *, folder: Path = FOLDER, abandoned_s: float = ABANDONED_S) -> None:
    """Remove ports that were left without contents, and say so on stderr. Call it before a context is made.

    Args:
        domain: ROS domain; None is that of the environment.
        folder: where Fast DDS keeps shared memory.
        abandoned_s: age from which an empty port is taken for abandoned, seconds; a younger one is waited for.
    """
    if domain is None:
        text = os.environ.get("ROS_DOMAIN_ID", "")
        domain = int(text) if text.isdecimal() else 0
    first = FIRST_PORT + PORTS_PER_DOMAIN * domain
    names = [f"fastrtps_port{port}" for port in range(first, first + PORTS_PER_DOMAIN)]
    while ages := {folder / name: age for name in names if (age := _age_if_empty(folder / name)) is not None}:
        for path, age_s in ages.items():
            if age_s >= abandoned_s and not _remove(path):
                names.remove(path.name)
        if all(age_s < abandoned_s for age_s in ages.values()):
            time.sleep(LOOK_S)


def _age_if_empty(path: Path) -> float | None:
    """Seconds since an empty file was made; None if there is no such file, or it has contents."""
    try:
        found = path.stat()
    except OSError:
        return None
    return time.time() - found.st_mtime if not found.st_size else None


def _remove(path: Path) -> bool:
    why = "an earlier process left it without contents, and ROS would wait for them for ever"
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        print(f"remove {path}, which takes another user ({error.strerror}): {why}", file=sys.stderr)
        return False
    print(f"removed {path}: {why}", file=sys.stderr)
    return True
