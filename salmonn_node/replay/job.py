"""One bag through one arm, as a job: answers and timings on disk as they come, so that an interrupted one resumes.

A job that was interrupted keeps its answers. Run again with the same settings it takes the recording in anew (the
memory is a function of the recording) and asks only what is missing. Other settings, and other code, start afresh.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from salmonn_node.answering.grounding import Grounding
from salmonn_node.answering.server_settings import ServerSettings
from salmonn_node.evaluation.answer_file import Answered, read_answers, to_line, write_answers
from salmonn_node.evaluation.held import held_tokens
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.model.network_settings import NetworkSettings
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.replay.code_version import code_version
from salmonn_node.replay.evaluation_mcap import write_evaluation
from salmonn_node.replay.evaluation_topics import Evaluation, StatusTrack
from salmonn_node.replay.job_pictures import save_pictures, with_pictures
from salmonn_node.replay.job_result import JobResult, describe
from salmonn_node.replay.network import build
from salmonn_node.replay.recording_part import RecordingPart
from salmonn_node.replay.runner import Progress, ReplayRun
from salmonn_node.replay.server import caption_before, write_page
from salmonn_node.replay.video_stream import VideoStream, is_video


@dataclass(frozen=True)
class JobSettings:
    """What a job's answers depend on, besides the recording and the questions.

    Attributes:
        network: which network answers, where it runs, and how much it remembers.
        arm: how the memory is kept and read, see `evaluation.arms.arm_names`; "default" is the checkpoint's own way.
        cameras, microphones, pose, map_id: topics and map, found by type when left out.
        frame_rate_hz: frames looked at per second and camera.
        mounts: (camera, (x, y, z, roll, pitch, yaw) of its optical frame in base_link, m and rad); else from the bag's
            tf.
        ground_z_m: height of the plane that objects stand on.
        stamp_offsets: (source, seconds added to its stamps), for a clock that is off by a steady offset.
        part: the part of the recording that is read.
        server: whether a server answers, and which.
        captions: most captions that the server writes before each question.
        explain: write what was sent for each question as a page.
    """

    network: NetworkSettings = field(default_factory=NetworkSettings)
    arm: str = "default"
    cameras: tuple[str, ...] = ()
    microphones: tuple[str, ...] = ()
    pose: str | None = None
    map_id: str = ""
    frame_rate_hz: float = 1.0
    mounts: tuple[tuple[str, tuple[float, ...]], ...] = ()
    ground_z_m: float = 0.0
    stamp_offsets: tuple[tuple[str, float], ...] = ()
    part: RecordingPart = field(default_factory=RecordingPart)
    server: ServerSettings = field(default_factory=ServerSettings)
    captions: int = 0
    explain: bool = False


@dataclass(frozen=True)
class Job:
    """A recording, its questions, the settings, and the folder for what comes of it.

    Attributes:
        mcap: file for the recording with the answers on its timeline; None writes none.
    """

    recording: Path
    questions: tuple[QuestionRecord, ...]
    settings: JobSettings
    folder: Path
    mcap: Path | None = None

    @property
    def name(self) -> str:
        """The recording's name."""
        return self.recording.stem if self.recording.is_file() else self.recording.name

    def key(self, network: str) -> str:
        """What the answers of an earlier run must have been made with to be used again.

        Args:
            network: tells weights and calibration from others of the same name.
        """
        record = {
            "network": network,
            "settings": asdict(self.settings),
            "recording": [str(self.recording.resolve()), _stamps(self.recording)],
            "questions": [q.model_dump_json() for q in self.questions],
        }
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def run_job(
    job: Job,
    on_progress: Callable[[Progress, float], None] = lambda progress, duration_s: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> JobResult:
    """Run a job; a recording that cannot be read gives a result with `error`, never an exception.

    Args:
        job: what to run.
        on_progress: called with the progress and the recording's length in seconds.
        should_stop: asked between observations; answers given so far stay on disk.
    """
    result = JobResult(job.name, job.settings.arm)
    try:
        _run(job, result, on_progress, should_stop)
    except (OSError, ValueError, RuntimeError) as error:
        result.error = str(error)
    return result


def _run(
    job: Job,
    result: JobResult,
    on_progress: Callable[[Progress, float], None],
    should_stop: Callable[[], bool],
) -> None:
    settings = job.settings
    grounding = Grounding(dict(settings.mounts), ground_z_m=settings.ground_z_m)
    stream, duration_s = open_recording(job.recording, settings, grounding)
    job.folder.mkdir(parents=True, exist_ok=True)
    answers_file, key_file = job.folder / "answers.jsonl", job.folder / "job.json"
    observer, answerer = build(settings.network, settings.arm, settings.frame_rate_hz, grounding, settings.server)
    calibration = answerer.calibration
    key = job.key(observer.model.checkpoint.id + ("" if calibration is None else calibration.model_dump_json()))
    known: dict[str, Answered] = {}
    code = code_version()
    earlier = _earlier(key_file) if answers_file.exists() else {}
    if earlier.get("key") == key and earlier.get("code") == code:
        known = {answered.id: answered for answered in read_answers(answers_file)}
    elif earlier.get("key") == key:
        other = earlier.get("code", "an unknown version")
        result.warnings.append(f"the answers in {job.folder} are of {other}; all are asked again, by {code}")
    key_file.write_text(json.dumps({"key": key, "code": code, "settings": asdict(settings)}, indent=1))
    before_ask = caption_before(observer, answerer, settings.captions)
    run = ReplayRun(observer, answerer, job.questions, known, want_thumbnails=True, before_ask=before_ask)
    track = StatusTrack(observer)
    if job.mcap:
        run.on_observed = track
    run.on_asked = lambda record, view: result.held.update({record.id: held_tokens(view, record, run.start_ns)})
    try:
        with answers_file.open("w", encoding="utf-8") as file:
            for answered in run.run(stream, lambda p: on_progress(p, duration_s), should_stop):
                file.write(to_line(answered) + "\n")
                file.flush()
                save_pictures(job.folder, answered)
                if settings.explain and answered.id not in known:
                    texts = {question.id: question.text for question in job.questions}
                    name = hashlib.sha256(answered.id.encode()).hexdigest()[:12]
                    write_page(job.folder / "sent" / f"{name}.html", texts[answered.id], answered.answer, answerer)
    finally:
        stream.close()
    if run.interrupted:
        # What an earlier run had answered beyond this point stays known.
        kept = {a.id: a for a in run.answers} | {k: v for k, v in known.items()}
        write_answers(answers_file, [kept[q.id] for q in _in_order(job.questions) if q.id in kept])
    describe(result, run, stream, len(known))
    if job.mcap and not run.interrupted and not result.error:
        track(run.end_ns, last=True)
        result.notes += _write_mcap(job, job.mcap, run, track)
    (job.folder / "timings.json").write_text(
        json.dumps({"answer_s": run.timings, "ingest_s": run.ingest_s, **result.facts}, indent=1)
    )


def _write_mcap(job: Job, path: Path, run: ReplayRun, track: StatusTrack) -> list[str]:
    """Write the evaluation's file. Answers of an earlier run are completed: their pictures lie in the folder."""
    answers = []
    for known in run.answers:
        log_ns, answer = run.answered_ns[known.id], with_pictures(job.folder, known.id, known.answer)
        answer = replace(answer, memory_id=answer.memory_id or track.memory_id(log_ns))
        answers.append((log_ns, replace(known, answer=answer)))
    checkpoint = run.observer.model.checkpoint
    questions = {question.id: question for question in job.questions}
    where = job.settings.server.where
    evaluation = Evaluation(questions, answers, track.statuses, checkpoint.id, checkpoint.trained, run.start_ns, where)
    return write_evaluation(path, job.recording, evaluation, job.settings.part)


def open_recording(
    recording: Path, settings: JobSettings, grounding: Grounding
) -> tuple[BagStream | VideoStream, float]:
    """A recording's observations, and its length in seconds; `grounding` gets a bag's CameraInfo and tf."""
    if is_video(recording):
        if settings.part != RecordingPart():
            raise ValueError(f"{recording} is a video; topics and stretches are of bags: salmonn bag make VIDEO BAG")
        video = VideoStream(recording)
        return video, video.duration_s
    bag = BagStream(
        recording,
        cameras=settings.cameras,
        microphones=settings.microphones,
        pose=settings.pose,
        map_id=settings.map_id,
        grounding=grounding,
        stamp_offsets=dict(settings.stamp_offsets),
        part=settings.part,
    )
    return bag, bag.duration_s


def _earlier(key_file: Path) -> dict[str, Any]:
    """What an earlier run was made with; empty where there was none, or where its file was cut off or altered."""
    try:
        found = json.loads(key_file.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _in_order(questions: tuple[QuestionRecord, ...]) -> list[QuestionRecord]:
    return sorted(questions, key=lambda record: (record.ask_ns, record.id))


def _stamps(path: Path) -> list[list[object]]:
    """Name, size and time of change of a recording's files."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files if file.exists()]
