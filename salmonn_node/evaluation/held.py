"""What the memory still held when a question was asked: kept tokens over the stream, and those of the true moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.stream.observations import SECOND_NS

BINS = 80


@dataclass(frozen=True)
class HeldTokens:
    """Kept tokens of the view that a question read.

    Attributes:
        start_ns, end_ns: the stretch that the bins cover: from the stream's first observation to the asking.
        visual, audio: kept tokens by bin, of equal length in time.
        of_evidence: kept tokens of each expected piece of evidence, of the piece's own modality.
        nearest_s: seconds from each expected piece to the nearest kept token of its modality; None without any token.
    """

    start_ns: int
    end_ns: int
    visual: tuple[int, ...]
    audio: tuple[int, ...]
    of_evidence: tuple[int, ...]
    nearest_s: tuple[float | None, ...]

    def kept(self, record: QuestionRecord) -> bool | None:
        """Whether the memory held enough of the evidence: a piece, or all if all are needed. None if there is none."""
        if not self.of_evidence:
            return None
        held = [count > 0 for count in self.of_evidence]
        return all(held) if record.needs_all else any(held)


def held_tokens(view: Any, record: QuestionRecord, start_ns: int) -> HeldTokens:
    """Count the kept tokens of a view (`memory.memory_view.MemoryView`), for one question.

    Args:
        view: what the question reads.
        record: the question with its expected evidence.
        start_ns: stamp of the stream's first observation.
    """
    end_ns = max(record.ask_ns, start_ns + 1)
    spans = {"vision": _spans(view.visual), "audio": _spans(view.audio)}
    counts, nearest = [], []
    for piece in record.evidence:
        first, last = spans[piece.modality]
        counts.append(int(((last >= piece.start_ns) & (first <= piece.end_ns)).sum()))
        away = np.maximum(np.maximum(piece.start_ns - last, first - piece.end_ns), 0)
        nearest.append(float(away.min()) / SECOND_NS if len(away) else None)
    bins = {name: _binned(first, start_ns, end_ns) for name, (first, _) in spans.items()}
    return HeldTokens(start_ns, end_ns, bins["vision"], bins["audio"], tuple(counts), tuple(nearest))


def _spans(batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """First and last stamp (ns) of what each token represents."""
    if batch is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return batch.stamp_ns.numpy(), batch.last_ns.numpy()


def _binned(stamps: np.ndarray, start_ns: int, end_ns: int) -> tuple[int, ...]:
    places = ((stamps - start_ns) / (end_ns - start_ns) * BINS).astype(np.int64)
    return tuple(int(n) for n in np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS))
