"""The jobs of a replay: one for each recording and arm, each with the questions of its recording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.replay.job import Job, JobSettings


def jobs_of(
    recordings: Sequence[Path],
    questions: Sequence[QuestionRecord],
    settings: JobSettings,
    arms: Sequence[str],
    output: Path,
) -> list[Job]:
    """A job for each arm and recording; a question without a stream is asked of every recording.

    Args:
        recordings: bags and videos; each is known by the name of its folder or file.
        questions: each belongs to the recording that its `stream` names.
        settings: what all jobs share; each gets its own arm.
        arms: names, as `evaluation.arms.arm_names` gives them.
        output: folder of the results; a job writes to ARM/RECORDING in it.

    Raises:
        ValueError: two recordings of one name, or a question whose stream is none of the recordings.
    """
    names = [path.stem if path.is_file() else path.name for path in recordings]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two recordings are called {twice[0]}, and results are kept by name; rename one of them")
    streams = sorted({q.stream for q in questions if q.stream})
    lost = [stream for stream in streams if stream not in names]
    # A single bag may have another name than the one its questions were made with.
    if lost and not (len(names) == 1 and streams == lost and len(lost) == 1):
        raise ValueError(f"questions ask about {', '.join(lost)}, which is none of the recordings: {', '.join(names)}")
    jobs = []
    for arm in arms:
        for name, path in zip(names, recordings, strict=True):
            own = tuple(q for q in questions if len(names) == 1 or q.stream in ("", name))
            jobs.append(Job(path, own, replace(settings, arm=arm), output / arm / name))
    return jobs
