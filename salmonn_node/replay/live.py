"""`salmonn replay --live`: do the live node and the offline replay give the same answers? Differences are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from salmonn_node.replay.answer_file import answer_to_json
from salmonn_node.replay.job import Job, run_job
from salmonn_node.stream.answers import Answer

# What may differ without the answer being another: how far the stream had got when it was asked.
_OF_THE_MOMENT = ("last_observation_ns", "memory_start_ns")


@dataclass(frozen=True)
class Comparison:
    """One question, live and offline.

    Attributes:
        fields: names of the fields in which the two answers differ; empty when they are equal.
    """

    id: str
    text: str
    offline: dict[str, Any]
    live: dict[str, Any]
    fields: tuple[str, ...]


def compare(job: Job, offline: dict[str, Answer], live: dict[str, Answer]) -> list[Comparison]:
    """Compare the answers of a job's questions, field by field; confidences and scores to six digits."""
    found = []
    for record in job.questions:
        one, two = (_rounded(answer_to_json(side.get(record.id, Answer()))) for side in (offline, live))
        fields = tuple(n for n in one if n not in _OF_THE_MOMENT and one[n] != two[n])
        found.append(Comparison(record.id, record.text, one, two, fields))
    return found


def run_live(jobs: Sequence[Job], console: Console) -> int:
    """Replay each job both ways and print what differs; 0 when nothing does, 1 otherwise, 2 when a bag is unusable."""
    from salmonn_node.ros.live_replay import ask_live

    different = 0
    for job in jobs:
        console.print(f"{job.name}: offline", highlight=False)
        result = run_job(job)
        if result.error:
            console.print(f"[red]{result.error}[/]", highlight=False)
            return 2
        console.print(f"{job.name}: live, as fast as recorded", highlight=False)
        live = ask_live(job)
        compared = compare(job, {a.id: a.answer for a in result.answers}, live)
        table = Table(title=job.name)
        for column in ("question", "same", "differs in"):
            table.add_column(column)
        for item in compared:
            table.add_row(item.text, "no" if item.fields else "yes", ", ".join(item.fields))
        console.print(table)
        different += sum(bool(item.fields) for item in compared)
        for item in compared:
            for field in item.fields:
                console.print(f"{item.id} {field}: offline {item.offline[field]!r}, live {item.live[field]!r}")
    console.print(f"{different} answers differ between live and offline")
    return 1 if different else 0


def _rounded(value: Any) -> Any:
    """Numbers to six digits: messages carry scores as float32."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
