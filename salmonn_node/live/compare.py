"""`salmonn replay --live`: do the live node and the offline replay give the same answers? Differences are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from salmonn_node.evaluation.answer_file import answer_to_json
from salmonn_node.replay.job import Job, run_job
from salmonn_node.stream.answers import Answer

if TYPE_CHECKING:
    from salmonn_node.live.live_replay import LiveRun

# What may differ without the answer being another: how far the stream had got when it was asked, and the frame whose
# pose it is, which a PoseWithCovarianceStamped does not carry.
_NOT_COMPARED = ("last_observation_ns", "memory_start_ns", "child_frame_id")


@dataclass(frozen=True)
class Comparison:
    """One question, live and offline.

    Attributes:
        differences: (place in the answer, value offline, value live), such as ("evidence[0].score", 0.5, 0.25).
    """

    id: str
    text: str
    differences: tuple[tuple[str, Any, Any], ...]


def compare(job: Job, offline: dict[str, Answer], live: dict[str, Answer]) -> list[Comparison]:
    """Compare the answers of a job's questions, value by value."""
    found = []
    for record in job.questions:
        one, two = (answer_to_json(side.get(record.id, Answer())) for side in (offline, live))
        found.append(Comparison(record.id, record.text, tuple(_differences(one, two))))
    return found


def run_live(jobs: Sequence[Job], console: Console, rate: float = 1.0) -> int:
    """Replay each job both ways and print what differs; 0 when nothing does, 1 otherwise, 2 when a bag is unusable."""
    import torch

    from salmonn_node.live.live_replay import ask_live, last_stamp

    # As the node that it is compared with: another number of threads adds numbers in another order.
    torch.set_num_threads(1)

    different = 0
    for job in jobs:
        try:
            last_ns = last_stamp(job)
            behind = sum(record.ask_ns > last_ns for record in job.questions)
            if behind:
                console.print(f"{job.name}: {behind} questions lie behind the end of the stream, asked at its end")
            job = asked_within(job, last_ns)
            console.print(f"{job.name}: offline", highlight=False)
            result = run_job(job)
            if result.error:
                raise ValueError(result.error)
            console.print(f"{job.name}: live, {rate:g} times as fast as recorded", highlight=False)
            live = ask_live(job, rate)
        except (ValueError, RuntimeError) as error:
            console.print(f"[red]{error}[/]", highlight=False)
            return 2
        compared = compare(job, {a.id: a.answer for a in result.answers}, live.answers)
        table = Table(title=job.name)
        for column in ("question", "same", "differs in"):
            table.add_column(column)
        for item in compared:
            table.add_row(item.text, "no" if item.differences else "yes", ", ".join(p for p, _, _ in item.differences))
        console.print(table)
        different += sum(bool(item.differences) for item in compared)
        for item in compared:
            for place, one, two in item.differences:
                console.print(f"{item.id} {place}: offline {one!r}, live {two!r}", highlight=False)
        told = explanation(live, result.facts["drops"]) or [
            "no message was lost, late or dropped otherwise than offline"
        ]
        for line in told:
            console.print(f"{job.name}: {line}", highlight=False)
    console.print(f"{different} of {sum(len(job.questions) for job in jobs)} answers differ between live and offline")
    return 1 if different else 0


def asked_within(job: Job, last_ns: int) -> Job:
    """The job with each question that lies behind the end of the stream asked at its end."""
    at = [min(record.ask_ns, last_ns) for record in job.questions]
    moved = (record.model_copy(update={"ask_ns": ns}) for record, ns in zip(job.questions, at, strict=True))
    return replace(job, questions=tuple(moved))


def explanation(live: LiveRun, offline_drops: Mapping[str, int]) -> list[str]:
    """What was otherwise live than offline, so that answers may differ; empty when nothing was."""
    lines = [f"{n} messages of {topic} were lost on their way" for topic, n in live.lost.items()]
    lines += [
        f"{n} observations of {source} came after a view that they belonged to" for source, n in live.late.items()
    ]
    for reason in sorted({*live.drops, *offline_drops}):
        here, there = live.drops.get(reason, 0), offline_drops.get(reason, 0)
        if here != there:
            lines.append(f"{reason}: {here} observations were dropped live, {there} offline")
    return lines


def _differences(offline: Any, live: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each value in which two answers differ, with its place; numbers as messages carry scores, in float32."""
    if isinstance(offline, dict) and isinstance(live, dict) and offline.keys() == live.keys():
        for name in offline:
            if name not in _NOT_COMPARED:
                yield from _differences(offline[name], live[name], f"{path}.{name}" if path else name)
    elif isinstance(offline, list) and isinstance(live, list) and len(offline) == len(live):
        for number, (one, two) in enumerate(zip(offline, live, strict=True)):
            yield from _differences(one, two, f"{path}[{number}]")
    elif isinstance(offline, float) and isinstance(live, float):
        if np.float32(offline) != np.float32(live):
            yield path, offline, live
    elif offline != live:
        yield path, offline, live
