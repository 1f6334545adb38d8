"""What a question sees of the memory: tokens of both modalities at one instant, the uncommitted ones flagged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from salmonn_node.memory.token_batch import TokenBatch

if TYPE_CHECKING:
    from salmonn_node.stream.moment import Moment
    from salmonn_node.stream.observations import Pose
    from salmonn_node.ttt.state import TTTState


@dataclass(frozen=True, eq=False)
class MemoryView:
    """A consistent snapshot that later observations do not change.

    Attributes:
        visual: tokens of all cameras in order of the stream, or None when there are none.
        visual_committed: (V,) bool, False for the provisional tail (seen, but not yet through an update).
        audio: tokens of all microphones, or None.
        audio_committed: (A,) bool.
        sources: names of the sources; a token's `source` is a position in it.
        fast_weights: TTT state for read-outs (weights only, its waiting rows and lag rows left out), None without TTT.
        version: grows with each change of the memory; equal versions of one memory are equal views.
        newest_ns: stamp of the newest token in the whole memory, -1 before the first.
        session: what the owner of the memory wrote about the session.
        counters: of the memory at that instant, see `StreamMemory.counters`.
        unindexed: (modality, source, stamp) -> moment and pose of what was not in the evidence index at that instant.
    """

    visual: TokenBatch | None
    visual_committed: Tensor
    audio: TokenBatch | None
    audio_committed: Tensor
    sources: tuple[str, ...]
    fast_weights: TTTState | None = None
    version: int = 0
    newest_ns: int = -1
    session: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    unindexed: dict[tuple[str, str, int], tuple[Moment, Pose | None]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(0 if batch is None else len(batch) for batch in (self.visual, self.audio))

    def extended(self, visual: TokenBatch | None = None, audio: TokenBatch | None = None) -> MemoryView:
        """This view with more provisional tokens at its end (an unpaired frame, a window that is not yet full)."""
        seen, seen_committed = _joined(self.visual, self.visual_committed, visual)
        heard, heard_committed = _joined(self.audio, self.audio_committed, audio)
        newest = max([self.newest_ns, *(int(b.stamp_ns.max()) for b in (visual, audio) if b is not None and len(b))])
        return replace(
            self,
            visual=seen,
            visual_committed=seen_committed,
            audio=heard,
            audio_committed=heard_committed,
            newest_ns=newest,
        )

    def within(self, after_ns: int = 0, before_ns: int = 0, sources: Sequence[str] = ()) -> MemoryView:
        """This view without the tokens outside a window or of other sources.

        Args:
            after_ns: leave out tokens that ended before this stamp; 0 is no bound.
            before_ns: leave out tokens that began after this stamp; 0 is no bound.
            sources: names of the sources wanted; empty means all, and unknown names match nothing.
        """
        if not (after_ns or before_ns or sources):
            return self
        wanted = [self.sources.index(name) for name in sources if name in self.sources]

        def rows(batch: TokenBatch | None, committed: Tensor) -> tuple[TokenBatch | None, Tensor]:
            if batch is None:
                return None, committed
            mask = batch.within(after_ns, before_ns, wanted)
            if sources and not wanted:
                mask[:] = False
            return (batch.select(mask) if bool(mask.any()) else None), committed[mask]

        seen, seen_committed = rows(self.visual, self.visual_committed)
        heard, heard_committed = rows(self.audio, self.audio_committed)
        return replace(self, visual=seen, visual_committed=seen_committed, audio=heard, audio_committed=heard_committed)


def _joined(batch: TokenBatch | None, committed: Tensor, tail: TokenBatch | None) -> tuple[TokenBatch | None, Tensor]:
    if tail is None or not len(tail):
        return batch, committed
    flags = torch.cat([committed, torch.zeros(len(tail), dtype=torch.bool)])
    return (tail if batch is None else TokenBatch.concat([batch, tail])), flags
