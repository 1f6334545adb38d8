"""What the node runs on: the network, the observer, the answerer and the store, made from its parameters."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from salmonn_node.ros.parameters import NodeParameters


@dataclass
class Backend:
    """The rooms behind the doors of ROS.

    Attributes:
        observer: takes observations in (salmonn_node.ingest.observer.Observer).
        answerer: answers questions (salmonn_node.answering.answerer.Answerer).
        checkpoint_id: the network's weights.
        trained: False: untrained weights, answers mean nothing.
        encoders: (backend, reason) of "vision" and "audio".
        grounding: frames, cameras and mounts; the topics fill it (salmonn_node.answering.grounding.Grounding).
        persistence: binds the observer to its store (salmonn_node.storage.persistence.Persistence); None keeps nothing.
        answer_times: how long answers take (salmonn_node.answering.answer_time.AnswerTimeModel); the network has one.
        reopen: makes a Backend of the same network with another stored memory; raises when it cannot be restored.
        free: lets go of the network; called once, after the last Backend that uses it was closed.
    """

    observer: Any
    answerer: Any
    checkpoint_id: str
    trained: bool
    encoders: dict[str, tuple[str, str]]
    persistence: Any = None
    answer_times: Any = None
    reopen: Callable[[str], Backend] | None = None
    free: Callable[[], None] = lambda: None
    last_snapshot_ns: int = 0
    grounding: Any = None
    _snapshots: int = field(default=0, repr=False)

    @property
    def storage(self) -> str:
        """The store's state in words, "off" without one."""
        if self.persistence is None:
            return "off"
        store = self.persistence.store
        return str(store.problem or store.evidence.problem) or "on"

    def note_snapshots(self) -> None:
        """Remember when the store has last written one, wall time."""
        written = self.persistence.store.snapshots_written if self.persistence is not None else 0
        if written != self._snapshots:
            self._snapshots, self.last_snapshot_ns = written, time.time_ns()

    def save(self) -> None:
        """Bring to disk what is to survive this process."""
        if self.persistence is not None:
            self.persistence.save()

    def close(self) -> None:
        """Let go of the memory; what was queued is not taken in. The network stays."""
        self.observer.close()
        if self.persistence is not None:
            self.persistence.close()


def build_backend(parameters: NodeParameters, load: Callable[[NodeParameters], Any] | None = None) -> Backend:
    """Load the network (with `load`, else `load_model`), restore its memory and start the observer.

    Raises:
        ValueError: a parameter asks for what there is not.
        OSError: files are missing or cannot be written.
        SnapshotError: the stored memory is damaged, of another network, or in use.
    """
    import torch

    if parameters.threads:
        torch.set_num_threads(parameters.threads)
    model = (load or load_model)(parameters)
    encoders, free = _load_encoders(model, parameters)
    try:
        from salmonn_node.answering.answer_time import AnswerTimeModel, timed_answers

        answer_times = AnswerTimeModel(timed_answers(model, parameters.max_new_tokens))
        return _open(model, encoders, free, answer_times, parameters, parameters.memory_name)
    except BaseException:
        free()
        raise


def load_model(parameters: NodeParameters) -> Any:
    """The network on its device; raises ValueError naming the parameter that cannot be served."""
    from salmonn_node.model.network_settings import load_network

    return load_network(parameters.network)


def _open(
    model: Any, encoders: Any, free: Callable[[], None], answer_times: Any, parameters: NodeParameters, name: str
) -> Backend:
    """A memory called `name` with its observer and answerer, restored when persistence is on."""
    from salmonn_node.answering.answerer import Answerer
    from salmonn_node.answering.grounding import Grounding
    from salmonn_node.ingest.observer import Observer
    from salmonn_node.storage.store import MemoryStore

    store = None
    if parameters.persistence:
        from salmonn_node.storage.persistence import Persistence, identity_of

        store = MemoryStore(
            parameters.memory_directory,
            name,
            identity_of(model),
            keep=parameters.snapshots_kept,
            max_bytes=round(parameters.memory_disk_gib * (1 << 30)),
        )
    observer = Observer(
        model,
        evidence=store.evidence if store is not None else None,
        frame_rate_hz=parameters.frame_rate_hz,
        memory_name=name,
    )
    persistence = None
    if store is not None:
        try:
            persistence = Persistence(observer, store, snapshot_period_s=parameters.snapshot_period_s)
            persistence.restore()
        except BaseException:
            observer.close()
            store.close()
            raise
    mounts = {camera: mount for camera, mount in parameters.mounts.items() if mount is not None}
    grounding = Grounding(
        mounts,
        base_frame=parameters.base_frame,
        ground_z_m=parameters.ground_z_m,
        max_range_m=parameters.max_object_range_m,
    )
    answerer = Answerer(
        observer,
        max_new_tokens=parameters.max_new_tokens,
        max_evidence=parameters.max_evidence,
        grounding=grounding,
    )
    return Backend(
        observer,
        answerer,
        model.checkpoint.id,
        model.checkpoint.trained,
        encoders,
        persistence,
        answer_times,
        lambda other: _open(model, encoders, free, answer_times, parameters, other),
        free,
        grounding=grounding,
    )


def _load_encoders(model: Any, parameters: NodeParameters) -> tuple[dict[str, tuple[str, str]], Callable[[], None]]:
    """Put built engines in the encoders' places; says what runs and why."""
    from salmonn_node.engines.encoders import load_encoders
    from salmonn_node.engines.runtime import EngineSettings

    settings = EngineSettings(
        backend=parameters.engine_backend,
        require_engine=parameters.require_engine,
        root=parameters.engine_directory,
    )
    network = model.network
    encoders = load_encoders(network.vision, network.audio, model.config.name, settings)
    model.encoder.vision = encoders.vision
    if encoders.audio is not None:
        model.encoder.audio = encoders.audio
    summaries = {name: encoders.summary(name) for name in ("vision", "audio")}
    return {name: (line.backend, line.detail) for name, line in summaries.items()}, encoders.close
