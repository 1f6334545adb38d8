"""Stream memory: the whole persistent state of a stream. Fast weights, waiting tokens, two token memories, session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from salmonn_node.memory.memory_events import MemoryEvent, StatePart, StoredPart
from salmonn_node.memory.memory_view import MemoryView
from salmonn_node.memory.token_batch import COLUMNS, TokenBatch
from salmonn_node.memory.token_memory import TokenMemory, TokenMemoryConfig

if TYPE_CHECKING:
    from salmonn_node.memory.event_log import EventLog
    from salmonn_node.memory.event_memory import EventMemory
    from salmonn_node.ttt.layer import TTTLayer
    from salmonn_node.ttt.state import TTTState

__all__ = ["MemoryEvent", "MemoryView", "StatePart", "StoredPart", "StreamMemory", "TokenBatch", "TokenMemoryConfig"]

SCHEMA = "salmonn_node/stream_memory/1"
STAMP, SOURCE = COLUMNS.index("stamp_ns"), COLUMNS.index("source")
COUNTERS = (
    "visual_tokens",
    "visual_patches",
    "visual_left",
    "audio_tokens",
    "audio_left",
    "forgotten",
    "refused",
    "raw",
)


class StreamMemory:
    """Memory of one stream. You may call all methods from any thread. Later calls do not change a view.

    Visual tokens go through the TTT layer in complete mini-batches, then into the visual token memory. Audio tokens
    go into the audio token memory directly. The result is the same, bit for bit, however you cut the stream into
    calls.

    With a layer in released mode, the memory follows the public release. Tokens wait for a slice of `slice_patches`
    whole patches. After each slice, the token memory steps down to its budget. `finish` ends the video.

    Args:
        ttt: the TTT layer. It belongs to the model, not to the state. None: tokens enter the token memory unchanged.
        visual: settings of the visual token memory.
        audio: settings of the audio token memory.
        slice_patches: temporal patches per slice in released mode.
        session: JSON values about the session. They are kept and saved, and never read here.
        events: an empty event memory; or None. Where a rule is `events`, it tells that rule what to keep. Else it is
            kept beside the tokens, for answers that are read from events.
        log: an empty event log, kept beside the tokens for a reader outside the network; or None.
    """

    def __init__(
        self,
        ttt: TTTLayer | None,
        visual: TokenMemoryConfig,
        audio: TokenMemoryConfig,
        *,
        slice_patches: int = 64,
        session: dict[str, Any] | None = None,
        events: EventMemory | None = None,
        log: EventLog | None = None,
    ) -> None:
        if slice_patches < 1:
            raise ValueError(f"slice_patches: expected at least 1, got {slice_patches}")
        self.ttt = ttt
        self.slice_patches = slice_patches
        self.events = events
        self.log = log
        self.session: dict[str, Any] = dict(session or {})
        self.listeners: list[Callable[[MemoryEvent], None]] = []
        self.parts: dict[str, StatePart] = {}
        self._lock = threading.RLock()
        self._sources: list[str] = []
        self._configs = (visual, audio)
        self._version = 0
        self._reset()

    def _reset(self) -> None:
        visual, audio = self._configs
        self.events = None if self.events is None else self.events.fresh()
        self.log = None if self.log is None else self.log.fresh()
        self._state: TTTState | None = None if self.ttt is None else self.ttt.init_state()
        self._adopt(TokenMemory(visual), TokenMemory(audio))
        self._waiting: list[TokenBatch] = []
        self._last_index = -1
        self._last_patch = {"visual": -1, "audio": -1}
        self._newest_ns = -1
        self.counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)

    def _adopt(self, visual: TokenMemory, audio: TokenMemory) -> None:
        self._visual, self._audio = visual, audio
        self._beside = self.events is not None and "events" not in (visual.config.rule, audio.config.rule)
        for name, memory in (("visual", visual), ("audio", audio)):
            memory.keeper = None if self.events is None or self._beside else (self.events, name)
        self._visual.on_change = lambda kind, index: self._tell(MemoryEvent(kind, "visual", index))
        self._audio.on_change = lambda kind, index: self._tell(MemoryEvent(kind, "audio", index))

    def _tell(self, event: MemoryEvent) -> None:
        if event.kind in ("dropped", "merged"):
            self.counters[f"{event.modality}_left"] += len(event.index)
        for listener in self.listeners:
            listener(event)

    @property
    def released(self) -> bool:
        """Whether the layer runs in released mode, with padded slices."""
        return self.ttt is not None and self.ttt.config.mode == "released"

    @property
    def configs(self) -> tuple[TokenMemoryConfig, TokenMemoryConfig]:
        """Settings of the visual and the audio token memory."""
        return self._configs

    @property
    def state(self) -> TTTState | None:
        """The live TTT state. Do not change it, and do not keep a reference across calls."""
        return self._state

    @property
    def version(self) -> int:
        """A number that grows with each change."""
        return self._version

    @property
    def nbytes(self) -> int:
        """Size in bytes of tokens, waiting rows and fast weights."""
        return sum(self.bytes_by_part().values())

    def bytes_by_part(self) -> dict[str, int]:
        """Size in bytes by part: `visual` and `audio` tokens (with free slots), the TTT state, and waiting tokens.

        All parts but `waiting` are constant once the budgets are full. `waiting` stays below a mini-batch or slice.
        """
        with self._lock:
            parts = {"visual": self._visual.nbytes, "audio": self._audio.nbytes, "ttt": 0}
            if self.events is not None:
                parts["events"] = self.events.nbytes
            if self.log is not None:
                parts["log"] = self.log.nbytes
            parts["waiting"] = sum(b.width * len(b) * b.z.element_size() for b in self._waiting)
            if self._state is not None:
                pending = sum(t.nbytes + p.nbytes for t, p in self._state.chunks)
                parts["ttt"] = self._state.nbytes - pending
                parts["waiting"] += pending
            return parts

    @property
    def next_visual(self) -> tuple[int, int]:
        """Original index and patch number of the next visual token."""
        with self._lock:
            return self._last_index + 1, self._last_patch["visual"] + 1

    @property
    def next_audio(self) -> tuple[int, int]:
        """Original index and window number of the next audio token."""
        with self._lock:
            return self._audio.last_index + 1, self._last_patch["audio"] + 1

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources seen so far, ordered by id."""
        return tuple(self._sources)

    def source_id(self, name: str) -> int:
        """The id of a camera or microphone in the token table. A new name gets the next id.

        Raises:
            ValueError: there are more than 32 767 names.
        """
        with self._lock:
            if name not in self._sources:
                if len(self._sources) > 32_766:
                    raise ValueError("name: too many sources")
                self._sources.append(name)
            return self._sources.index(name)

    def observe_visual(self, batch: TokenBatch, grid: tuple[int, int]) -> None:
        """Observe visual tokens, in order of `index`. A call may bring any number of tokens.

        Args:
            batch: raw tokens of the vision tower with their deepstack rows.
            grid: (h, w) of merged tokens of each patch in the batch. It replaces `batch.grid`.

        Raises:
            ValueError: the tokens are malformed. The state does not change, and `counters["refused"]` grows.
        """
        with self._lock:
            try:
                batch = self._checked_visual(batch, grid)
            except ValueError:
                self.counters["refused"] += 1
                raise
            if self.log is not None:
                self.log.observe("visual", batch)
            if self.events is not None and self._beside:
                self.events.observe("visual", batch)
            if self.ttt is None:
                self._visual.append(batch)
            elif self.released:
                self._fill_slices(batch, grid[0] * grid[1] * self.slice_patches)
            else:
                self._through_ttt(batch)
            self.counters["visual_tokens"] += len(batch)
            patches = torch.unique_consecutive(batch.patch)
            self.counters["visual_patches"] += len(patches) - int(int(patches[0]) == self._last_patch["visual"])
            self._last_index, self._last_patch["visual"] = int(batch.index[-1]), int(patches[-1])
            self._newest_ns = max(self._newest_ns, int(batch.stamp_ns.max()))
            self._version += 1

    def observe_audio(self, batch: TokenBatch) -> None:
        """Observe audio tokens, in order of `index`. A call may bring any number of tokens.

        Raises:
            ValueError: the tokens are malformed. The state does not change, and `counters["refused"]` grows.
        """
        with self._lock:
            try:
                self._audio.append(batch)
            except ValueError:
                self.counters["refused"] += 1
                raise
            if self.log is not None:
                self.log.observe("audio", batch)
            if self.events is not None and self._beside:
                self.events.observe("audio", batch)
            self.counters["audio_tokens"] += len(batch)
            self._last_patch["audio"] = int(batch.patch[-1])
            self._newest_ns = max(self._newest_ns, int(batch.stamp_ns.max()))
            self._version += 1

    def _checked_visual(self, batch: TokenBatch, grid: tuple[int, int]) -> TokenBatch:
        if len(grid) != 2 or min(grid) < 1:
            raise ValueError(f"grid: expected two positive numbers, got {grid}")
        shape = torch.tensor(grid, dtype=torch.int32)
        batch = replace(batch, grid=shape.expand(batch.z.shape[0] if batch.z.dim() == 2 else 0, 2))
        self._visual.check(batch)
        if int(batch.index[0]) <= self._last_index:
            raise ValueError(f"index: {int(batch.index[0])} is not after the last one, {self._last_index}")
        if bool((batch.patch.diff() < 0).any()) or int(batch.patch[0]) < self._last_patch["visual"]:
            raise ValueError("patch: expected numbers that do not decrease")
        if self.ttt is not None and batch.z.shape[1] != self.ttt.config.hidden_size:
            raise ValueError(f"z: width {batch.z.shape[1]} differs from the layer's {self.ttt.config.hidden_size}")
        if self._waiting:
            first = self._waiting[0]
            if (first.width, first.z.dtype, first.z.device) != (batch.width, batch.z.dtype, batch.z.device):
                raise ValueError("z, deepstack: width, dtype or device differ from the waiting tokens'")
        return batch

    def _through_ttt(self, batch: TokenBatch) -> None:
        """Streaming mode: match the rows of complete mini-batches with the waiting tokens, first in first out."""
        assert self.ttt is not None
        assert self._state is not None
        out = self.ttt.observe(batch.z, _positions(batch), self._state)
        self._waiting.append(batch)
        if len(out):
            waiting = TokenBatch.concat(self._waiting)
            done = waiting.select(slice(0, len(out)))
            self._waiting = [waiting.select(slice(len(out), None))] if len(out) < len(waiting) else []
            self._visual.append(self._transformed(done, out))

    def _transformed(self, batch: TokenBatch, out: Tensor) -> TokenBatch:
        """Replace the features by the layer's output. Count the tokens that kept their raw features."""
        batch, raw = _with_output(batch, out)
        self.counters["raw"] += raw
        return batch

    def _fill_slices(self, batch: TokenBatch, slice_tokens: int) -> None:
        """Released mode: commit each full slice."""
        self._waiting.append(batch)
        while sum(len(b) for b in self._waiting) >= slice_tokens:
            waiting = TokenBatch.concat(self._waiting)
            rest = waiting.select(slice(slice_tokens, None))
            self._waiting = [rest] if len(rest) else []
            self._commit_slice(waiting.select(slice(0, slice_tokens)))

    def _commit_slice(self, batch: TokenBatch) -> None:
        assert self.ttt is not None
        assert self._state is not None
        assert batch.grid is not None
        height, width = batch.grid[0].tolist()
        out = self.ttt.observe_slice(batch.z, (height, width), self._state)
        self._visual.append(self._transformed(batch, out))
        self._visual.settle()

    def finish(self) -> None:
        """Released mode: end the video. Commit the last, shorter slice and bring the audio memory to its budget.

        A stream has no end, so in streaming mode this does nothing. Questions see waiting tokens through the current
        weights.
        """
        if not self.released:
            return
        with self._lock:
            waiting, self._waiting = self._waiting, []
            if waiting:
                self._commit_slice(TokenBatch.concat(waiting))
            self._audio.settle()
            self._version += 1

    def view(self, after_ns: int = 0, before_ns: int = 0, sources: Sequence[str] = ()) -> MemoryView:
        """Return a snapshot of the kept tokens and of the waiting ones, seen through the current weights and flagged.

        Args:
            after_ns: drop tokens that ended before this stamp. 0 means no bound.
            before_ns: drop tokens that began after this stamp. 0 means no bound.
            sources: names of the sources to keep. Empty means all; unknown names match nothing.
        """
        with self._lock:
            visual = self._visual.view() if len(self._visual) else None
            audio = self._audio.view() if len(self._audio) else None
            view = MemoryView(
                visual=visual,
                visual_committed=torch.ones(len(visual) if visual else 0, dtype=torch.bool),
                audio=audio,
                audio_committed=torch.ones(len(audio) if audio else 0, dtype=torch.bool),
                sources=self.sources,
                fast_weights=None if self._state is None else _weights_only(self._state),
                version=self._version,
                newest_ns=self._newest_ns,
                session=dict(self.session),
                counters=dict(self.counters),
                events=None if self.events is None else self.events.snapshot(),
            ).extended(visual=self._provisional())
        return view.within(after_ns, before_ns, sources)

    def _provisional(self) -> TokenBatch | None:
        """Waiting visual tokens as a question sees them, or None."""
        if not self._waiting:
            return None
        waiting = TokenBatch.concat(self._waiting)
        if self.ttt is None or self._state is None or self.released:
            return waiting
        return _with_output(waiting, self.ttt.pending(self._state))[0]

    def kept(self, modality: str) -> tuple[Tensor, Tensor]:
        """Original indices and patch numbers, (n,) int64 each, of the tokens held, including waiting ones."""
        with self._lock:
            tables = [(self._visual if modality == "visual" else self._audio).table()]
            if modality == "visual":
                tables += [batch.table() for batch in self._waiting]
            return torch.cat([t[:, 0] for t in tables]), torch.cat([t[:, 2] for t in tables])

    def token_counts(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Numbers of tokens kept within the budgets and of those waiting above them, (visual, audio) each.

        Questions see both, until the next discard step. Tokens of an unfinished mini-batch count as well.
        """
        with self._lock:
            held = len(self._visual) + sum(len(batch) for batch in self._waiting), len(self._audio)
        kept = min(held[0], self.configs[0].budget), min(held[1], self.configs[1].budget)
        return kept, (held[0] - kept[0], held[1] - kept[1])

    def kept_stamps(self, modality: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Stamps and source ids, (n,) each, of the tokens held, including waiting ones."""
        with self._lock:
            tables = [(self._visual if modality == "visual" else self._audio).table()]
            if modality == "visual":
                tables += [batch.table() for batch in self._waiting]
            table = torch.cat(tables).numpy()
            return table[:, STAMP].copy(), table[:, SOURCE].copy()

    def event_starts(self, modality: str) -> list[tuple[str, int]]:
        """(source, stamp) at which each event of the event memory begins; empty when there is none."""
        with self._lock:
            events = [] if self.events is None else self.events.events(modality)
            return [(self._sources[event.source], event.first_ns) for event in events]

    def forget(self, after_ns: int, before_ns: int) -> int:
        """Remove the tokens observed in [after_ns, before_ns]. Return how many were removed.

        This includes tokens that wait for their mini-batch. The fast weights keep what they learned from the
        interval. Only `clear` undoes that.

        Raises:
            ValueError: a stamp is negative, or the interval ends before it starts.
        """
        if after_ns < 0 or before_ns < after_ns:
            raise ValueError(f"after_ns, before_ns: {after_ns} to {before_ns} is not an interval of stamps")
        with self._lock:
            gone = len(self._visual.remove(after_ns, before_ns)) + len(self._audio.remove(after_ns, before_ns))
            if self._waiting:
                waiting = TokenBatch.concat(self._waiting)
                stay = ~waiting.within(after_ns, before_ns or 1)
                if not bool(stay.all()):
                    gone += int((~stay).sum())
                    self._keep_waiting(waiting, stay)
            if self.events is not None:
                self.events.forget(after_ns, before_ns)
            if self.log is not None:
                self.log.forget(after_ns, before_ns)
            self.counters["forgotten"] += gone
            self._version += 1
            return gone

    def _keep_waiting(self, waiting: TokenBatch, stay: Tensor) -> None:
        rest = waiting.select(stay)
        self._waiting = [rest] if len(rest) else []
        if self._state is not None and not self.released:
            tokens, positions = self._state.pending_tokens()
            self._state.chunks = [(tokens[:, stay], positions[:, stay])] if len(rest) else []

    def clear(self) -> None:
        """Forget everything, including fast weights, and reset the counters. Settings, source ids, listeners stay."""
        with self._lock:
            self._reset()
            self.parts.clear()
            self._version += 1
            for modality in ("visual", "audio"):
                self._tell(MemoryEvent("cleared", modality, torch.empty(0, dtype=torch.int64)))

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the whole state as contiguous tensors and JSON values. `from_tensors` continues bit for bit."""
        with self._lock:
            tensors: dict[str, Tensor] = {}
            parts: dict[str, dict[str, Any]] = {}
            for name, memory in (("visual", self._visual), ("audio", self._audio)):
                named, parts[name] = memory.to_tensors()
                tensors |= {f"{name}.{key}": value for key, value in named.items()}
            if self._state is not None:
                tensors |= {f"ttt.{key}": value for key, value in self._state.to_tensors().items()}
            depth = 0
            if self._waiting:
                waiting = TokenBatch.concat(self._waiting)
                depth = 0 if waiting.deepstack is None else waiting.deepstack.shape[0]
                tensors |= {"waiting.features": waiting.features(), "waiting.table": waiting.table()}
            events = None
            if self.events is not None:
                named, events = self.events.to_tensors()
                tensors |= {f"events.{key}": value for key, value in named.items()}
            log = None
            if self.log is not None:
                named, log = self.log.to_tensors()
                tensors |= {f"log.{key}": value for key, value in named.items()}
            part_meta = {}
            for name, part in self.parts.items():
                named, part_meta[name] = part.to_tensors()
                tensors |= {f"part.{name}.{key}": value for key, value in named.items()}
            meta = {
                "schema": SCHEMA,
                "parts": part_meta,
                **parts,
                "waiting_depth": depth,
                "slice_patches": self.slice_patches,
                "session": self.session,
                "sources": list(self._sources),
                "last_index": self._last_index,
                "last_patch": dict(self._last_patch),
                "newest_ns": self._newest_ns,
                "version": self._version,
                "counters": dict(self.counters),
                "ttt": None if self.ttt is None else self.ttt.config.mode,
                "events": events,
                "log": log,
            }
            # Copy, because the caller writes the tensors to disk while the stream goes on.
            return {name: value.detach().clone().contiguous() for name, value in tensors.items()}, meta

    @classmethod
    def from_tensors(
        cls,
        tensors: dict[str, Tensor],
        meta: dict[str, Any],
        ttt: TTTLayer | None,
        events: EventMemory | None = None,
        log: EventLog | None = None,
    ) -> StreamMemory:
        """Restore a memory from `to_tensors`, with the same layer and the same kind of event memory.

        A state without events continues with an empty event memory, which says that it is partial. Without `events`,
        the events of the state are left out. The same holds for `log`.

        Raises:
            ValueError: the schema differs, the layer has another mode or size, or values are missing or do not fit.
        """
        try:
            return cls._restored(tensors, meta, ttt, events, log)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"meta: missing or malformed ({error})") from error

    @classmethod
    def _restored(
        cls,
        tensors: dict[str, Tensor],
        meta: dict[str, Any],
        ttt: TTTLayer | None,
        events: EventMemory | None,
        log: EventLog | None,
    ) -> StreamMemory:
        if meta.get("schema") != SCHEMA:
            raise ValueError(f"meta: schema {meta.get('schema')!r} is not {SCHEMA!r}")
        mode = None if ttt is None else ttt.config.mode
        if meta["ttt"] != mode:
            raise ValueError(f"ttt: the state was made with mode {meta['ttt']!r}, the layer has {mode!r}")

        def part(name: str) -> dict[str, Tensor]:
            return {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(name + ".")}

        visual = TokenMemory.from_tensors(part("visual"), meta["visual"])
        audio = TokenMemory.from_tensors(part("audio"), meta["audio"])
        memory = cls(
            ttt,
            visual.config,
            audio.config,
            slice_patches=int(meta["slice_patches"]),
            session=meta["session"],
            events=events,
            log=log,
        )
        if memory.events is not None and meta.get("events") is not None:
            memory.events.restore(part("events"), meta["events"])
        elif memory.events is not None:
            memory.events.partial = int(meta["newest_ns"]) >= 0
        if memory.log is not None and meta.get("log") is not None:
            memory.log.restore(part("log"), meta["log"])
        memory._adopt(visual, audio)
        if ttt is not None:
            fresh = ttt.init_state()
            state = type(fresh).from_tensors(part("ttt"))
            if state.W1.shape != fresh.W1.shape or state.lag_rows.shape[-1] != fresh.lag_rows.shape[-1]:
                raise ValueError(
                    f"ttt: fast weights {tuple(state.W1.shape)} do not fit the layer's {tuple(fresh.W1.shape)}"
                )
            memory._state = state
        waiting = part("waiting")
        if waiting:
            batch = TokenBatch.from_table(waiting["features"], waiting["table"], int(meta["waiting_depth"]))
            memory._waiting = [batch]
        memory.parts = {
            name: StoredPart(part(f"part.{name}"), values) for name, values in meta.get("parts", {}).items()
        }
        memory._sources = [str(name) for name in meta["sources"]]
        memory._last_index = int(meta["last_index"])
        memory._last_patch = {name: int(value) for name, value in meta["last_patch"].items()}
        memory._newest_ns, memory._version = int(meta["newest_ns"]), int(meta["version"])
        memory.counters = {name: int(meta["counters"].get(name, 0)) for name in COUNTERS}
        return memory


def _positions(batch: TokenBatch) -> Tensor:
    """(L, 3) int64: positions t, y, x of tokens in the stream of patches."""
    assert batch.grid is not None
    place, width = batch.place.long(), batch.grid[:, 1].long()
    return torch.stack([batch.patch, place // width, place % width], dim=1)


def _with_output(batch: TokenBatch, out: Tensor) -> tuple[TokenBatch, int]:
    """Replace features by the TTT layer's output. A token whose output is not finite stays raw; return their number."""
    out = out.to(batch.z.dtype)
    broken = ~torch.isfinite(out).all(1)
    if bool(broken.any()):
        out = torch.where(broken[:, None], batch.z, out)
    return replace(batch, z=out), int(broken.sum())


def _weights_only(state: TTTState) -> TTTState:
    """Copy the fast weights without the parts that only updates need."""
    copies = {name: getattr(state, name).detach().clone() for name in ("W1", "b1", "W2", "b2", "damping")}
    return replace(state, **copies, lag_rows=state.lag_rows[:, :0].clone(), chunks=[])
