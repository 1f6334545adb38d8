"""Scene builder: make the view that a question sees, with a provisional tail of input that waits to be committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from salmonn_node.memory.stream_memory import StreamMemory
from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.model.blocks import AudioRun
from salmonn_node.model.memory_writer import MemoryWriter
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.stream_encoder import TOKEN_NS, audio_batch, sound_tokens
from salmonn_node.ttt.layer import TTTLayer
from salmonn_node.ttt.state import TTTState


class SceneBuilder:
    """Build the views of memories.

    Args:
        writer: writer of these memories. It holds the waiting input, and its encoder makes the tokens of the tail.
        ttt: the TTT layer that the tail goes through. None without fast weights.
    """

    def __init__(self, writer: MemoryWriter, ttt: TTTLayer | None) -> None:
        self.writer, self.ttt = writer, ttt

    def view(
        self, memory: StreamMemory, after_ns: int = 0, before_ns: int = 0, sources: Sequence[str] = ()
    ) -> SceneView:
        """Return the memory at this instant, with unpaired frames and partial windows as its tail.

        Nothing is committed. In released mode, this is what the release would compute if the recording ended here.

        Args:
            memory: of this network.
            after_ns: drop tokens that ended before this stamp. 0 means no bound.
            before_ns: drop tokens that began after this stamp. 0 means no bound.
            sources: names of the sources to keep. Empty means all.
        """
        writer, encoder = self.writer, self.writer.encoder
        pending = writer.pending(memory)
        with pending.lock:
            base = memory.view(after_ns, before_ns, sources)
            timeline = pending.timeline.copy()
            frames = sorted(pending.frames.items(), key=lambda item: item[1].stamp_ns)
            sounds = sorted(pending.sounds.items(), key=lambda item: item[1].start_ns)
            cameras = list(pending.cameras)
            prefill = writer.prefill.of(memory).snapshot() if writer.prefill is not None else None
            if after_ns or sources or (before_ns and before_ns < base.newest_ns):
                prefill = None  # its rows have attended to tokens that this question must not see
            (index, patch), (heard, window) = memory.next_visual, memory.next_audio
        visual, blocks = [], []
        for name, frame in frames:
            pixels, grid = encoder.patches(frame, None)
            tokens, deepstack = encoder.encode_patch(pixels, grid)
            merged, number = encoder.merged(grid), memory.source_id(name)
            mark = name if len({*cameras, name}) > 1 else ""
            blocks.append(timeline.block(patch, number, (frame.stamp_ns,), merged, mark))
            visual.append(
                TokenBatch.of_patch(
                    tokens,
                    deepstack,
                    grid=merged,
                    first_index=index,
                    stamp_ns=frame.stamp_ns,
                    patch=patch,
                    source=number,
                    pose_id=frame.pose_id,
                )
            )
            index, patch = index + len(tokens), patch + 1
        audio: list[TokenBatch] = []
        runs: list[AudioRun] = []
        for name, sound in sounds:
            count = sound_tokens(sound)
            if count and encoder.mel is not None:
                following = (heard, window + (1 if audio else 0))
                tokens = encoder.encode_sound(sound, count)
                audio.append(audio_batch(following, tokens, sound.start_ns, memory.source_id(name)))
                runs.append(AudioRun(heard, sound.start_ns, count, TOKEN_NS))
                heard += count
        # Most questions that the network answers do not read events, so the tail is told only to those that do.
        untold = tuple([*(("visual", batch) for batch in visual), *(("audio", batch) for batch in audio)])
        laid, after = timeline.layout(blocks, runs)
        wanted = [memory.source_id(name) for name in sources if name in memory.sources]
        tail = _within(visual, after_ns, before_ns, sources, wanted)
        if tail is not None and self.ttt is not None and base.fast_weights is not None:
            tail = replace(tail, z=_through_fast_weights(tail, self.ttt, base.fast_weights))
        base = replace(base, untold=untold).extended(tail, _within(audio, after_ns, before_ns, sources, wanted))
        return SceneView.of(base, laid, after, prefill)


@torch.no_grad()
def _through_fast_weights(batch: TokenBatch, ttt: TTTLayer, state: TTTState) -> Tensor:
    """(L, D): run the tail's tokens through the current weights, like the rows that wait for a mini-batch."""
    assert batch.grid is not None
    place, width = batch.place.long(), batch.grid[:, 1].long()
    positions = torch.stack([batch.patch, place // width, place % width], dim=1).to(batch.z.device)
    return ttt.pending(replace(state, chunks=[(batch.z[None], positions[None])])).to(batch.z.dtype)


def _within(
    batches: Sequence[TokenBatch], after_ns: int, before_ns: int, names: Sequence[str], wanted: list[int]
) -> TokenBatch | None:
    """Keep the tail's tokens in [after_ns, before_ns] from the sources `wanted`. None if no token is left."""
    if not batches or (names and not wanted):
        return None
    batch = TokenBatch.concat(list(batches))
    if after_ns or before_ns or wanted:
        batch = batch.select(batch.within(after_ns, before_ns, wanted))
    return batch if len(batch) else None
