"""The memory of a recording, kept in the cache: made once, so that every further question costs only its answer.

A recording's memory lies under $XDG_CACHE_HOME/salmonn_node/recordings, named by what it depends on: the recording's
content, the weights, every value of the configuration, the topics, the frame rate and the version of the code: an
update makes it anew. It is stored as the node stores its own, with cameras and frames of tf beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import save_file

from salmonn_node.answering.answerer import Answerer
from salmonn_node.answering.grounding import Grounding
from salmonn_node.ingest.observer import Observer
from salmonn_node.model.network_settings import load_network
from salmonn_node.replay.code_version import code_version
from salmonn_node.replay.job import JobSettings, open_recording
from salmonn_node.replay.job_result import details_of, warnings_of
from salmonn_node.replay.recording_part import RecordingPart
from salmonn_node.runtime.server import keep_log, server_reader
from salmonn_node.storage.persistence import caption_mark, identity_of, retake_caption
from salmonn_node.storage.snapshot import SnapshotError
from salmonn_node.storage.state import State
from salmonn_node.storage.store import MemoryStore
from salmonn_node.stream.observations import SECOND_NS

SPACE = "space.safetensors"
VALUES = "values"
# So many recordings are kept; the one that was asked longest ago goes first.
KEPT = 16
SAMPLES, SAMPLE_BYTES = 17, 1 << 16


@dataclass
class RecordedMemory:
    """A recording that can be asked.

    Attributes:
        observer, answerer: hold its memory; the observer takes nothing more in.
        start_ns, end_ns: stamps of its first and last observation.
        made: False: the memory was in the cache.
        notes: what was dropped, skipped or cut when it was taken in.
        folder: where its memory is kept.
    """

    observer: Observer
    answerer: Answerer
    start_ns: int
    end_ns: int
    made: bool
    notes: tuple[str, ...]
    folder: Path
    store: MemoryStore

    def close(self) -> None:
        """Let go of the memory."""
        self.observer.on_caption = None
        self.store.close()


def cache_root() -> Path:
    """Where the memories of recordings are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "salmonn_node" / "recordings"


def remember(
    recording: Path,
    settings: JobSettings,
    *,
    fresh: bool = False,
    on_progress: Callable[[float, float], None] = lambda done_s, duration_s: None,
) -> RecordedMemory:
    """The memory of a recording: from the cache, or made now and put there.

    Args:
        recording: a bag or a video.
        settings: which network, topics and rate; the arm is always the checkpoint's own.
        fresh: make it anew even if it is in the cache.
        on_progress: called with the seconds of the recording taken in, and its length.

    Raises:
        ValueError: the recording cannot be read, or a setting cannot be served.
        FileNotFoundError: no such recording, or the checkpoint is not on this machine.
        OSError: the cache cannot be written.
        SnapshotError: the memory is in use by another process, or damaged (`fresh` makes it anew).
    """
    if not recording.exists():
        raise FileNotFoundError(f"{recording}: no such file or directory")
    model = load_network(settings.network)
    keep_log(model, settings.server, settings.network.checkpoint)
    root = cache_root()
    name = _name(recording, settings, model)
    made = fresh or not (root / name / SPACE).is_file()
    if made:
        _make(recording, settings, model, root, name, on_progress)
        _tidy(root)
    return _open(settings, model, root, name, made)


def _make(
    recording: Path,
    settings: JobSettings,
    model: Any,
    root: Path,
    name: str,
    on_progress: Callable[[float, float], None],
) -> None:
    """Take the recording in; its folder gets its name when all of it is on the disk."""
    grounding = Grounding()
    stream, duration_s = open_recording(recording, settings, grounding)
    unfinished = f"{name}-{os.getpid()}"
    store = MemoryStore(root, unfinished, identity_of(model), keep=1)
    try:
        store.restore(lambda *_: None, lambda _: None)
        observer = Observer(model, evidence=store.evidence, frame_rate_hz=settings.frame_rate_hz, inline=True)
        start_ns = end_ns = 0
        for recorded_ns, observation in stream:
            start_ns, end_ns = start_ns or recorded_ns, max(end_ns, recorded_ns)
            observer.submit(observation)
            on_progress((end_ns - start_ns) / SECOND_NS, duration_s)
        observer.finish()
        with observer.still():
            tensors, values = observer.to_state()
        if not store.snapshot(State(tensors, values, observer.start_ns, observer.newest_ns)):
            raise OSError(store.problem)
        arrays, space = grounding.to_arrays()
        drops = observer.status().drops
        space |= {
            "picture_sizes": {source: list(size) for source, size in observer.intake.picture_sizes.items()},
            "notes": warnings_of(stream, drops) + details_of(stream, drops),
            "span": [observer.start_ns, observer.newest_ns],
        }
        save_file(arrays, root / unfinished / SPACE, {VALUES: json.dumps(space)})
        store.close()
        shutil.rmtree(root / name, ignore_errors=True)
        (root / unfinished).replace(root / name)
    except BaseException:
        store.close()
        shutil.rmtree(root / unfinished, ignore_errors=True)
        raise
    finally:
        stream.close()


