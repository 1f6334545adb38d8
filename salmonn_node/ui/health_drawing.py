"""What /diagnostics and MemoryStatus say, as a person reads it: sentences, levels and a few bars, as HTML."""

from __future__ import annotations

import time
from collections.abc import Mapping

from salmonn_node.stream.observations import SECOND_NS
from salmonn_node.ui.answer_card import text
from salmonn_node.ui.source import ERROR, OK, STALE, WARNING, MemoryFacts, Part, SourceState
from salmonn_node.ui.wording import EPOCH_NS, seconds, when

LEVELS = {OK: ("Fine", "good"), WARNING: ("Attention", "warn"), ERROR: ("Broken", "bad"), STALE: ("Silent", "quiet")}
DROP_WORDS = {
    "not_sampled": "not looked at, which is normal: the sampler takes a few frames a second",
    "queue_full": "lost because the encoder is too slow",
    "encode_failed": "lost because the encoder failed",
    "device_failed": "lost because the device failed",
    "stamp_zero": "refused: the driver does not stamp its messages",
}
QUESTION_WORDS = {"open": "open now", "watches": "watches", "latency_p50_s": "usual time", "latency_max_s": "longest"}


def drawing(state: SourceState, origin_ns: int = 0) -> str:
    """All of it."""
    word, tone = ("Connected", "good") if state.reachable else ("Not connected", "bad")
    cards = [memory_card(state.facts, origin_ns)] if state.facts is not None else []
    for part in state.health:
        if part.name == "questions":
            cards.append(_questions(part))
        elif part.name == "memory":
            cards.append(_encoding(part))
        elif not part.name.startswith("input ") and (part.level != OK or part.name == "space"):
            cards.append(_card(part.name.capitalize(), part.level, part.message, _table(part.values)))
    inputs = [part for part in state.health if part.name.startswith("input ")]
    return (
        f'<p><span class="badge {tone}">{word}</span> {text(state.text)}</p>{_list(state.notes)}'
        f'<div class="flow">{"".join(cards)}</div>{_inputs(inputs) if inputs else ""}'
    )


def memory_card(facts: MemoryFacts, origin_ns: int = 0) -> str:
    """What the memory holds, which weights answer, who reads, what runs the encoders, and the state on disk."""
    lines = [
        f"{facts.frames} frames, {seconds(facts.audio_s)} of sound and {facts.poses} poses were taken in"
        + (
            f" from {when(facts.start_ns, origin_ns)} to {when(facts.newest_ns, origin_ns)}."
            if facts.newest_ns
            else "."
        ),
        f"Session {facts.session}, memory {facts.memory_id}.",
    ]
    body = "".join(f"<p>{text(line)}</p>" for line in lines)
    body += bar("Visual tokens", facts.visual_tokens, facts.visual_budget)
    body += bar("Sound tokens", facts.audio_tokens, facts.audio_budget)
    if facts.drops:
        body += f"<h4>Left out</h4>{_list(drop_words(facts.drops))}"
    trained = "trained weights" if facts.checkpoint_trained else "UNTRAINED weights: what it answers means nothing"
    rows = {"Network": f"{facts.checkpoint_id}, {trained}"}
    for name, backend, reason in (
        ("Vision encoder", facts.vision_backend, facts.vision_backend_reason),
        ("Sound encoder", facts.audio_backend, facts.audio_backend_reason),
    ):
        if backend:
            rows[name] = f"{backend}, because {reason}" if reason else backend
    if facts.reader:
        rows["Reader"] = facts.reader
    rows["On disk"] = facts.persistence or "nothing"
    if facts.last_snapshot_ns:
        rows["Newest snapshot"] = snapshot_age(facts.last_snapshot_ns, time.time_ns())
    level = OK if facts.checkpoint_trained and facts.persistence in ("on", "off", "read only", "") else WARNING
    return _card("Memory", level, "", body + _table(rows))


