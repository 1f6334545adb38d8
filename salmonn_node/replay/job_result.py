"""What came of a job: answers, figures, what was lost or left out, for scores and report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from salmonn_node.evaluation.answer_file import Answered
from salmonn_node.evaluation.held import HeldTokens
from salmonn_node.replay.bag_stream import BagStream
from salmonn_node.replay.runner import ReplayRun
from salmonn_node.replay.video_stream import VideoStream
from salmonn_node.stream.frame_sampler import FrameFate
from salmonn_node.stream.observations import SECOND_NS

NOT_SAMPLED = FrameFate.NOT_SAMPLED.value  # the frame sampler at work: no loss


@dataclass
class JobResult:
    """What came of a job.

    Attributes:
        answers: in the order asked.
        held: question id -> what the memory held when it was asked.
        facts: figures of the run: speed, memory, checkpoint; none of them in answers.jsonl.
        timeline: (seconds since the start, kept tokens) of the memory at the end, by ten bins or more.
        warnings: what was chosen, missing, damaged or lost: for the terminal and the report.
        notes: what else was left out, for the report.
        account: topic -> messages promised, read, used and left out by reason.
        start_ns: stamp of the first observation.
    """

    name: str
    arm: str
    answers: list[Answered] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    held: dict[str, HeldTokens] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    timeline: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    account: dict[str, Any] = field(default_factory=dict)
    start_ns: int = 0
    interrupted: bool = False
    error: str = ""


def warnings_of(stream: BagStream | VideoStream, drops: Mapping[str, int]) -> list[str]:
    """What was chosen, missing, damaged or lost, one sentence each; `drops` are the observer's, by reason."""
    lost = [f"{count} observations dropped: {why}" for why, count in sorted(drops.items()) if why != NOT_SAMPLED]
    return stream.report.notes + stream.report.differences() + lost


def details_of(stream: BagStream | VideoStream, drops: Mapping[str, int]) -> list[str]:
    """What else was left out on purpose, one sentence each."""
    skipped = drops.get(NOT_SAMPLED, 0)
    return stream.report.details + ([f"{skipped} frames not looked at: {NOT_SAMPLED}"] if skipped else [])


def describe(result: JobResult, run: ReplayRun, stream: BagStream | VideoStream, known: int) -> None:
    """Fill in what the report says of a run; `known` answers are those of an earlier run."""
    observer = run.observer
    status, checkpoint = observer.status(), observer.model.checkpoint
    stream_s = (run.end_ns - run.start_ns) / SECOND_NS
    result.answers, result.timings, result.start_ns = run.answers, run.timings, run.start_ns
    result.interrupted = run.interrupted
    result.timeline = _timeline(observer.view(), run.start_ns, run.end_ns)
    result.facts = {
        "checkpoint": checkpoint.name,
        "trained": checkpoint.trained,
        "stream_s": stream_s,
        "speed": stream_s / run.ingest_s if run.ingest_s else None,
        "frames": status.frames,
        "audio_s": status.audio_s,
        "poses": status.poses,
        "tokens": list(status.tokens),
        "budgets": list(status.budgets),
        "drops": status.drops,
    }
    if isinstance(stream, BagStream):
        result.facts["objects"] = dict(stream.grounding.counts)
    result.account = stream.report.to_json()
    result.warnings += status.clock_faults + warnings_of(stream, status.drops)
    result.notes = details_of(stream, status.drops)
    result.notes += [f"{id}: asked {s:.1f} s behind the end of the stream, at its end" for id, s in run.late.items()]
    if known:
        result.notes.append(f"{known} answers are those of an earlier, interrupted run")
    if not (run.interrupted or status.frames or status.audio_s):
        result.error = "nothing of it was taken in, no picture and no sound"


def _timeline(view: Any, start_ns: int, end_ns: int, bins: int = 60) -> tuple[list[float], list[float]]:
    """Kept tokens over stream time."""
    seconds = max(1.0, (end_ns - start_ns) / SECOND_NS)
    counts = [0.0] * bins
    stamps = [batch.stamp_ns.tolist() for batch in (view.visual, view.audio) if batch is not None]
    for stamp_ns in (stamp for batch in stamps for stamp in batch):
        at = int((stamp_ns - start_ns) / SECOND_NS / seconds * bins)
        counts[min(max(at, 0), bins - 1)] += 1
    return [(i + 0.5) * seconds / bins for i in range(bins)], counts
