"""What `salmonn replay` prints when it is done: the scores of each arm, and a line for each recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from salmonn_node.replay.summary import Finished, judgements


def scores_table(arms: Mapping[str, Mapping[str, Any]], ran: set[str]) -> Table:
    """Accuracy, evidence and abstention of each arm over all recordings; arms outside `ran` gave no answer."""
    table = Table(title="Scores")
    for column in ("arm", "questions", "accuracy", "95 % interval", "evidence hit", "abstention F1"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm, scores in arms.items():
        row = scores["all"]
        if arm not in ran:
            table.add_row(arm, str(row["n"]), "not run", "", "", "")
            continue
        table.add_row(
            arm,
            str(row["n"]),
            f"{row['accuracy']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"{row['evidence_hit']:.3f}",
            f"{scores['abstention']['f1']:.3f}",
        )
    return table


def recordings_table(all_finished: Sequence[Finished]) -> Table:
    """Of each recording and arm: messages read of those promised, what was taken in, and how its questions went."""
    arms = {finished.job.settings.arm for finished in all_finished}
    table = Table(title="Recordings", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("recording", overflow="fold")
    if len(arms) > 1:
        table.add_column("arm")
    for column in ("messages", "frames", "sound", "right", "wrong", "abstained", "notes"):
        table.add_column(column, justify="right", no_wrap=True)
    for finished in all_finished:
        result, topics = finished.result, finished.result.account.values()
        judged = judgements(finished)
        right, abstained = sum(j.correct for j in judged), sum(j.abstained and not j.correct for j in judged)
        promised = [topic["promised"] for topic in topics]
        table.add_row(
            finished.job.name,
            *([finished.job.settings.arm] if len(arms) > 1 else []),
            f"{sum(topic['read'] for topic in topics)}/{'?' if None in promised else sum(promised)}",
            str(result.facts.get("frames", 0)),
            f"{result.facts.get('audio_s', 0.0):.0f} s",
            str(right),
            str(len(judged) - right - abstained),
            str(abstained),
            "failed" if result.error else str(len(result.warnings)),
        )
    return table