def snapshot_age(stamp_ns: int, now_ns: int) -> str:
    """How old a snapshot is; its stamp is wall time."""
    if stamp_ns < EPOCH_NS:
        return "none"
    return f"{seconds(max(0, now_ns - stamp_ns) / SECOND_NS)} old"


def bar(name: str, value: int, most: int) -> str:
    """A bar of how full something is, in words as well."""
    full = round(100 * value / most) if most else 0
    percent = min(100, full)
    return (
        f'<div class="bar"><span>{text(name)}: {value} held, budget {most} ({full} %)</span>'
        f'<span class="meter" aria-hidden="true"><span style="width:{percent}%"></span></span></div>'
    )


def drop_words(drops: Mapping[str, int]) -> list[str]:
    """Drops by reason, in words."""
    return [f"{count}: {DROP_WORDS.get(reason, reason.replace('_', ' '))}" for reason, count in sorted(drops.items())]


def _inputs(parts: list[Part]) -> str:
    rows = []
    for part in parts:
        values = part.values
        word, tone = LEVELS.get(part.level, LEVELS[WARNING])
        drops = {
            key.removeprefix("dropped."): int(value)
            for key, value in values.items()
            if key.startswith("dropped.") and value.isdecimal()
        }
        missing = f"{100 * _number(values, 'missing_share'):.0f} %"
        rows.append(
            f'<tr><th scope="row">{text(part.name.removeprefix("input "))}</th>'
            f'<td><span class="badge {tone}">{word}</span> {text(part.message)}</td>'
            f'<td class="number">{_number(values, "rate_hz"):.1f} per s</td>'
            f'<td class="number">{_number(values, "stamp_delay_s"):.2f} s</td>'
            f"<td>{missing}</td><td>{_list(drop_words(drops)) or 'none'}</td></tr>"
        )
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("Input", "State", "Rate", "Delay", "Missing", "Left out")
    )
    level = max((part.level for part in parts), default=OK)
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    return _card("Cameras, microphones, pose", level, "", table)


def _encoding(part: Part) -> str:
    rows = {
        "Encoding a frame": f"{_number(part.values, 'encode_p50_ms'):.0f} ms, "
        f"at most {_number(part.values, 'encode_max_ms'):.0f} ms",
        "Waiting": ", ".join(
            f"{value} {key.removeprefix('queue.')}" for key, value in part.values.items() if key.startswith("queue.")
        )
        or "nothing",
    }
    return _card("Encoder", part.level, part.message, _table(rows))


def _questions(part: Part) -> str:
    rows = {}
    for key, word in QUESTION_WORDS.items():
        if key in part.values:
            rows[word.capitalize()] = f"{_number(part.values, key):.2f} s" if key.endswith("_s") else part.values[key]
    replied = [
        f"{value} {key.removeprefix('replied.').replace('_', ' ').lower()}"
        for key, value in part.values.items()
        if key.startswith("replied.")
    ]
    rows["Replies"] = ", ".join(replied) or "none yet"
    if last := part.values.get("last_error"):
        rows["Last error"] = last
    return _card("Questions", part.level, part.message, _table(rows))


def _number(values: Mapping[str, str], key: str) -> float:
    try:
        return float(values.get(key, "0"))
    except ValueError:
        return 0.0


def _card(title: str, level: int, message: str, body: str) -> str:
    word, tone = LEVELS.get(level, LEVELS[WARNING])
    note = f"<p>{text(message)}</p>" if message else ""
    head = f'<h3>{text(title)} <span class="badge {tone}">{word}</span></h3>'
    return f'<section class="card">{head}{note}{body}</section>'


def _table(rows: Mapping[str, str]) -> str:
    cells = "".join(f"<div><dt>{text(name)}</dt><dd>{text(str(value))}</dd></div>" for name, value in rows.items())
    return f'<dl class="figures">{cells}</dl>' if cells else ""


def _list(lines: list[str] | tuple[str, ...]) -> str:
    return f"<ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>" if lines else ""
