"""GPU table of bench/RESULTS.md, rendered from the JSON of `salmonn bench gpu`. Parts that did not run stay empty."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- gpu table: begin -->", "<!-- gpu table: end -->"
NOT_RUN = "No GPU was available, so the cells are empty. On a machine with one, `bench/gpu.sh` fills them in one call."

WAYS = ("torch", "torch_graph", "torch_compiled_graph", "tensorrt", "tensorrt_rtx")


def _cell(part: dict[str, Any], name: str, digits: int = 2) -> str:
    value = part.get(name)
    return "" if value is None else f"{value:.{digits}f}"


def render(figures: dict[str, Any] | None) -> str:
    """Render the tables as Markdown. None or a dry run gives the same tables with empty cells."""
    real = figures is not None and not figures.get("dry_run")
    f: dict[str, Any] = dict(figures or {}) if real else {}
    lines = [_headline(f) if real else NOT_RUN, ""]
    lines += [
        f"| one call, ms | floor | {' | '.join(w.replace('_', ' ') for w in WAYS)} |",
        "|---" * (len(WAYS) + 2) + "|",
    ]
    for name, part in (("vision, one temporal patch of 640x360", "vision"), ("audio, one 30 s window", "audio")):
        p = f.get(part, {})
        cells = [_cell(p, f"{way}_ms") for way in WAYS]
        lines.append(f"| {name} | {_cell(p, 'floor_ms')} | {' | '.join(cells)} |")
    ttt, memory, text = f.get("fast_weights", {}), f.get("token_memory", {}), f.get("language", {})
    lines += ["", "| step | ms | floor |", "|---|---|---|"]
    rows = [
        ("TTT layer, one mini-batch of 1024, SGD", _cell(ttt, "sgd_ms"), ""),
        ("TTT layer, one mini-batch of 1024, Hessian-free", _cell(ttt, "hf_ms"), ""),
        ("token memory, one step from 20480 to 16384 tokens", _cell(memory, "step_ms"), ""),
        ("language model, prefill of 16384 tokens", _cell(text, "prefill_ms", 0), _cell(text, "prefill_floor_ms", 0)),
        ("language model, decoding one token after it", _cell(text, "decode_ms"), _cell(text, "decode_floor_ms")),
    ]
    kept = f.get("snapshot", {})
    size = f" ({kept['mib']} MiB)" if "mib" in kept else ""
    rows.append((f"snapshot, copy on the device, for which ingest waits{size}", _cell(kept, "pause_ms"), ""))
    lines += [f"| {name} | {value} | {floor} |" for name, value, floor in rows]
    times = _cell(f.get("ingest", {}), "times_real_time", 1)
    lines += [
        "",
        f"Ingest of one camera at 1 FPS and one microphone, as a multiple of real time: {times or '(not run)'}.",
    ]
    why = sorted({f"{part}: {p['error']}" for part, p in f.items() if isinstance(p, dict) and "error" in p})
    why += sorted({f"{k[:-4]}: {v}" for p in (f.get("vision", {}),) for k, v in p.items() if k.endswith("_why")})
    if why:
        lines += ["", "Empty, and why:", "", *(f"- {line}" for line in why)]
    return "\n".join(lines)


def _headline(f: dict[str, Any]) -> str:
    d, r = f["device"], f.get("rates", {})
    libraries = ", ".join(f"{k} {d[k]}" for k in ("torch", "cuda", "tensorrt", "tensorrt_rtx") if d.get(k))
    measured = f"; measured {_cell(r, 'tflop_per_s', 0)} TFLOP/s, {_cell(r, 'tb_per_s')} TB/s" if r else ""
    return f"{f['date']}, {f['profile']}, random weights, {d['gpu']}: {libraries}{measured}."


def insert(results: Path, figures: dict[str, Any] | None) -> None:
    """Insert the rendered tables between their marks in bench/RESULTS.md.

    Raises:
        ValueError: the marks are missing.
    """
    text = results.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{results}: {BEGIN} and {END} are missing")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    results.write_text(f"{before}{BEGIN}\n{render(figures)}\n{END}{after}")


if __name__ == "__main__":
    insert(Path(sys.argv[2]), json.loads(Path(sys.argv[1]).read_text()))
