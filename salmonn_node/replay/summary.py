"""Results of jobs into scores and a report: one judgement a question, every question counts."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from salmonn_node.evaluation.report import ReportData, ReportEntry, render
from salmonn_node.evaluation.scores import Judgement, judge, score
from salmonn_node.replay.job import Job
from salmonn_node.replay.job_pictures import with_pictures
from salmonn_node.replay.job_result import JobResult
from salmonn_node.stream.answers import Answer, ErrorCode


@dataclass(frozen=True)
class Finished:
    """A job with what came of it."""

    job: Job
    result: JobResult


def judgements(finished: Finished) -> list[Judgement]:
    """Judge every question of a job; one that got no answer (a bag that could not be read) is wrong."""
    answers = {a.id: a.answer for a in finished.result.answers}
    timings = finished.result.timings
    judged = []
    for record in finished.job.questions:
        answer = answers.get(record.id)
        if answer is not None:
            answer = replace(answer, latency_s=timings.get(record.id, math.nan))
        held = finished.result.held.get(record.id)
        kept = held.kept(record) if held is not None else None
        judged.append(judge(record.model_copy(update={"stream": finished.job.name}), answer, kept))
    return judged


def score_arms(all_finished: Sequence[Finished]) -> dict[str, dict[str, Any]]:
    """Scores by arm, over all bags."""
    by_arm: dict[str, list[Judgement]] = defaultdict(list)
    for finished in all_finished:
        by_arm[finished.job.settings.arm].extend(judgements(finished))
    return {arm: score(judged) for arm, judged in by_arm.items()}


def write_scores(folder: Path, all_finished: Sequence[Finished]) -> dict[str, dict[str, Any]]:
    """Write scores.json into `folder`; returns the scores by arm."""
    arms = score_arms(all_finished)
    folder.mkdir(parents=True, exist_ok=True)
    scores = {arm: {**tables, "recordings": _recordings(all_finished, arm)} for arm, tables in arms.items()}
    (folder / "scores.json").write_text(json.dumps(_finite(scores), indent=1) + "\n")
    return arms


def write_report(folder: Path, all_finished: Sequence[Finished], arms: dict[str, dict[str, Any]], title: str) -> None:
    """Write report.html into `folder`, with the scores of `write_scores`.

    Raises:
        RuntimeError: Jinja2 or plotly is not installed (extra `report`).
    """
    (folder / "report.html").write_text(render(report_data(all_finished, arms, title)), encoding="utf-8")


def _recordings(all_finished: Sequence[Finished], arm: str) -> dict[str, Any]:
    """What became of each recording: messages promised, read and used by topic, and what went wrong."""
    return {
        f.result.name: {"error": f.result.error, "topics": f.result.account, "warnings": f.result.warnings}
        for f in all_finished
        if f.job.settings.arm == arm
    }


def warnings(all_finished: Sequence[Finished]) -> list[str]:
    """What the user must know besides the scores, a line each; arms of one recording say the same only once."""
    lines = [f"{f.result.name}: {warning}" for f in all_finished for warning in f.result.warnings]
    return list(dict.fromkeys(lines))


def report_data(all_finished: Sequence[Finished], arms: dict[str, dict[str, Any]], title: str) -> ReportData:
    """What the page shows: tables of all arms, questions and timelines of the first."""
    first_arm = all_finished[0].job.settings.arm
    shown = [f for f in all_finished if f.job.settings.arm == first_arm]
    facts: dict[str, str] = {}
    notes: list[str] = []
    entries: list[ReportEntry] = []
    for finished in shown:
        job, result = finished.job, finished.result
        if result.error:
            notes.append(f"{result.name} was not replayed: {result.error}")
        notes += [f"{result.name}: {note}" for note in [*result.warnings, *result.notes]]
        facts.update(_facts(result))
        answers = {a.id: a.answer for a in result.answers}
        for record, judgement in zip(job.questions, judgements(finished), strict=True):
            answer = answers.get(record.id, Answer(error_code=ErrorCode.MODEL_ERROR, error_msg="no answer came"))
            shown_answer = with_pictures(job.folder, record.id, answer)
            held = result.held.get(record.id)
            entries.append(ReportEntry(record, shown_answer, judgement, result.name, result.start_ns, held))
    untrained = any(f.result.facts.get("trained") is False for f in all_finished)
    return ReportData(
        title=title,
        warning="The checkpoint has untrained weights: these answers are chance." if untrained else "",
        facts=facts,
        scores=arms[first_arm],
        arms=arms,
        entries=entries,
        timelines={f.result.name: f.result.timeline for f in shown if f.result.timeline[0]},
        notes=notes,
    )


def _facts(result: JobResult) -> dict[str, str]:
    facts = result.facts
    if not facts:
        return {}
    speed = f", {facts['speed']:.0f}x real time" if facts["speed"] else ""
    visual, audio = facts["tokens"]
    visual_budget, audio_budget = facts["budgets"]
    return {
        "checkpoint": f"{facts['checkpoint']}, {'trained' if facts['trained'] else 'untrained weights'}",
        result.name: (
            f"{facts['stream_s']:.0f} s, {facts['frames']} frames, {facts['audio_s']:.0f} s of sound{speed}; "
            f"memory {visual} of {visual_budget} visual and {audio} of {audio_budget} audio tokens"
        ),
    }


def _finite(value: Any) -> Any:
    """NaN as null, so that any JSON reader takes the file."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
