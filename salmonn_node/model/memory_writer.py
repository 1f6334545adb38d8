"""Memory writer: pair frames into temporal patches, fill audio windows, encode both and commit them to the memory."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from salmonn_node.memory.stream_memory import StoredPart, StreamMemory
from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.model.blocks import AudioRun
from salmonn_node.model.cached_prefill import CachedPrefill
from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.frames import normalise
from salmonn_node.model.pending_input import PART, PendingInput, WaitingFrame, WaitingSound
from salmonn_node.model.stream_encoder import TOKEN_NS, StreamEncoder, audio_batch, sound_tokens
from salmonn_node.model.timeline import Timeline
from salmonn_node.model.tokenizer import TextTokenizer
from salmonn_node.stream.moment import Moment
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame, Interval

# Two frames of a camera that are further apart than this do not share a temporal patch.
PAIR_GAP_NS = 5 * SECOND_NS
# Sound that begins within this time after a microphone's last sample continues that sample's window.
JOIN_NS = SECOND_NS // 25
# Prune blocks without a kept token each time this many blocks have closed.
PRUNE_EVERY = 32
# Audio tokens per moment of evidence.
MOMENT_TOKENS = 4


class MemoryWriter:
    """Write frames and sound into memories.

    Args:
        config: configuration of the network.
        encoder: encodes patches and windows into tokens.
        tokenizer: counts the tokens of time marks.
        prefill: with `prefill: cached`, the prefill cache that follows the memory. Otherwise None.
    """

    def __init__(
        self, config: SalmonnConfig, encoder: StreamEncoder, tokenizer: TextTokenizer, prefill: CachedPrefill | None
    ) -> None:
        self.config, self.encoder, self.tokenizer, self.prefill = config, encoder, tokenizer, prefill

    def pending(self, memory: StreamMemory) -> PendingInput:
        """Return the input that waits to be encoded. At first use, create it or read it from the stored state."""
        part = memory.parts.get(PART)
        if isinstance(part, PendingInput):
            return part
        pending = PendingInput(Timeline(self._mark_tokens, self.config.all_marks, self.config.max_position))
        if isinstance(part, StoredPart):
            pending.restore(part.tensors, part.meta)
        memory.parts[PART] = pending
        return pending

    def _mark_tokens(self, mark: str) -> int:
        return len(self.tokenizer.encode(mark))

    # -- frames -----------------------------------------------------------------------------------------------------

    def observe_frame(self, memory: StreamMemory, frame: Frame, pose_id: int = -1) -> list[Moment]:
        """Observe a camera frame. The second frame of a pair completes a temporal patch, which is then committed.

        A frame begins a new patch if it comes more than 5 s after the previous one or has another size. The previous
        frame is then paired with itself.

        Returns:
            A moment for each committed patch.

        Raises:
            ValueError: the image is not (H, W, 3) uint8, or the stamp is not after the camera's last. Nothing changes.
        """
        pending = self.pending(memory)
        pixels = normalise(frame.image, self.encoder.frame_size(frame.image))
        waiting = pending.frames.get(frame.source)
        if waiting is not None and frame.stamp_ns <= waiting.stamp_ns:
            raise ValueError(f"stamp_ns: {frame.stamp_ns} is not after the camera's last, {waiting.stamp_ns}")
        arrived = WaitingFrame(frame.stamp_ns, pixels, pose_id, frame.frame_id)
        moments = []
        if waiting is not None:
            partners = waiting.pixels.shape == pixels.shape and frame.stamp_ns - waiting.stamp_ns <= PAIR_GAP_NS
            moments = [self.commit_frames(memory, frame.source, waiting, arrived if partners else None)]
            if partners:
                return moments
        with pending.lock:
            pending.timeline.begin(frame.stamp_ns)
            memory.source_id(frame.source)
            pending.frames[frame.source] = arrived
        return moments

    def commit_frames(
        self, memory: StreamMemory, source: str, first: WaitingFrame, second: WaitingFrame | None
    ) -> Moment:
        """Commit a temporal patch of two frames, or of one frame repeated. The first frame no longer waits."""
        pixels, grid = self.encoder.patches(first, second)
        stamps = (first.stamp_ns, (second or first).stamp_ns)
        moment = self.observe_patch(memory, pixels, grid, stamps, source, first.pose_id, first.frame_id)
        pending = self.pending(memory)
        with pending.lock:
            pending.frames.pop(source, None)
        return moment

    def observe_patch(
        self,
        memory: StreamMemory,
        pixels: Tensor,
        grid: tuple[int, int],
        stamps_ns: tuple[int, int],
        source: str = "camera",
        pose_id: int = -1,
        frame_id: str = "",
    ) -> Moment:
        """Encode and commit one temporal patch.

        Args:
            memory: that takes it in.
            pixels: (h * w, C) rows of `frames.patchify`.
            grid: (h, w), before merging.
            stamps_ns: stamps of the two frames, nanoseconds.
            source: name of the camera.
            pose_id: pose of the robot at the first frame, -1 if unknown.
            frame_id: frame of the camera.
        """
        tokens, deepstack = self.encoder.encode_patch(pixels, grid)
        pending = self.pending(memory)
        with pending.lock:
            pending.timeline.begin(stamps_ns[0])
            if source not in pending.cameras:
                pending.cameras.append(source)
            name = source if len(pending.cameras) > 1 else ""
            index, patch = memory.next_visual
            number, merged = memory.source_id(source), self.encoder.merged(grid)
            batch = TokenBatch.of_patch(
                tokens,
                deepstack,
                grid=merged,
                first_index=index,
                stamp_ns=stamps_ns[0],
                last_ns=stamps_ns[1],
                patch=patch,
                source=number,
                pose_id=pose_id,
            )
            memory.observe_visual(batch, merged)
            pending.timeline.add_patch(pending.timeline.block(patch, number, stamps_ns, merged, name))
            self._settle(memory, pending)
        interval = Interval(stamps_ns[0], stamps_ns[1])
        return Moment("vision", index, index + len(batch), interval, source, frame_id, pose_id)

    # -- sound ------------------------------------------------------------------------------------------------------

    def observe_audio(self, memory: StreamMemory, span: AudioSpan) -> list[Moment]:
        """Observe sound. Complete windows are committed; the rest waits. A gap ends a window early.

        Returns:
            Moments of about two seconds for the committed windows. None without an audio tower.

        Raises:
            ValueError: the samples are not finite or not (n,), or the span begins before the last one ended.
        """
        if self.encoder.mel is None:
            return []
        samples = np.asarray(span.samples, dtype=np.float32)
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise ValueError("samples: expected (n,) finite values")
        pending = self.pending(memory)
        waiting = pending.sounds.get(span.source)
        if waiting is not None and span.start_ns < waiting.end_ns - JOIN_NS:
            raise ValueError(f"start_ns: {span.start_ns} is before the end of the last span, {waiting.end_ns}")
        moments: list[Moment] = []
        if waiting is not None and span.start_ns > waiting.end_ns + JOIN_NS:
            moments += self.commit_sound(memory, span.source, waiting)
            waiting = None
        if waiting is None:
            waiting = WaitingSound(span.start_ns, samples.copy(), span.frame_id)
        else:
            joined = np.concatenate([waiting.samples, samples])
            waiting = WaitingSound(waiting.start_ns, joined, waiting.frame_id)
        with pending.lock:
            pending.timeline.begin(span.start_ns)
            memory.source_id(span.source)
            pending.sounds[span.source] = waiting
        size = self.encoder.mel.config.window_samples
        while len(waiting.samples) >= size:
            window = WaitingSound(waiting.start_ns, waiting.samples[:size], waiting.frame_id)
            rest = WaitingSound(window.end_ns, waiting.samples[size:].copy(), waiting.frame_id)
            moments += self.commit_sound(memory, span.source, window)
            with pending.lock:
                pending.sounds[span.source] = waiting = rest
        return moments

    def commit_sound(self, memory: StreamMemory, source: str, sound: WaitingSound) -> list[Moment]:
        """Commit a window that is complete or was ended by a gap. It no longer waits."""
        assert self.encoder.mel is not None
        moments: list[Moment] = []
        if len(sound.samples):
            mel, tokens = self.encoder.mel(sound.samples), self.kept_tokens(sound)
            moments = self.observe_window(memory, mel, sound.start_ns, source, tokens, sound.frame_id)
        pending = self.pending(memory)
        with pending.lock:
            pending.sounds.pop(source, None)
        return moments

    def observe_window(
        self,
        memory: StreamMemory,
        mel: Tensor,
        start_ns: int,
        source: str = "microphone",
        tokens: int | None = None,
        frame_id: str = "",
    ) -> list[Moment]:
        """Encode and commit one audio window.

        Args:
            memory: that takes it in.
            mel: (mel_bins, frames) log-mel.
            start_ns: stamp of its first sample, nanoseconds.
            source: name of the microphone.
            tokens: how many tokens of the window to keep. None keeps all.
            frame_id: frame of the microphone.
        """
        encoded = self.encoder.encode_window(mel, tokens)
        pending = self.pending(memory)
        with pending.lock:
            pending.timeline.begin(start_ns)
            batch = audio_batch(memory.next_audio, encoded, start_ns, memory.source_id(source))
            memory.observe_audio(batch)
            first = int(batch.index[0])
            self.place_sound(pending.timeline, AudioRun(first, start_ns, len(batch), TOKEN_NS))
            self._settle(memory, pending)
        moments = []
        for low in range(0, len(batch), MOMENT_TOKENS):
            high = min(low + MOMENT_TOKENS, len(batch))
            interval = Interval(start_ns + low * TOKEN_NS, start_ns + high * TOKEN_NS)
            moments.append(Moment("audio", first + low, first + high, interval, source, frame_id))
        return moments

    def kept_tokens(self, sound: WaitingSound) -> int | None:
        """How many tokens of a window to keep. None keeps all."""
        return sound_tokens(sound)

    def place_sound(self, timeline: Timeline, run: AudioRun) -> None:
        """Place committed sound in the prompt."""
        timeline.add_sound(run)

    # -- both -------------------------------------------------------------------------------------------------------

    def _settle(self, memory: StreamMemory, pending: PendingInput) -> None:
        """Fix the positions that have become final, and forget blocks without a kept token."""
        timeline = pending.timeline
        window_s = self.config.audio.window_s if self.config.audio else 0
        timeline.close(2 * window_s * SECOND_NS)
        if len(timeline.closed) >= timeline.prune_at:
            patches = memory.kept("visual")[1].unique().tolist()
            timeline.prune(patches, memory.kept("audio")[0].tolist())
            timeline.prune_at = len(timeline.closed) + PRUNE_EVERY
        if self.prefill is not None:
            self.prefill.follow(memory, timeline)
