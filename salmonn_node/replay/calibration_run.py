"""Ask a recording a team's own questions with nothing held back, to fit a calibration to the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from salmonn_node.answering.confidence import Calibration
from salmonn_node.answering.grounding import Grounding
from salmonn_node.evaluation.calibration_fit import JudgedAnswer
from salmonn_node.evaluation.head_choice import Located
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.evaluation.scores import judge
from salmonn_node.model.generation import WindowScores
from salmonn_node.replay.job import JobSettings, open_recording
from salmonn_node.replay.network import build
from salmonn_node.replay.runner import Progress, ReplayRun

# Heads are judged by these windows, those with the most attention of all heads together.
SCORED_WINDOWS = 32


def asked_of(
    recording: Path,
    questions: Sequence[tuple[QuestionRecord, str]],
    settings: JobSettings,
    on_progress: Callable[[Progress, float], None] = lambda progress, duration_s: None,
) -> tuple[list[JudgedAnswer], Calibration]:
    """Return the judged answers, and the calibration that the network has now (an empty one if it has none).

    Args:
        recording: a bag or a video.
        questions: (question, id of the question that it was made of) pairs.
        settings: which network, topics and rate.
        on_progress: called with the progress and the recording's length in seconds.

    Raises:
        ValueError: the recording or a setting cannot be used.
        FileNotFoundError: no such recording, or the checkpoint is not on this machine.
    """
    grounding = Grounding(dict(settings.mounts), ground_z_m=settings.ground_z_m)
    stream, duration_s = open_recording(recording, settings, grounding)
    try:
        observer, answerer = build(settings.network, settings.arm, settings.frame_rate_hz, grounding)
        base = answerer.calibration or Calibration(checkpoint=observer.model.checkpoint.id)
        raw = Calibration.raw(base.checkpoint)
        open_handed = {
            "shown_below": 0.0, "observed": None, "temperature": raw.temperature, "known_words": None, "heads": (),
        }  # fmt: skip
        answerer.calibration = base.model_copy(update=open_handed)
        answerer.scored_windows = SCORED_WINDOWS
        origins = {record.id: origin for record, origin in questions}
        records = {record.id: record for record, _ in questions}
        run = ReplayRun(observer, answerer, list(records.values()))
        asked = []
        for answered in run.run(stream, lambda progress: on_progress(progress, duration_s)):
            record = records[answered.id]
            signs = None if answerer.signs is None else dict(answerer.signs)
            located = _located(record, origins[record.id], answerer.windows)
            asked.append(JudgedAnswer(record, origins[record.id], judge(record, answered.answer), signs, located))
        return asked, base
    finally:
        stream.close()


def _located(record: QuestionRecord, origin: str, windows: WindowScores | None) -> Located | None:
    if windows is None or not record.evidence:
        return None
    return Located.of(origin, windows, [piece.interval for piece in record.evidence])
