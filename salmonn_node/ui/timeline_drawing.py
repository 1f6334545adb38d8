"""The timeline as HTML: per camera and microphone what was observed, what is still held, events, gaps, evidence."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from salmonn_node.stream.kept_timeline import KeptTimeline, SourceRow
from salmonn_node.stream.observations import SECOND_NS, Interval
from salmonn_node.ui.answer_card import text
from salmonn_node.ui.source import Exchange
from salmonn_node.ui.wording import seconds, when

TICKS = 5
MARKED_ANSWERS = 5
LEAST_GAP_NS = 5 * SECOND_NS  # a slow camera gives a frame every few seconds


def drawing(
    timeline: KeptTimeline, asked: Sequence[Exchange] = (), chosen: Interval | None = None, origin_ns: int = 0
) -> str:
    """The whole timeline; page.js lets one choose a window on it, and a moment.

    Args:
        timeline: what is held.
        asked: the last answers, newest first; their evidence is marked.
        chosen: the window that is chosen.
        origin_ns: times are shown in seconds since this stamp; 0: as time of day.
    """
    whole = timeline.span
    if whole is None:
        return '<p class="quiet">Nothing is remembered yet.</p>'
    rows = "".join(_row(row, timeline, asked, chosen, whole) for row in timeline.rows)
    ticks = "".join(
        f"<span>{text(when(whole.start_ns + (whole.end_ns - whole.start_ns) * tick // (TICKS - 1), origin_ns))}</span>"
        for tick in range(TICKS)
    )
    unit = seconds(timeline.bin_ns / 1e9)
    return (
        f'<div class="timeline" data-start="{whole.start_ns}" data-end="{whole.end_ns}" data-bins="{timeline.bins}">'
        f'{rows}<div class="ticks"><div></div><div class="scale" aria-hidden="true">{ticks}</div></div></div>'
        f'<p class="legend"><span class="key seen"></span> observed <span class="key kept"></span> still held, tokens '
        f'per {unit} <span class="key gap"></span> nothing observed <span class="key event"></span> an event begins '
        f'<span class="key mark"></span> evidence of the last answers</p>'
    )


def _row(
    row: SourceRow, timeline: KeptTimeline, asked: Sequence[Exchange], chosen: Interval | None, whole: Interval
) -> str:
    bins, top = len(row.moments), max([1, *row.kept_tokens])
    bars, seen, gaps = [], [], []
    observed = _observed([row], timeline.bin_ns)
    for number, (kept, events) in enumerate(zip(row.kept_tokens, row.events, strict=True)):
        if observed[number]:
            seen.append(f'<rect class="seen" x="{number}" y="0" width="1.02" height="100"/>')
        else:
            gaps.append(f'<rect class="gap" x="{number}" y="88" width="1.02" height="12"/>')
        if kept:
            height = max(6.0, 84.0 * kept / top)
            bars.append(f'<rect class="kept" x="{number}" y="{100 - height:.1f}" width="0.9" height="{height:.1f}"/>')
        if events:
            bars.append(f'<rect class="event" x="{number + 0.25}" y="2" width="0.5" height="9"/>')
    marks = "".join(
        _mark(piece.interval, whole, age, number)
        for age, item in enumerate(asked[:MARKED_ANSWERS])
        for number, piece in enumerate(item.answer.evidence, 1)
        if piece.source == row.source
    )
    window = f'<div class="chosen" style="{_style(chosen, whole)}"></div>' if chosen else ""
    what = "camera" if row.modality == "vision" else "microphone"
    about = (
        f"{row.source}: {sum(row.kept_tokens)} tokens held, {sum(row.events)} events, {sum(row.moments)} moments. "
        "Arrow keys move, Shift with arrows chooses a window, Enter shows the moment."
    )
    return (
        f'<div class="row"><div class="name">{text(row.source)}<small>{what}<br>{sum(row.kept_tokens)} tokens'
        f"<br>{sum(row.events)} events</small></div>"
        f'<div class="plot" tabindex="0" role="group" data-source="{text(row.source)}" aria-label="{text(about)}">'
        f'<svg viewBox="0 0 {bins} 100" preserveAspectRatio="none" aria-hidden="true">'
        f'{"".join(seen)}{"".join(gaps)}{"".join(bars)}</svg>{marks}{window}<div class="cursor"></div></div></div>'
    )


def _mark(interval: Interval, whole: Interval, age: int, number: int) -> str:
    if not interval.overlaps(whole):
        return ""
    return f'<div class="mark{" old" if age else ""}" style="{_style(interval, whole)}">{"" if age else number}</div>'


def _style(interval: Interval, whole: Interval) -> str:
    length = max(1, whole.end_ns - whole.start_ns)
    left = min(max(interval.start_ns - whole.start_ns, 0), length) / length
    right = min(max(interval.end_ns - whole.start_ns, 0), length) / length
    return f"left:{100 * left:.3f}%;width:{100 * (right - left):.3f}%"


def _observed(rows: Sequence[SourceRow], bin_ns: int) -> list[bool]:
    """For each bin whether something was observed; a hole shorter than LEAST_GAP_NS is none."""
    counts = [sum(row.moments[n] + row.kept_tokens[n] for row in rows) for n in range(len(rows[0].moments))]
    found: list[bool] = []
    for some, run in itertools.groupby(counts, bool):
        length = len(list(run))
        found += [some or length * bin_ns < LEAST_GAP_NS] * length
    return found


def gaps(timeline: KeptTimeline) -> list[Interval]:
    """Stretches within the timeline in which no source gave anything."""
    found: list[Interval] = []
    for number, observed in enumerate(_observed(timeline.rows, timeline.bin_ns) if timeline.rows else ()):
        start_ns = timeline.start_ns + number * timeline.bin_ns
        if not observed and found and found[-1].end_ns == start_ns:
            found[-1] = Interval(found[-1].start_ns, start_ns + timeline.bin_ns)
        elif not observed:
            found.append(Interval(start_ns, start_ns + timeline.bin_ns))
    return found


def held_within(timeline: KeptTimeline, interval: Interval) -> tuple[int, int]:
    """About how many tokens and moments are held in an interval: whole bins that touch it."""
    tokens = moments = 0
    for number in range(timeline.bins):
        start_ns = timeline.start_ns + number * timeline.bin_ns
        if interval.overlaps(Interval(start_ns, start_ns + timeline.bin_ns - 1)):
            tokens += sum(row.kept_tokens[number] for row in timeline.rows)
            moments += sum(row.moments[number] for row in timeline.rows)
    return tokens, moments
