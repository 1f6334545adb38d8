"""Build a running memory: network, observer, answerer and store, for the live node and for recordings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from salmonn_node.runtime.server import reader_in_words
from salmonn_node.runtime.settings import Settings

# RAM for one row of the evidence index without its picture, with its share of the indices.
MOMENT_BYTES, POSE_BYTES = 512, 768
# Seconds that an answer of a server is expected to take before the first one.
SERVER_S = 2.0

# torch and the packages that need it are imported where they are used, so that a command or node that only reads its
# settings does not wait for them.
if TYPE_CHECKING:
    from salmonn_node.answering.answer_time import AnswerTimeModel
    from salmonn_node.answering.answerer import Answerer
    from salmonn_node.answering.grounding import Grounding
    from salmonn_node.ingest.observer import Observer
    from salmonn_node.memory.evidence_index import EvidenceIndex
    from salmonn_node.model.video_salmonn_s import VideoSalmonnS
    from salmonn_node.runtime.server import ServerParts
    from salmonn_node.storage.persistence import Persistence


@dataclass
class Backend:
    """A running memory, as the node's services and topics use it.

    Attributes:
        observer: adds observations to the memory.
        answerer: answers questions.
        checkpoint_id: id of the network's weights.
        trained: False for untrained weights, whose answers mean nothing.
        encoders: (backend, reason) for "vision" and "audio".
        grounding: frames, cameras and mounts; filled from the topics.
        answer_times: predicts how long this network's answers take.
        reopen: makes a Backend with the same network and another stored memory; raises when the restore fails.
        free: frees the network; called once, after the last Backend that uses it is closed.
        server: the reader outside the network, with its captions; None where the network answers.
        persistence: connects the observer to its store; None keeps nothing on disk.
        restore_notes: what a user should know about the restore.
        damage: the restore notes that report a loss.
        last_snapshot_ns: wall time of the last snapshot, 0 before the first.
    """

    observer: Observer
    answerer: Answerer
    checkpoint_id: str
    trained: bool
    encoders: dict[str, tuple[str, str]]
    grounding: Grounding
    answer_times: AnswerTimeModel
    reopen: Callable[[str], Backend]
    free: Callable[[], None]
    server: ServerParts | None = None
    persistence: Persistence | None = None
    restore_notes: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()
    last_snapshot_ns: int = 0
    _snapshots: int = field(default=0, repr=False)

    @property
    def storage(self) -> str:
        """State of the store in words, "off" without one. Losses of a restore are shown until the next restore."""
        if self.persistence is None:
            return "off"
        lost = f"on; lost at the last restore: {'; '.join(self.damage)}" if self.damage else "on"
        return self.storage_problem or lost

    @property
    def reader(self) -> str:
        """Who answers, and where log and pictures go, in words."""
        return reader_in_words(self.answerer.server)

    @property
    def storage_problem(self) -> str:
        """Why observations are not stored on disk; "" when they are."""
        store = self.persistence.store if self.persistence is not None else None
        return str(store.problem or store.evidence.problem) if store is not None else ""

    def note_snapshots(self) -> None:
        """Update `last_snapshot_ns` if a snapshot was written since the last call."""
        written = self.persistence.store.snapshots_written if self.persistence is not None else 0
        if written != self._snapshots:
            self._snapshots, self.last_snapshot_ns = written, time.time_ns()

    def save(self) -> None:
        """Save the memory to disk, if persistence is on."""
        if self.persistence is not None:
            self.persistence.save()

    def close(self) -> None:
        """Close the memory. Queued observations are dropped. The network stays loaded."""
        if self.server is not None:
            self.server.close()
        self.observer.close()
        if self.persistence is not None:
            self.persistence.close()


def load_model(settings: Settings) -> VideoSalmonnS:
    """Load the network onto its device. Raises ValueError naming the setting that cannot be met."""
    from salmonn_node.model.network_settings import load_network

    if settings.server.outside:
        settings.server.check()  # before the weights are read
    return load_network(settings.network)


def assemble(
    model: VideoSalmonnS,
    settings: Settings,
    *,
    grounding: Grounding | None = None,
    evidence: EvidenceIndex | None = None,
    inline: bool = False,
) -> tuple[Observer, Answerer]:
    """Make an observer with an empty memory, and its answerer.

    Args:
        model: the network.
        settings: see Settings.
        grounding: computes positions of objects; without it, answers give none.
        evidence: the index to write to; None makes one in RAM.
        inline: whether the observer works in the caller's thread, as in a replay.
    """
    from salmonn_node.answering.answerer import Answerer
    from salmonn_node.ingest.observer import Observer
    from salmonn_node.runtime.server import keep_log, server_reader

    keep_log(model, settings.server, settings.network.checkpoint)
    observer = Observer(
        model,
        evidence=evidence,
        frame_rate_hz=settings.frame_rate_hz,
        memory_name=settings.memory_name,
        inline=inline,
    )
    answerer = Answerer(
        observer,
        max_new_tokens=settings.network.max_new_tokens,
        max_evidence=settings.max_evidence,
        grounding=grounding,
        server=server_reader(settings.server, observer, grounding),
    )
    return observer, answerer


def evidence_in_ram(mib: int) -> EvidenceIndex:
    """Make an evidence index that uses at most about `mib` MiB of RAM. It discards the oldest entries first."""
    from salmonn_node.memory.evidence_index import EvidenceIndex

    size = mib << 20
    return EvidenceIndex(
        ":memory:",
        max_bytes=size // 2,
        max_moments=max(1, size // 4 // MOMENT_BYTES),
        max_poses=max(1, size // 4 // POSE_BYTES),
    )


def build_backend(settings: Settings, load: Callable[[Settings], VideoSalmonnS] = load_model) -> Backend:
    """Load the network, restore its memory and start the observer.

    Raises:
        ValueError: a setting cannot be met.
        OSError: files are missing or cannot be written.
        SnapshotError: the stored memory is damaged, belongs to another network, or is in use.
    """
    import torch

    from salmonn_node.answering.answer_time import AnswerTimeModel, timed_answers

    if settings.threads:
        torch.set_num_threads(settings.threads)
    model = load(settings)
    encoders, free = _load_encoders(model, settings)
    try:
        # Nothing is sent to a server before the first question: its first time is a guess.
        timed = [(1, SERVER_S)] if settings.server.outside else timed_answers(model, settings.network.max_new_tokens)
        answer_times = AnswerTimeModel(timed)
        return _open(model, encoders, free, answer_times, settings)
    except BaseException:
        free()
        raise


def _open(
    model: VideoSalmonnS,
    encoders: dict[str, tuple[str, str]],
    free: Callable[[], None],
    answer_times: AnswerTimeModel,
    settings: Settings,
) -> Backend:
    """Open the memory that the settings name, and restore it when persistence is on."""
    from dataclasses import replace

    from salmonn_node.answering.grounding import Grounding
    from salmonn_node.runtime.server import server_parts
    from salmonn_node.storage.directory import default_root
    from salmonn_node.storage.persistence import Persistence, identity_of
    from salmonn_node.storage.store import MemoryStore

    grounding = Grounding(
        settings.mounts,
        base_frame=settings.base_frame,
        ground_z_m=settings.ground_z_m,
        max_range_m=settings.max_object_range_m,
    )
    store = None
    if settings.persistence:
        store = MemoryStore(
            settings.memory_directory or default_root(),
            settings.memory_name,
            identity_of(model),
            keep=settings.snapshots_kept,
            max_bytes=round(settings.memory_disk_gib * (1 << 30)),
        )
    evidence = store.evidence if store is not None else evidence_in_ram(settings.evidence_ram_mib)
    observer, answerer = assemble(model, settings, grounding=grounding, evidence=evidence)
    persistence, report = None, None
    if store is not None:
        try:
            persistence = Persistence(
                observer, store, snapshot_period_s=settings.snapshot_period_s, sessions_kept=settings.sessions_kept
            )
            report = persistence.restore()
        except BaseException:
            observer.close()
            store.close()
            raise
    return Backend(
        observer,
        answerer,
        model.checkpoint.id,
        model.checkpoint.trained,
        encoders,
        grounding,
        answer_times,
        lambda other: _open(model, encoders, free, answer_times, replace(settings, memory_name=other)),
        free,
        server_parts(observer, answerer.server),
        persistence,
        tuple(report.notes) if report is not None else (),
        tuple(report.damage) if report is not None else (),
    )


def _load_encoders(model: VideoSalmonnS, settings: Settings) -> tuple[dict[str, tuple[str, str]], Callable[[], None]]:
    """Replace encoders with built engines; returns (backend, reason) by encoder, and a function that frees them."""
    from salmonn_node.engines.encoders import load_encoders
    from salmonn_node.engines.runtime import EngineSettings

    engines = EngineSettings(
        backend=settings.engine_backend,  # type: ignore[arg-type] # checked there
        require_engine=settings.require_engine,
        root=settings.engine_directory,
    )
    network = model.network
    encoders = load_encoders(network.vision, network.audio, model.config.name, engines)
    model.encoder.vision = encoders.vision
    if encoders.audio is not None:
        model.encoder.audio = encoders.audio
    summaries = {name: encoders.summary(name) for name in ("vision", "audio")}
    return {name: (line.backend, line.detail) for name, line in summaries.items()}, encoders.close
