"""Draw what a memory has kept: tokens per minute of the stream, as text for a terminal and as a PNG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from salmonn_node.memory.token_memory import TokenMemory
from salmonn_node.stream.observations import SECOND_NS

MODALITIES = ("visual", "audio")
BARS = " ▁▂▃▄▅▆▇█"
COLOURS = {"visual": (176, 114, 31), "audio": (44, 127, 255)}  # BGR


@dataclass(frozen=True)
class Remembered:
    """Kept tokens per bin of the stream's time.

    Attributes:
        start_ns: stamp at which the first bin begins.
        bin_s: length of a bin, 60 s or a multiple of it.
        tokens: modality -> (bins,) int64, kept tokens in each bin.
        waiting: number of visual tokens that wait for their mini-batch.
    """

    start_ns: int
    bin_s: int
    tokens: dict[str, npt.NDArray[np.int64]]
    waiting: int = 0


def remembered(tensors: dict[str, Tensor], values: dict[str, Any], max_bins: int = 120) -> Remembered | None:
    """Count the kept tokens of a snapshot, given its tensors and values, by minute; None when nothing is kept."""
    stamps = {}
    for modality in MODALITIES:
        prefix = f"memory.{modality}."
        part = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        memory = TokenMemory.from_tensors(part, values["memory"][modality])
        stamps[modality] = memory.view().stamp_ns.numpy() if len(memory) else np.zeros(0, np.int64)
    every = np.concatenate(list(stamps.values()))
    if not len(every):
        return None
    start_ns, minutes = int(every.min()), int((every.max() - every.min()) // (60 * SECOND_NS)) + 1
    bin_s = 60 * -(-minutes // max_bins)
    bins = -(-minutes * 60 // bin_s)
    tokens = {
        name: np.bincount((found - start_ns) // (bin_s * SECOND_NS), minlength=bins).astype(np.int64)
        for name, found in stamps.items()
    }
    table = tensors.get("memory.waiting.table")
    return Remembered(start_ns, bin_s, tokens, 0 if table is None else len(table))


def as_text(found: Remembered) -> list[str]:
    """One line of bars per modality. Each bar is a bin; its height is the number of kept tokens."""
    lines = []
    for name, counts in found.tokens.items():
        top = max(1, int(counts.max()))
        bars = "".join(BARS[int(np.ceil(count / top * (len(BARS) - 1)))] for count in counts)
        lines.append(f"{name:>6} {bars}  {int(counts.sum())} tokens, at most {int(counts.max())} in {found.bin_s} s")
    return lines


def write_png(found: Remembered, path: Path) -> None:
    """Draw the kept tokens as bars over the minutes of the stream. Raises OSError when `path` cannot be written."""
    width, height, left, gap = 1200, 220, 70, 40
    canvas = np.full((len(found.tokens) * (height + gap) + gap, width, 3), 255, np.uint8)
    for row, (name, counts) in enumerate(found.tokens.items()):
        base, top = (row + 1) * (height + gap) - gap // 2, max(1, int(counts.max()))
        step = (width - left - 20) / len(counts)
        for n, count in enumerate(counts):
            corner = (left + int(n * step), base - round(int(count) / top * (height - 30)))
            cv2.rectangle(canvas, corner, (left + max(int((n + 1) * step) - 1, int(n * step)), base), COLOURS[name], -1)
        cv2.line(canvas, (left, base), (width - 20, base), (0, 0, 0), 1)
        unit = f"kept {name} tokens per {found.bin_s} s"
        for text, at in ((unit, (left, base - height + 16)), (str(top), (8, base - height + 40)), ("0", (8, base))):
            cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        minutes = len(counts) * found.bin_s // 60
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            x = left + int(share * (width - left - 60))
            text = f"{share * minutes:g} min"
            cv2.putText(canvas, text, (x, base + 18), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    done, data = cv2.imencode(".png", canvas)
    if not done:
        raise OSError(f"{path}: picture cannot be encoded")
    path.write_bytes(data.tobytes())
