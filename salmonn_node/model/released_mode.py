"""Released mode: compute memories and prompts as the public release does for a whole recording.

The node never runs in this mode. The golden checks do; they show that the streaming code computes the same. It differs
from streaming in three ways: all tokens of a window are kept, sound is assigned to patches when the recording ends, and
a view finishes a copy of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.model.blocks import AudioRun
from salmonn_node.model.memory_writer import MemoryWriter
from salmonn_node.model.pending_input import WaitingSound
from salmonn_node.model.released_prompt import released_layout
from salmonn_node.model.scene_builder import SceneBuilder
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.timeline import Timeline


class ReleasedMemoryWriter(MemoryWriter):
    """Commit whole windows, including padding, and leave their place in the prompt open."""

    def kept_tokens(self, sound: WaitingSound) -> int | None:
        """Keep all tokens of a window."""
        return None

    def place_sound(self, timeline: Timeline, run: AudioRun) -> None:
        """Do nothing. `released_layout` assigns the sound to the patches."""


class ReleasedSceneBuilder(SceneBuilder):
    """Build views as of the end of the recording: odd frame repeated, last window padded, last slice processed."""

    def view(
        self, memory: StreamMemory, after_ns: int = 0, before_ns: int = 0, sources: Sequence[str] = ()
    ) -> SceneView:
        """Return what the release would compute if the recording ended here. The memory does not change."""
        writer = self.writer
        with writer.pending(memory).lock:
            copy = StreamMemory.from_tensors(*memory.to_tensors(), self.ttt, memory.events)
        pending = writer.pending(copy)
        for name, frame in list(pending.frames.items()):
            writer.commit_frames(copy, name, frame, None)
        for name, sound in list(pending.sounds.items()):
            writer.commit_sound(copy, name, sound)
        copy.finish()
        blocks = [*pending.timeline.closed, *pending.timeline.open]
        laid, after = released_layout(blocks, copy.next_audio[0], writer.config.patch_period_s)
        return SceneView.of(copy.view(after_ns, before_ns, sources), laid, after)
