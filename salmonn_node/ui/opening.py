"""Opens what the page shows: a running node, a recording, or a stored memory that is only read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from salmonn_node.stream.observations import Interval

if TYPE_CHECKING:
    from salmonn_node.model.network_settings import NetworkSettings
    from salmonn_node.replay.job import JobSettings
    from salmonn_node.ui.held_source import HeldSource
    from salmonn_node.ui.node_source import NodeSource


@contextlib.contextmanager
def open_node(name: str, read_only: bool) -> Iterator[NodeSource]:
    """A running node. Raises ValueError when `name` is not a valid node name."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from salmonn_node.runtime.shared_memory import remove_empty_ports
    from salmonn_node.ui.node_source import NodeSource

    remove_empty_ports()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        source = NodeSource(rclpy.create_node("salmonn_ui"), name, read_only=read_only)
        try:
            yield source
        finally:
            source.close()
    finally:
        rclpy.try_shutdown()


@contextlib.contextmanager
def open_recording(
    recording: Path, settings: JobSettings, fresh: bool, on_progress: Callable[[float, float], None]
) -> Iterator[HeldSource]:
    """A recording; its memory is made, or taken from the cache. Raises what `remember` raises."""
    from salmonn_node.replay.recorded_memory import remember
    from salmonn_node.replay.recorded_sound import recorded_sound
    from salmonn_node.ui.held_source import HeldSource
    from salmonn_node.ui.spectrogram import wav

    def play(source: str, interval: Interval) -> bytes:
        samples = recorded_sound(recording, settings, source, interval)
        if not len(samples):
            raise ValueError(f"The recording has no sound of {source} there.")
        return wav(samples)

    memory = remember(recording, settings, fresh=fresh, on_progress=on_progress)
    try:
        heard = bool(memory.observer.status().audio_s)
        yield HeldSource(
            f"recording {recording.name}",
            memory.observer,
            memory.answerer,
            notes=memory.notes,
            origin_ns=memory.start_ns,
            play=play if heard else None,
        )
    finally:
        memory.close()


@contextlib.contextmanager
def open_stored(root: Path, name: str, settings: NetworkSettings) -> Iterator[HeldSource]:
    """A stored memory, only read. Raises ValueError, FileNotFoundError or SnapshotError, as `reading` does."""
    from salmonn_node.answering.answerer import Answerer
    from salmonn_node.model.network_settings import load_network
    from salmonn_node.storage.directory import MemoryPlace
    from salmonn_node.storage.reading import reading
    from salmonn_node.ui.held_source import HeldSource

    place = MemoryPlace(root, name)
    if not place.exists():
        raise FileNotFoundError(f"no memory {name!r} in {root}; `salmonn memory ls` lists them")
    model = load_network(settings)
    with reading(place, model) as (observer, notes):
        answerer = Answerer(observer, max_new_tokens=settings.max_new_tokens)
        yield HeldSource(f"stored memory {name}", observer, answerer, notes=notes)
