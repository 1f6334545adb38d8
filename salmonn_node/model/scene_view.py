"""Scene view: a memory view with its provisional tail and the layout of its blocks in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from salmonn_node.memory.memory_view import MemoryView
from salmonn_node.model.blocks import Block
from salmonn_node.model.prefill_cache import PrefillCache


@dataclass(frozen=True, eq=False)
class SceneView(MemoryView):
    """A `MemoryView` with the blocks of the unsliced prompt.

    Token number i is visual token i for i < V, and audio token i - V otherwise.

    Attributes:
        blocks: remembered and provisional blocks in time order, with positions.
        next_position: position after the last block.
        prefill: with `prefill: cached`, keys and values of kept tokens. None if the question reads the whole prompt.
    """

    blocks: tuple[Block, ...] = ()
    next_position: int = 0
    prefill: PrefillCache | None = None

    @classmethod
    def of(
        cls, view: MemoryView, blocks: Sequence[Block], after: int, prefill: PrefillCache | None = None
    ) -> SceneView:
        """Make a scene view from a memory view, its blocks and the position `after` them."""
        values = {item.name: getattr(view, item.name) for item in fields(view)}
        return cls(**values, blocks=tuple(blocks), next_position=after, prefill=prefill)
