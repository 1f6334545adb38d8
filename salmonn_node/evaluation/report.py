"""Report: a self-contained HTML page of a replay, with scores, arms, plots, memory timeline, questions and evidence.

The page needs no network, because it contains plotly's script. Jinja2 escapes all text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from salmonn_node.evaluation.held import HeldTokens
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.evaluation.report_plots import plots
from salmonn_node.evaluation.report_rows import TRACK_HEIGHT, TRACK_WIDTH, causes, row_of
from salmonn_node.evaluation.scores import Judgement
from salmonn_node.stream.answers import Answer


@dataclass(frozen=True)
class ReportEntry:
    """One question of the report.

    Attributes:
        record, answer, judgement: the question, its answer, and the judgement.
        bag: name of the bag.
        start_ns: stamp at which the page's stream time starts.
        held: what the memory held when the question was asked; None if it was not measured.
    """

    record: QuestionRecord
    answer: Answer
    judgement: Judgement
    bag: str
    start_ns: int
    held: HeldTokens | None = None


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows.

    Attributes:
        title: heading.
        warning: text of a banner, for example that the weights are untrained. Empty for no banner.
        facts: name -> value, in the order shown (checkpoint, bags, speed, memory...).
        scores: result of `scores.score` for this run.
        arms: scores by arm, for the table and the plots. May hold only this run.
        entries: every question.
        timelines: by bag, (seconds since its start, kept tokens) of the memory at the end.
        notes: sentences about what was dropped, skipped or cut.
    """

    title: str
    warning: str
    facts: Mapping[str, str]
    scores: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]]
    entries: Sequence[ReportEntry]
    timelines: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def render(data: ReportData) -> str:
    """Render the page as one string of HTML.

    Raises:
        RuntimeError: Jinja2 or plotly is not installed (extra `report`).
    """
    try:
        from jinja2 import Environment
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise RuntimeError(f"the report needs {error.name}: pip install 'salmonn_node[report]'") from None
    source = resources.files("salmonn_node.evaluation").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda v: "–" if v is None or math.isnan(v) else f"{100 * v:.1f} %"
    environment.filters["number"] = lambda v: "–" if v is None or math.isnan(v) else f"{v:.2f}"
    return environment.from_string(source).render(
        data=data,
        plotly=get_plotlyjs(),
        plots=plots(data),
        rows=[row_of(entry) for entry in data.entries],
        causes=causes(data.entries),
        track=(TRACK_WIDTH, TRACK_HEIGHT),
    )
