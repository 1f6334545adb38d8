"""video-SALMONN S as a true stream: observations become memory as they come; a question runs the language model."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from salmonn_node.memory.evidence_index import Moment
from salmonn_node.memory.stream_memory import StoredPart, StreamMemory
from salmonn_node.memory.token_batch import TokenBatch
from salmonn_node.memory.token_memory import TokenMemoryConfig
from salmonn_node.model.assembly import Prompt, embed_prompt, prompt_of
from salmonn_node.model.cached_prefill import PrefillCache, settled_rows, usable
from salmonn_node.model.config import SalmonnConfig
from salmonn_node.model.frames import fitted, normalise, patchify, resized
from salmonn_node.model.generation import Answering, Generation, Grammar
from salmonn_node.model.int8_linear import quantise
from salmonn_node.model.network import Network
from salmonn_node.model.pending_input import Ingest, WaitingFrame, WaitingSound
from salmonn_node.model.reading import read
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.sound import MelFrontEnd
from salmonn_node.model.timeline import AudioRun, Block, Timeline, released_layout
from salmonn_node.model.tokenizer import TextTokenizer
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame, Interval

TOKEN_NS = SECOND_NS // 2
TOKEN_SAMPLES = 8_000
# Frames of a camera further apart than this make no temporal patch together.
PAIR_GAP_NS = 5 * SECOND_NS
# Sound of a microphone that begins within this of the last sample continues it.
JOIN_NS = SECOND_NS // 25
# How often blocks without a kept token are looked for.
PRUNE_EVERY = 32
# Audio tokens of one moment of evidence.
MOMENT_TOKENS = 4

PART = "ingest"
PREFILL_PART = "prefill"


@dataclass(frozen=True)
class CheckpointInfo:
    """Which weights these are.

    Attributes:
        id: digest that names the weights.
        name: for people.
        trained: False for random weights; whoever shows an answer says so.
        card: path of the model card, None when there is none.
        missing: what this checkpoint cannot do, in words.
        calibration: path of the calibration file, None when there is none.
    """

    id: str
    name: str
    trained: bool
    card: Path | None = None
    missing: tuple[str, ...] = ()
    calibration: Path | None = None


class VideoSalmonnS:
    """The network and its tokenizer: the way in (`observe_*`), what a question sees (`view`), the way out (`answer`).

    One thread observes; any thread may ask, one at a time. The encoders can be replaced by compiled ones with the
    same signatures: `vision_encoder(pixels, grid)` and `audio_encoder(mel)`.
    """

    def __init__(
        self, config: SalmonnConfig, network: Network, tokenizer: TextTokenizer, checkpoint: CheckpointInfo
    ) -> None:
        self.config, self.network, self.tokenizer, self.checkpoint = config, network.eval(), tokenizer, checkpoint
        self.vision_encoder: Callable[[Tensor, tuple[int, int]], tuple[Tensor, Tensor]] = network.vision
        self.audio_encoder: Callable[[Tensor], Tensor] | None = network.audio
        self._mel = MelFrontEnd(config.audio) if config.audio else None
        self._answering = threading.Lock()

    @classmethod
    def untrained(cls, config: SalmonnConfig, tokenizer: TextTokenizer, seed: int = 0) -> VideoSalmonnS:
        """A network with random weights, the same for the same seed; it says that it is untrained."""
        network = Network(config).cast(getattr(torch, config.dtype))
        network.initialise(seed)
        suffix = ""
        if config.weights == "int8":
            quantise(network)
            suffix = "-int8"
        info = CheckpointInfo(f"untrained-{config.name}-{seed}{suffix}", f"{config.name} (untrained)", trained=False)
        return cls(config, network, tokenizer, info)

    @classmethod
    def tiny(cls, seed: int = 0, **changes: object) -> VideoSalmonnS:
        """The tiny network with random weights; `changes` replaces fields of its configuration."""
        from salmonn_node.model.tiny import tiny_config, tiny_tokenizer

        return cls.untrained(tiny_config(**changes), tiny_tokenizer(), seed)

    @property
    def hears(self) -> bool:
        """Whether there is an audio tower; without one sound is not taken in."""
        return self._mel is not None

    # -- memory -----------------------------------------------------------------------------------------------------

    def new_memory(self) -> StreamMemory:
        """An empty memory with this network's budgets and rules."""
        m = self.config.memory
        return StreamMemory(
            self.network.ttt,
            TokenMemoryConfig(m.visual_tokens, m.visual_step, m.visual_rule),
            TokenMemoryConfig(m.audio_tokens, m.audio_step, m.audio_rule),
            slice_patches=self.config.slice_patches,
        )

    def ingest(self, memory: StreamMemory) -> Ingest:
        """The state of the way in that lives with a memory; made, or read from what was stored, at first use."""
        part = memory.parts.get(PART)
        if isinstance(part, Ingest):
            return part
        keep_all = self.config.time_marks == "all" or self.config.mode == "released"
        ingest = Ingest(Timeline(self._mark_tokens, keep_all, self.config.max_position))
        if isinstance(part, StoredPart):
            ingest.restore(part.tensors, part.meta)
        memory.parts[PART] = ingest
        return ingest

    def prefill_cache(self, memory: StreamMemory) -> PrefillCache:
        """The language model's keys and values of a memory's kept tokens (`prefill: cached`)."""
        part = memory.parts.get(PREFILL_PART)
        if isinstance(part, PrefillCache):
            return part
        cache = PrefillCache(self.network.language.layers)
        if isinstance(part, StoredPart):
            cache = PrefillCache.from_tensors(part.tensors, part.meta)
        memory.parts[PREFILL_PART] = cache
        return cache

    def _advance_prefill(self, memory: StreamMemory, ingest: Ingest) -> None:
        """Compute keys and values of what has become final since the last time, once it fills a chunk."""
        timeline = ingest.timeline
        if timeline.rows - timeline.read_until < self.config.cached_chunk:
            return
        timeline.read_until = timeline.rows
        laid, after = timeline.layout()
        view = _scene(memory.view(), laid, after)
        prompt = self.prompt("", view)
        if len(view) and usable(prompt, self.tokenizer):
            settled = settled_rows(prompt, view, len(timeline.closed))
            cache = self.prefill_cache(memory)
            cache.advance(self.network.language, prompt, view, settled, self.config.cached_chunk)

    def _mark_tokens(self, mark: str) -> int:
        return len(self.tokenizer.encode(mark))

    # -- the way in -------------------------------------------------------------------------------------------------

    def frame_size(self, image: npt.NDArray[np.uint8]) -> tuple[int, int]:
        """Height and width at which the vision tower sees this image; an image that has them stays as it is."""
        high, wide, *_ = (*image.shape, 0, 0)
        vision, budget = self.config.vision, self.config.frames
        factor = vision["patch_size"] * vision["spatial_merge_size"]
        return resized(high, wide, factor, budget.min_pixels, budget.max_pixels)

    def fit(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The image at the resolution of the vision tower: observing it instead changes no bit of the memory."""
        return fitted(image, self.frame_size(image))

    def observe_frame(self, memory: StreamMemory, frame: Frame, pose_id: int = -1) -> list[Moment]:
        """Take a camera frame in; the second of a pair completes a temporal patch, which is encoded and committed.

        A frame that follows its predecessor after more than 5 s, or with another size, begins a new patch; the
        predecessor is then paired with itself.

        Returns:
            A moment for each patch that was committed.

        Raises:
            ValueError: not an (H, W, 3) uint8 image, or a stamp that is not after the camera's last; nothing changes.
        """
        ingest = self.ingest(memory)
        pixels = normalise(frame.image, self.frame_size(frame.image))
        waiting = ingest.frames.get(frame.source)
        if waiting is not None and frame.stamp_ns <= waiting.stamp_ns:
            raise ValueError(f"stamp_ns: {frame.stamp_ns} is not after the camera's last, {waiting.stamp_ns}")
        arrived = WaitingFrame(frame.stamp_ns, pixels, pose_id, frame.frame_id)
        moments = []
        if waiting is not None:
            partners = waiting.pixels.shape == pixels.shape and frame.stamp_ns - waiting.stamp_ns <= PAIR_GAP_NS
            moments = [self._commit_pair(memory, frame.source, waiting, arrived if partners else None)]
            if partners:
                return moments
        with ingest.lock:
            ingest.timeline.begin(frame.stamp_ns)
            memory.source_id(frame.source)
            ingest.frames[frame.source] = arrived
        return moments

    def observe_audio(self, memory: StreamMemory, span: AudioSpan) -> list[Moment]:
        """Take sound in; whole windows are encoded and committed, the rest waits. A gap ends a window early.

        Returns:
            Moments of about two seconds for the windows that were committed; none without an audio tower.

        Raises:
            ValueError: samples that are not finite or not (n,), or a span that begins before the last one ended.
        """
        if self._mel is None:
            return []
        samples = np.asarray(span.samples, dtype=np.float32)
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise ValueError("samples: expected (n,) finite values")
        ingest = self.ingest(memory)
        waiting = ingest.sounds.get(span.source)
        if waiting is not None and span.start_ns < waiting.end_ns - JOIN_NS:
            raise ValueError(f"start_ns: {span.start_ns} is before the end of the last span, {waiting.end_ns}")
        moments: list[Moment] = []
        if waiting is not None and span.start_ns > waiting.end_ns + JOIN_NS:
            moments += self._commit_sound(memory, span.source, waiting)
            waiting = None
        if waiting is None:
            waiting = WaitingSound(span.start_ns, samples.copy(), span.frame_id)
        else:
            joined = np.concatenate([waiting.samples, samples])
            waiting = WaitingSound(waiting.start_ns, joined, waiting.frame_id)
        with ingest.lock:
            ingest.timeline.begin(span.start_ns)
            memory.source_id(span.source)
            ingest.sounds[span.source] = waiting
        size = self._mel.config.window_samples
        while len(waiting.samples) >= size:
            window = WaitingSound(waiting.start_ns, waiting.samples[:size], waiting.frame_id)
            rest = WaitingSound(window.end_ns, waiting.samples[size:].copy(), waiting.frame_id)
            moments += self._commit_sound(memory, span.source, window)
            with ingest.lock:
                ingest.sounds[span.source] = waiting = rest
        return moments

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
        """Encode and commit a temporal patch: (h * w, C) rows of `frames.patchify`, the grid before merging, stamps."""
        tokens, deepstack = self._encode_patch(pixels, grid)
        ingest = self.ingest(memory)
        with ingest.lock:
            ingest.timeline.begin(stamps_ns[0])
            if source not in ingest.cameras:
                ingest.cameras.append(source)
            name = source if len(ingest.cameras) > 1 else ""
            index, patch = memory.next_visual
            number = memory.source_id(source)
            merged = self._merged(grid)
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
            ingest.timeline.add_patch(ingest.timeline.block(patch, number, stamps_ns, merged, name))
            self._advance(memory, ingest)
        interval = Interval(stamps_ns[0], stamps_ns[1])
        return Moment("vision", index, index + len(batch), interval, source, frame_id, pose_id)

    def observe_window(
        self,
        memory: StreamMemory,
        mel: Tensor,
        start_ns: int,
        source: str = "microphone",
        tokens: int | None = None,
        frame_id: str = "",
    ) -> list[Moment]:
        """Encode and commit one audio window: log-mel (mel_bins, frames); `tokens` keeps that many of its tokens."""
        encoded = self._encode_window(mel, tokens)
        ingest = self.ingest(memory)
        with ingest.lock:
            ingest.timeline.begin(start_ns)
            batch = self._audio_batch(memory, encoded, start_ns, memory.source_id(source), 0)
            memory.observe_audio(batch)
            first = int(batch.index[0])
            if self.config.mode == "streaming":
                ingest.timeline.add_sound(AudioRun(first, start_ns, len(batch), TOKEN_NS))
            self._advance(memory, ingest)
        moments = []
        for low in range(0, len(batch), MOMENT_TOKENS):
            high = min(low + MOMENT_TOKENS, len(batch))
            interval = Interval(start_ns + low * TOKEN_NS, start_ns + high * TOKEN_NS)
            moments.append(Moment("audio", first + low, first + high, interval, source, frame_id))
        return moments

    def _commit_pair(
        self, memory: StreamMemory, source: str, first: WaitingFrame, second: WaitingFrame | None
    ) -> Moment:
        """Commit a temporal patch of two frames, or of one repeated, and let the first one wait no longer."""
        pixels, grid = self._patch(first, second)
        stamps = (first.stamp_ns, (second or first).stamp_ns)
        moment = self.observe_patch(memory, pixels, grid, stamps, source, first.pose_id, first.frame_id)
        with self.ingest(memory).lock:
            self.ingest(memory).frames.pop(source, None)
        return moment

    def _commit_sound(self, memory: StreamMemory, source: str, sound: WaitingSound) -> list[Moment]:
        """Commit a window, whole or ended by a gap."""
        assert self._mel is not None
        tokens = -(-len(sound.samples) // TOKEN_SAMPLES) if self.config.mode == "streaming" else None
        moments: list[Moment] = []
        if len(sound.samples):
            mel = self._mel(sound.samples)
            moments = self.observe_window(memory, mel, sound.start_ns, source, tokens, sound.frame_id)
        with self.ingest(memory).lock:
            self.ingest(memory).sounds.pop(source, None)
        return moments

    def _advance(self, memory: StreamMemory, ingest: Ingest) -> None:
        """Fix positions that are known for good, and forget blocks that have no kept token any more."""
        window_s = self.config.audio.window_s if self.config.audio else 0
        ingest.timeline.close(2 * window_s * SECOND_NS)
        if len(ingest.timeline.closed) >= ingest.timeline.prune_at:
            patches = memory.kept("visual")[1].unique().tolist()
            ingest.timeline.prune(patches, memory.kept("audio")[0].tolist())
            ingest.timeline.prune_at = len(ingest.timeline.closed) + PRUNE_EVERY
        if self.config.prefill == "cached":
            self._advance_prefill(memory, ingest)

    # -- encoders ---------------------------------------------------------------------------------------------------

    def _patch(self, first: WaitingFrame, second: WaitingFrame | None) -> tuple[Tensor, tuple[int, int]]:
        vision = self.config.vision
        other = first if second is None else second
        return patchify(first.pixels, other.pixels, vision["patch_size"], vision["spatial_merge_size"])

    def _merged(self, grid: tuple[int, int]) -> tuple[int, int]:
        merge = int(self.config.vision["spatial_merge_size"])
        return grid[0] // merge, grid[1] // merge

    @torch.no_grad()
    def _encode_patch(self, pixels: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """(h * w, C) -> tokens (T, D), deepstack (K, T, D) or None; one patch a call keeps one batch shape."""
        where = {"device": self.network.device, "dtype": self.network.dtype}
        tokens, deepstack = self.vision_encoder(pixels[None].to(**where), grid)
        return tokens[0], deepstack[:, 0] if deepstack.shape[0] else None

    @torch.no_grad()
    def _encode_window(self, mel: Tensor, tokens: int | None) -> Tensor:
        if self.audio_encoder is None:
            raise ValueError("mel: this network has no audio tower")
        encoded = self.audio_encoder(mel[None].to(device=self.network.device, dtype=self.network.dtype))[0]
        return encoded[:tokens]

    @staticmethod
    def _audio_batch(memory: StreamMemory, tokens: Tensor, start_ns: int, source: int, skip: int) -> TokenBatch:
        index, window = memory.next_audio
        steps = torch.arange(len(tokens))
        fill = torch.ones_like(steps)
        return TokenBatch(
            tokens,
            None,
            index + skip + steps,
            start_ns + steps * TOKEN_NS,
            fill * (window + (1 if skip else 0)),
            torch.zeros_like(steps),
            fill * source,
            -fill,
        )

    # -- what a question sees ---------------------------------------------------------------------------------------

    def view(
        self, memory: StreamMemory, after_ns: int = 0, before_ns: int = 0, sources: Sequence[str] = ()
    ) -> SceneView:
        """The memory at this instant with its provisional tail: an unpaired frame, sound of a window that is not full.

        Nothing is committed. In released mode it is what the release would compute if the recording ended here.

        Args:
            memory: of this network.
            after_ns: leave out tokens that ended before this stamp; 0 is no bound.
            before_ns: leave out tokens that began after this stamp; 0 is no bound.
            sources: names of the sources wanted; empty means all.
        """
        if self.config.mode == "released":
            return self._released_view(memory, after_ns, before_ns, sources)
        ingest = self.ingest(memory)
        with ingest.lock:
            base = memory.view(after_ns, before_ns, sources)
            timeline = ingest.timeline.copy()
            frames = sorted(ingest.frames.items(), key=lambda item: item[1].stamp_ns)
            sounds = sorted(ingest.sounds.items(), key=lambda item: item[1].start_ns)
            cameras = list(ingest.cameras)
            prefill = self.prefill_cache(memory).snapshot() if self.config.prefill == "cached" else None
            if after_ns or sources or (before_ns and before_ns < base.newest_ns):
                prefill = None  # its rows have seen tokens that this question must not see
            (index, patch), (heard, _) = memory.next_visual, memory.next_audio
        visual, blocks = [], []
        for name, frame in frames:
            pixels, grid = self._patch(frame, None)
            tokens, deepstack = self._encode_patch(pixels, grid)
            merged, number = self._merged(grid), memory.source_id(name)
            names = {*cameras, name}
            mark = name if len(names) > 1 else ""
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
        audio, runs, skip = [], [], 0
        for name, sound in sounds:
            count = -(-len(sound.samples) // TOKEN_SAMPLES)
            if count and self._mel is not None:
                tokens = self._encode_window(self._mel(sound.samples), count)
                audio.append(self._audio_batch(memory, tokens, sound.start_ns, memory.source_id(name), skip))
                audio[-1] = replace(audio[-1], index=heard + skip + torch.arange(count))
                runs.append(AudioRun(heard + skip, sound.start_ns, count, TOKEN_NS))
                skip += count
        laid, after = timeline.layout(blocks, runs)
        wanted = [memory.source_id(name) for name in sources if name in memory.sources]
        tail_visual = _within(visual, after_ns, before_ns, sources, wanted)
        if tail_visual is not None and self.network.ttt is not None and base.fast_weights is not None:
            tail_visual = replace(tail_visual, z=self._through_fast_weights(tail_visual, base.fast_weights))
        base = base.extended(tail_visual, _within(audio, after_ns, before_ns, sources, wanted))
        return _scene(base, laid, after, prefill)

    @torch.no_grad()
    def _through_fast_weights(self, batch: TokenBatch, state: object) -> Tensor:
        """Provisional tokens through the current weights, as the waiting rows of a mini-batch are."""
        ttt = self.network.ttt
        assert ttt is not None
        assert batch.grid is not None
        place, width = batch.place.long(), batch.grid[:, 1].long()
        positions = torch.stack([batch.patch, place // width, place % width], dim=1).to(batch.z.device)
        waiting = dataclasses.replace(state, chunks=[(batch.z[None], positions[None])])  # type: ignore[type-var]
        return ttt.pending(waiting).to(batch.z.dtype)

    def _released_view(self, memory: StreamMemory, after_ns: int, before_ns: int, sources: Sequence[str]) -> SceneView:
        """A copy of the memory is brought to the end: odd frame repeated, last windows padded, last slice."""
        with self.ingest(memory).lock:
            copy = StreamMemory.from_tensors(*memory.to_tensors(), self.network.ttt)
        ingest = self.ingest(copy)
        for name, frame in list(ingest.frames.items()):
            self._commit_pair(copy, name, frame, None)
        for name, sound in list(ingest.sounds.items()):
            self._commit_sound(copy, name, sound)
        copy.finish()
        blocks = [*ingest.timeline.closed, *ingest.timeline.open]
        laid, after = released_layout(blocks, copy.next_audio[0], self.config.patch_period_s)
        return _scene(copy.view(after_ns, before_ns, sources), laid, after)

    # -- the way out ------------------------------------------------------------------------------------------------

    def prompt(self, question: str, view: SceneView) -> Prompt:
        """The prompt of a question, whose special tokens are escaped; its length is what the language model reads."""
        if not isinstance(view, SceneView):
            raise TypeError("view: expected what VideoSalmonnS.view gives")
        return prompt_of(
            view,
            self.tokenizer.escape(question),
            self.tokenizer,
            all_marks=self.config.time_marks == "all" or self.config.mode == "released",
            max_marks=self.config.max_time_marks,
        )

    @torch.no_grad()
    def _read(self, question: str, view: SceneView) -> Answering:
        prompt = self.prompt(question, view)
        cache = view.prefill
        if cache is not None and usable(prompt, self.tokenizer):
            reading = cache.read(self.network.language, prompt, view)
        else:
            tokens = embed_prompt(prompt, view, self.network.language)
            reading = read(self.network.language, prompt, tokens, self.config.reader)
        return Answering(self.network, self.tokenizer, view, prompt, reading)

    @torch.no_grad()
    def answer(
        self,
        question: str,
        view: SceneView,
        *,
        max_new_tokens: int = 512,
        should_stop: Callable[[], bool] = lambda: False,
        on_text: Callable[[str], None] | None = None,
        options: Sequence[str] = (),
        grammar: Grammar | None = None,
    ) -> Generation:
        """Answer from a view, greedily. The memory is untouched, and the prompt is read once.

        Args:
            question: user text.
            view: what `view` gave.
            max_new_tokens: limit of the answer, at least 1.
            should_stop: asked before each token; True ends the answer.
            on_text: called with each new piece of text.
            options: texts to be compared as whole answers, see `Generation.option_logprobs`.
            grammar: what a second, typed answer is held to, see `Generation.value`.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: expected at least 1, got {max_new_tokens}")
        with self._answering:
            answering = self._read(question, view)
            found: dict[str, Any] = {}
            if options:
                ids = self._option_ids(options)
                lengths = torch.tensor([len(option) for option in ids])
                found["option_logprobs"] = answering.score(ids) / lengths
            if grammar is not None:
                found["value"], found["value_logprob"] = answering.held(grammar, should_stop)
            return replace(answering.decode(max_new_tokens, should_stop, on_text), **found)

    @torch.no_grad()
    def score(self, question: str, options: Sequence[str], view: SceneView) -> Tensor:
        """(n,) float32 log-likelihood of each option as the whole answer, its end token included.

        Raises:
            ValueError: no options.
        """
        if not options:
            raise ValueError("options: expected at least one")
        with self._answering:
            return self._read(question, view).score(self._option_ids(options))

    def _option_ids(self, options: Sequence[str]) -> list[list[int]]:
        end = self.tokenizer.specials.im_end
        return [[*self.tokenizer.encode(self.tokenizer.escape(option)), end] for option in options]


def _within(
    batches: Sequence[TokenBatch], after_ns: int, before_ns: int, names: Sequence[str], wanted: list[int]
) -> TokenBatch | None:
    """The tail's tokens that a window of the view lets through."""
    if not batches or (names and not wanted):
        return None
    batch = TokenBatch.concat(list(batches))
    if after_ns or before_ns or wanted:
        mask = batch.within(after_ns, before_ns, wanted)
        batch = batch.select(mask)
    return batch if len(batch) else None


def _scene(base: object, blocks: Sequence[Block], after: int, prefill: PrefillCache | None = None) -> SceneView:
    values = {item.name: getattr(base, item.name) for item in dataclasses.fields(base)}  # type: ignore[arg-type]
    return SceneView(**values, blocks=tuple(blocks), next_position=after, prefill=prefill)
