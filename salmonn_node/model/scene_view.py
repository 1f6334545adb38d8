"""What a question sees: the memory at one instant with its provisional tail, and its place in the prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from salmonn_node.memory.memory_view import MemoryView
from salmonn_node.model.timeline import Block

if TYPE_CHECKING:
    from salmonn_node.model.cached_prefill import PrefillCache


@dataclass(frozen=True, eq=False)
class SceneView(MemoryView):
    """A `MemoryView` with the blocks of the unsliced prompt.

    Token number i is visual token i for i < V, and audio token i - V after that.

    Attributes:
        blocks: remembered and provisional blocks in order of time, with positions.
        next_position: position after the last block.
        prefill: keys and values of the kept tokens, with `prefill: cached`.
    """

    blocks: tuple[Block, ...] = field(default=())
    next_position: int = 0
    prefill: PrefillCache | None = None
