"""An answer as a card of HTML: the value in large letters, outcome, confidence, latency, evidence. Text is escaped."""

from __future__ import annotations

import base64
import dataclasses
import enum
import html
import json
import math
from typing import Any

from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Evidence, Question, Region
from salmonn_node.ui.wording import OUTCOME_WORDS, ago, place, pose_words, seconds, span, value_of, when

ERROR_HINTS = {
    ErrorCode.TIMEOUT: "Give it more seconds, or ask about a shorter window.",
    ErrorCode.BUSY: "Other questions come first. Ask again in a moment.",
    ErrorCode.EMPTY_MEMORY: "Choose another window, or all cameras.",
}
LONG_VALUE = 40  # characters; longer values get smaller letters


def card(question: Question, answer: Answer, origin_ns: int = 0, sounds: bool = False) -> str:
    """The card of one answer.

    Args:
        question: what was asked.
        answer: what came back.
        origin_ns: times are shown in seconds since this stamp; 0: as time of day.
        sounds: whether the sound of audio evidence can be played; a button then asks for it.
    """
    value = value_of(answer, question.choices, origin_ns)
    parts = [f'<p class="q">{text(question.text)}</p>', _badge(answer)]
    parts.append(f'<p class="value{" long" if len(value) > LONG_VALUE else ""}">{text(value)}</p>')
    if answer.error_code != ErrorCode.NONE:
        parts.append(f"<p>{text(answer.error_msg)}</p>")
        if hint := ERROR_HINTS.get(answer.error_code, ""):
            parts.append(f'<p class="quiet">{hint}</p>')
        return f'<article class="card">{"".join(parts)}</article>'
    if answer.text and answer.text.lower() != value.lower():
        parts.append(f"<p>{text(answer.text)}</p>")
    if answer.pose is not None:
        parts.append(f"<p>{text(pose_words(answer))}</p>")
    if answer.event is not None and answer.answer_type != AnswerType.TIME:
        parts.append(f"<p>When: {text(span(answer.event, origin_ns))}.</p>")
    parts.append(_figures(answer, origin_ns))
    shown = "".join(
        evidence(piece, answer.last_observation_ns, origin_ns, number, sounds)
        for number, piece in enumerate(answer.evidence, 1)
    )
    if shown:
        parts.append(f'<h3>Evidence, strongest first</h3><ul class="evidence">{shown}</ul>')
    else:
        parts.append('<p class="quiet">There is no evidence to show.</p>')
    return f'<article class="card">{"".join(parts)}</article>'


def text(value: str) -> str:
    """Text for HTML, escaped."""
    return html.escape(value, quote=True)


def _badge(answer: Answer) -> str:
    if answer.error_code != ErrorCode.NONE:
        word, tone, meaning = answer.error_code.name, "bad", "There is no answer."
    else:
        word, tone, meaning = OUTCOME_WORDS[answer.outcome]
    return f'<p class="outcome"><span class="badge {tone}">{text(word)}</span> <span class="quiet">{meaning}</span></p>'


def _figures(answer: Answer, origin_ns: int) -> str:
    if math.isnan(answer.confidence):
        sure = "not calibrated"
    else:
        percent = round(100 * answer.confidence)
        sure = f'{percent} %<span class="meter" aria-hidden="true"><span style="width:{percent}%"></span></span>'
    rows = [("Confidence", sure), ("Took", text(seconds(answer.latency_s)))]
    if answer.last_observation_ns:
        read = span_of_memory(answer.memory_start_ns, answer.last_observation_ns, origin_ns)
        rows.append(("Memory read", text(read)))
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows)
    return f'<dl class="figures">{cells}</dl>'


def span_of_memory(start_ns: int, newest_ns: int, origin_ns: int) -> str:
    """From the first to the newest observation, in words."""
    return f"{when(start_ns, origin_ns)} to {when(newest_ns, origin_ns)}"


def evidence(piece: Evidence, now_ns: int, origin_ns: int, number: int = 0, sounds: bool = False) -> str:
    """One piece of evidence as a list item: the picture with its region, when, which sensor, where."""
    what = "camera" if piece.modality == "vision" else "microphone"
    facts = [
        f"<strong>{text(span(piece.interval, origin_ns))}</strong> "
        f'<span class="quiet">{text(ago(piece.interval.end_ns, now_ns)) if now_ns else ""}</span>',
        f"{what} {text(piece.source)}",
        text(place(piece.pose)),
    ]
    if number:
        facts.append(f"weight {100 * piece.score:.0f} %")
    mark = f'<span class="number">{number}</span>' if number else ""
    lines = "".join(f"<div>{fact}</div>" for fact in facts)
    return f'<li>{picture(piece, sounds)}<div class="facts">{mark}{lines}</div></li>'


def picture(piece: Evidence, sounds: bool = False) -> str:
    """The picture of a piece of evidence with its region drawn, or words where there is none."""
    if piece.modality == "audio":
        note = "Sound. Press Play below to hear it." if sounds else "Sound. The memory keeps no sound to play."
        return f'<div class="nopicture">{note}</div>'
    if not piece.thumbnail:
        return '<div class="nopicture">No picture was kept.</div>'
    data = base64.b64encode(piece.thumbnail).decode()
    about = text(f"Picture of camera {piece.source}" + (", the part that counts is framed" if piece.region else ""))
    box = _box(piece.region) if piece.region else ""
    return f'<div class="picture"><img alt="{about}" src="data:image/jpeg;base64,{data}">{box}</div>'


def _box(region: Region) -> str:
    rectangle = f'x="{region.x}" y="{region.y}" width="{region.width}" height="{region.height}"'
    # Two lines, a dark one under a light one, can be seen on every picture.
    return (
        f'<svg class="region" viewBox="0 0 {region.picture_width} {region.picture_height}" preserveAspectRatio="none" '
        f'aria-hidden="true"><rect class="under" {rectangle}/><rect class="over" {rectangle}/></svg>'
    )


def as_json(question: Question, answer: Answer) -> str:
    """Question and answer as JSON; pictures as their number of bytes."""
    both = {"question": plain(question), "answer": plain(answer)}
    return json.dumps(both, indent=2, ensure_ascii=False)


def as_python(question: Question, python_call: str) -> str:
    """The same question as a call of the Python client."""
    named = [f"answer_type=AnswerType.{question.answer_type.name}"]
    for name in ("choices", "sources"):
        if values := list(getattr(question, name)):
            named.append(f"{name}={values!r}")
    for name in ("after_ns", "before_ns"):
        if value := getattr(question, name):
            named.append(f"{name}={value}")
    named += [f"timeout_s={question.timeout_s:g}", "want_thumbnails=True"]
    return (
        "from salmonn_node.client import AnswerType, Memory\n\n"
        f"{python_call}\nanswer = memory.ask({question.text!r}, {', '.join(named)})\n"
    )


def plain(value: Any) -> Any:
    """JSON's types: names for enumerations, null for NaN, the number of bytes for pictures."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bytes):
        return {"bytes": len(value)}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    return value
