"""A team's own calibration of a checkpoint, which `salmonn calibrate` writes, and which file a network uses.

It lies in the user's data folder, named by the id of the weights. It never lies in the hub's cache, which others may
share, nor in the package. It takes precedence over the file in the checkpoint's folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from pathlib import Path

CALIBRATION = "calibration.json"

log = logging.getLogger(__name__)


def own_calibration(checkpoint: str) -> Path:
    """Path of a team's own calibration of the weights called `checkpoint`. It need not exist.

    Raises:
        ValueError: XDG_DATA_HOME is not set, and the user has no home directory.
    """
    data = os.environ.get("XDG_DATA_HOME")
    if not data:
        try:
            data = str(Path.home() / ".local" / "share")
        except RuntimeError:
            raise ValueError(
                "this user has no home directory to keep calibrations in: set XDG_DATA_HOME, or name a file with --out"
            ) from None
    return Path(data) / "salmonn_node" / "calibrations" / f"{checkpoint}.json"


def calibration_of(folder: Path, checkpoint: str, weights: str = "full") -> Path | None:
    """Path of the calibration to use: the team's own, or the one in the checkpoint's folder. None if there is none.

    Args:
        folder: the checkpoint's folder. Its calibration is for the weights as they are there.
        checkpoint: id of the weights as they will run.
        weights: "full", or how they are quantised. Then the folder's calibration is left out, with a warning, unless
            it names these weights.
    """
    files = [folder / CALIBRATION]
    if weights != "full" and files[0].is_file() and not _made_for(files[0], checkpoint):
        log.warning(
            "%s is for the weights in full. With %s there is no calibration, so answers have no confidence. "
            "Make one: salmonn calibrate --weights %s",
            *(files.pop(), weights, weights),
        )
    with contextlib.suppress(ValueError):  # without a home there is no calibration of one's own
        files.insert(0, own_calibration(checkpoint))
    return next((file for file in files if file.is_file()), None)


def _made_for(path: Path, checkpoint: str) -> bool:
    """Whether a calibration names these weights. A file that cannot be read is left to who uses it, to refuse it."""
    try:
        return bool(json.loads(path.read_bytes())["checkpoint"] == checkpoint)
    except (OSError, ValueError, KeyError, TypeError):
        return True


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new one, never a part. Makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
