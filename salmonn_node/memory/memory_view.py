"""Memory view: a snapshot of the tokens that a question sees, with uncommitted tokens flagged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from salmonn_node.memory.token_batch import TokenBatch

if TYPE_CHECKING:
    from salmonn_node.memory.event_memory import EventMemory
    from salmonn_node.stream.moment import Moment
    from salmonn_node.stream.observations import Pose
    from salmonn_node.ttt.state import TTTState


@dataclass(frozen=True, eq=False)
class MemoryView:
    """A consistent snapshot of the memory. Later observations do not change it.

    Attributes:
        visual: tokens of all cameras in stream order, or None if there are none.
        visual_committed: (V,) bool, False for provisional tokens: seen, but not yet through an update.
        audio: tokens of all microphones, or None.
        audio_committed: (A,) bool.
        sources: names of the sources. A token's `source` is an index into it.
        fast_weights: TTT state for read-outs, without its waiting rows and lag rows. None without a TTT layer.
        version: grows with each change of the memory. Views of one memory with equal versions are equal.
        newest_ns: stamp of the newest token in the whole memory, -1 before the first.
        session: what the owner of the memory stored about the session.
        counters: counters of the memory at this instant, see `StreamMemory.counters`.
        unindexed: (modality, source, stamp) -> moment and pose that the evidence index did not hold at this instant.
        events: the event memory at this instant, a copy of the view's own; None without one. No window restricts it.
        untold: (modality, tokens) that are part of the view, but not yet of its events; see `told`.
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
    events: EventMemory | None = None
    untold: tuple[tuple[str, TokenBatch], ...] = ()

    def told(self) -> EventMemory | None:
        """A copy of `events` that has also seen and heard what is untold, as if the stream ended here."""
        if self.events is None:
            return None
        events = self.events.snapshot()
        for modality, batch in self.untold:
            events.observe(modality, batch)
        events.finish()
        return events

    def __len__(self) -> int:
        return sum(0 if batch is None else len(batch) for batch in (self.visual, self.audio))

    def extended(self, visual: TokenBatch | None = None, audio: TokenBatch | None = None) -> MemoryView:
        """Return this view with provisional tokens appended, of an unpaired frame or a partial audio window."""
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
        """Return this view, restricted to a time window and to some sources.

        Args:
            after_ns: drop tokens that ended before this stamp. 0 means no bound.
            before_ns: drop tokens that began after this stamp. 0 means no bound.
            sources: names of the sources to keep. Empty means all; unknown names match nothing.
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
