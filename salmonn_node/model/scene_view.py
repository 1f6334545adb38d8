"""What a question sees: the memory at one instant with its provisional tail, and its place in the prompt."""

from __future__ import annotations

from dataclasses import dataclass, field

from salmonn_node.memory.memory_view import MemoryView
from salmonn_node.model.timeline import Block


@dataclass(frozen=True, eq=False)
class SceneView(MemoryView):
    """A `MemoryView` with the blocks of the unsliced prompt.

    Token number i is visual token i for i < V, and audio token i - V after that.

    Attributes:
        blocks: remembered and provisional blocks in order of time, with positions.
        next_position: position after the last block.
    """

    blocks: tuple[Block, ...] = field(default=())
    next_position: int = 0