def _open(settings: JobSettings, model: Any, root: Path, name: str, made: bool) -> RecordedMemory:
    store = MemoryStore(root, name, identity_of(model), keep=1)
    try:
        observer = Observer(model, evidence=store.evidence, frame_rate_hz=settings.frame_rate_hz, inline=True)
        report = store.restore(observer.restore, partial(retake_caption, observer))
        # Words that a server writes for a question stay for the next one.
        observer.on_caption = partial(_keep_caption, store)
        if report.snapshot is None:
            raise SnapshotError(f"{root / name} holds no memory; --fresh makes it anew")
        with safe_open(root / name / SPACE, "np") as source:
            arrays = {key: source.get_tensor(key) for key in source.keys()}  # noqa: SIM118 - not a dict
            space = json.loads(source.metadata()[VALUES])
        grounding = Grounding(dict(settings.mounts), ground_z_m=settings.ground_z_m)
        grounding.restore(arrays, space)
        observer.intake.picture_sizes.update({s: (int(w), int(h)) for s, (w, h) in space["picture_sizes"].items()})
        answerer = Answerer(
            observer,
            max_new_tokens=settings.network.max_new_tokens,
            grounding=grounding,
            server=server_reader(settings.server, observer, grounding),
        )
        os.utime(root / name)
        start_ns, end_ns = (int(stamp) for stamp in space["span"])
        notes = (*space["notes"], *report.notes)
        return RecordedMemory(observer, answerer, start_ns, end_ns, made, notes, root / name, store)
    except BaseException:
        store.close()
        raise


def _keep_caption(store: MemoryStore, key: str, text: str) -> None:
    store.append(caption_mark(key, text))


def _name(recording: Path, settings: JobSettings, model: Any) -> str:
    """Digest of all that a recording's memory depends on."""
    identity = identity_of(model)
    topics = (settings.cameras, settings.microphones, settings.pose, settings.map_id, settings.frame_rate_hz)
    part = [asdict(settings.part)] if settings.part != RecordingPart() else []
    record = [*part, code_version(), content_digest(recording), identity.to_dict(), model.network.device.type, topics]
    if settings.server.outside:
        record.append("log")  # the memory then holds an event log
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:32]


def content_digest(recording: Path) -> str:
    """Digest over sizes and samples of a recording's files; where it lies and what it is called do not matter."""
    digest = hashlib.sha256()
    for file in sorted(p for p in recording.rglob("*") if p.is_file()) if recording.is_dir() else [recording]:
        size = file.stat().st_size
        digest.update(f"{file.suffix} {size}\n".encode())
        with file.open("rb") as source:
            for i in range(SAMPLES):
                source.seek(max(0, (size - SAMPLE_BYTES) * i // (SAMPLES - 1)))
                digest.update(source.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _tidy(root: Path) -> None:
    """Delete the recordings that were asked longest ago, and what interrupted processes left."""
    whole = sorted((p for p in root.iterdir() if (p / SPACE).is_file() and "-" not in p.name), key=_asked)
    for folder in whole[: max(0, len(whole) - KEPT)]:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in root.glob("*-*"):
        pid = folder.name.rpartition("-")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _asked(folder: Path) -> float:
    return folder.stat().st_mtime


def save_pictures(folder: Path, question: str, pictures: Sequence[bytes]) -> list[Path | None]:
    """Write the pictures of an answer's evidence; the file names come from the question's digest. None: no picture."""
    stem = hashlib.sha256(question.encode()).hexdigest()[:8]
    paths: list[Path | None] = []
    for number, picture in enumerate(pictures):
        path = folder / f"{stem}-{number}.jpg" if picture else None
        if path is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture)
        paths.append(path)
    return paths
