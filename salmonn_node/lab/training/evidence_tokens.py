"""Evidence tokens: which tokens of a view contain the evidence of a question. These are the pointer's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.lab.training.sizes import GRID
from salmonn_node.lab.training.vision import COVERED
from salmonn_node.lab.world.objects import COLOURS, SHAPES
from salmonn_node.lab.world.truth import START_NS, WorldMoment
from salmonn_node.model.scene_view import SceneView
from salmonn_node.stream.observations import SECOND_NS

TOKEN_NS = SECOND_NS // 2
PATCH_TOKENS = GRID[0] * GRID[1]
# A word or a bell is still audible in a few seconds of merged sound, but not in minutes.
MERGED_NS = 4 * SECOND_NS


@dataclass(frozen=True)
class Stamps:
    """Start, end and place in the picture of each token of a view. Visual tokens come first.

    Attributes:
        start_ns, end_ns: (T,) int64.
        place: (T,) int64, -1 for sound.
    """

    start_ns: npt.NDArray[np.int64]
    end_ns: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]

    def tell(self, start_ns: int, end_ns: int) -> npt.NDArray[np.bool_]:
        """(T,) bool: which tokens cover that time, except sound tokens that merge too much other sound."""
        overlap = np.minimum(self.end_ns, end_ns) - np.maximum(self.start_ns, start_ns)
        spans = self.end_ns - self.start_ns
        met = (self.start_ns <= end_ns) & (self.end_ns > start_ns)
        return met & ((self.place >= 0) | (spans <= MERGED_NS) | (4 * overlap >= spans))


def stamps_of(view: SceneView) -> Stamps:
    """Return the stamps of the tokens of a view."""
    starts, ends, places = [], [], []
    for batch, sound in ((view.visual, False), (view.audio, True)):
        if batch is not None:
            assert batch.last_ns is not None
            starts.append(batch.stamp_ns.numpy())
            ends.append(batch.last_ns.numpy() + (TOKEN_NS if sound else 0))
            places.append(np.full(len(batch), -1) if sound else batch.place.numpy().astype(np.int64))
    return Stamps(np.concatenate(starts), np.concatenate(ends), np.concatenate(places))


def whole_stamps(seconds: int) -> Stamps:
    """Return the stamps for a stream without discarded tokens."""
    number, heard = np.arange(seconds // 2 * PATCH_TOKENS), np.arange(2 * seconds)
    start = np.concatenate([number // PATCH_TOKENS * 2 * SECOND_NS, heard * TOKEN_NS]) + START_NS
    last = np.concatenate([np.full(len(number), SECOND_NS), np.full(len(heard), TOKEN_NS)])
    return Stamps(start, start + last, np.concatenate([number % PATCH_TOKENS, np.full(len(heard), -1)]))


def evidence_rows(record: QuestionRecord, stamps: Stamps, moments: Sequence[WorldMoment]) -> list[int]:
    """Rows of the tokens that contain the evidence of a question. For named things, only the tokens that show them.

    A token shows what its first patch showed, however long its place has looked alike since. In sound merged over more
    than MERGED_NS, anything shorter than a quarter of it is no longer audible. If the evidence must be both seen and
    heard, and one of the two is gone, there are no rows.
    """
    names = _names(record)
    found: dict[str, list[int]] = {}
    for modality in {interval.modality for interval in record.evidence}:
        mask = np.zeros(len(stamps.place), bool)
        for interval in record.evidence:
            if interval.modality == modality:
                mask |= stamps.tell(interval.start_ns, interval.end_ns)
        rows = (mask & ((stamps.place >= 0) == (modality == "vision"))).nonzero()[0].tolist()
        if modality == "vision" and names:
            shows = [
                r for r in rows
                if _shows(names, int(stamps.start_ns[r]), int(stamps.end_ns[r]), int(stamps.place[r]), moments)
            ]  # fmt: skip
            rows = shows if shows or _could_show(names, record, moments) else rows
        found[modality] = rows
    if len(found) == 2 and not all(found.values()):
        return []
    return [row for modality in ("vision", "audio") for row in found.get(modality, [])]


def _names(record: QuestionRecord) -> set[str]:
    """Names of the things that a token must show to be evidence. Empty if any token of that time is evidence."""
    about = record.about
    if record.kind == "colour":
        return {f"{record.expected.text} {about['shape']}"}
    if record.kind in ("change", "seen_when_heard"):
        return {record.expected.text}
    if about["template"] == "count_things":
        shape = next(s for s in SHAPES if about["shapes"].startswith(s))
        return {f"{colour} {shape}" for colour in COLOURS}
    if about["template"] == "order_things":
        return {about["a"], about["b"]}
    return {about["thing"]} if "thing" in about else set()


def _could_show(names: set[str], record: QuestionRecord, moments: Sequence[WorldMoment]) -> bool:
    """Whether some token of the whole stream shows a thing. If none does, any token that it touches is evidence."""
    for interval in record.evidence:
        if interval.modality == "vision":
            first = (interval.start_ns - START_NS) // SECOND_NS // 2
            last = (interval.end_ns - START_NS) // SECOND_NS // 2
            for patch in range(first, last + 1):
                start = START_NS + 2 * patch * SECOND_NS
                if any(_shows(names, start, start + 2 * SECOND_NS, q, moments) for q in range(PATCH_TOKENS)):
                    return True
    return False


def _shows(names: set[str], start_ns: int, end_ns: int, place: int, moments: Sequence[WorldMoment]) -> bool:
    """Whether a token's cell shows one of the things in a frame of its patch."""
    low, wide = divmod(place, GRID[1])
    first = (start_ns - START_NS) // SECOND_NS
    for second in {first, min(first + 1, (end_ns - START_NS) // SECOND_NS)}:
        for seen in moments[second].seen if second < len(moments) else ():
            if seen.thing.name not in names:
                continue
            x0, y0, x1, y1 = seen.box
            x = min(x1, (wide + 1) / GRID[1]) - max(x0, wide / GRID[1])
            y = min(y1, (low + 1) / GRID[0]) - max(y0, low / GRID[0])
            if x > 0 and y > 0 and (x * y * PATCH_TOKENS >= COVERED or x * y >= 0.5 * (x1 - x0) * (y1 - y0)):
                return True
    return False
