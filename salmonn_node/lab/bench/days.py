"""Days benchmark: thirty days of events through the event memory, then questions about the newest hours.

The events of rendered worlds come again and again, in a new order and never twice the same. Only the first round, the
last round and the newest world are whole streams: there the real memory sees tokens, and of them are the questions. A
second memory sees the newest world alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.evaluation.scores import Judgement, abstention, accuracy, bootstrap, judge
from salmonn_node.lab.bench.event_replay import Ended, Replay, told
from salmonn_node.lab.training import bank
from salmonn_node.lab.training.banked_observer import BankedObserver, answerer
from salmonn_node.lab.training.streams import CUT_S, Tokens, joined, read_bank
from salmonn_node.lab.world.asking import ask
from salmonn_node.lab.world.truth import START_NS
from salmonn_node.model.checkpoint import load
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.observations import SECOND_NS

DAY_S = 86_400
FLAT = 1.02  # most by which the events may outgrow what they took after a day
SEED = 600_000  # of questions; a held-out seed, so that half of the wordings are held out too


def resident_bytes() -> int:
    """Resident memory of this process."""
    import resource

    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the days, ask both memories, and compare."""
    model = load(args.checkpoint)
    pool, newest = worlds(args, model)
    return days(model, pool, newest, args.days, args.questions)


def worlds(args: argparse.Namespace, model: VideoSalmonnS) -> tuple[list[Tokens], Tokens]:
    """Streams of the past, and the newest one. Missing worlds are rendered, which needs OpenGL."""
    past = replace(bank.HELD_OUT, count=2 * args.worlds)  # every other one is quiet
    last = replace(bank.LONG_SPARSE, first=bank.LONG_SPARSE.first + args.newest, count=1)
    for chosen in (past, last):
        bank.render(args.work, chosen, report=lambda line: print(line, file=sys.stderr, flush=True))
    known = read_bank(args.work, past, model.network)
    pool = [stream for stream, dense in zip(known.streams, known.dense, strict=True) if dense == args.busy]
    newest = read_bank(args.work, last, model.network).streams[0]
    stop = min(newest.truth.seconds, CUT_S * round(args.hours * 3600 / CUT_S))
    return pool, newest.piece(0, stop)


def days(model: VideoSalmonnS, pool: Sequence[Tokens], newest: Tokens, count: float, questions: int) -> dict[str, Any]:
    """Run a stream of `count` days that ends with `newest`, and ask at its end.

    Raises:
        ValueError: the checkpoint does not answer from events.
    """
    if model.event_parts is None:
        raise ValueError("checkpoint: expected one that answers from events, see docs/memory.md")
    once = joined(pool)
    between = max(0, round((count * DAY_S - newest.truth.seconds) / once.truth.seconds) - 2)
    observer, alone = BankedObserver(model), BankedObserver(model)
    observer.take(once)
    samples = pass_rounds(observer, [told(model.event_parts.heads, tokens) for tokens in pool], once, between)
    gap_s = observer.seconds - once.truth.seconds
    observer.take(once)
    alone.seconds = observer.seconds
    observer.take(newest)
    alone.take(newest)
    records = asked(once, newest, gap_s, questions)
    found = [answers(one, [record for record, _ in records]) for one in (observer, alone)]
    return {
        "days": round(observer.seconds / DAY_S, 2),
        "newest_s": newest.truth.seconds,
        **held(samples),
        **compared(found, [recent for _, recent in records]),
        "samples": samples,
    }


def pass_rounds(
    observer: BankedObserver, pool: Sequence[list[Ended]], once: Tokens, count: int
) -> list[dict[str, float]]:
    """Let `count` rounds of a pool's events pass; returns a sample a day."""
    events = observer.memory.events
    assert events is not None
    replay, rng = Replay(events, SEED), np.random.default_rng(SEED)
    length = once.truth.seconds
    samples: list[dict[str, float]] = []
    began, before = time.process_time(), 0
    for number in range(count):
        for i in rng.permutation(len(pool)).tolist():
            replay.add(pool[i], observer.seconds)
            observer.seconds += length // len(pool)
        day = observer.seconds // DAY_S
        if day > (observer.seconds - length) // DAY_S or number == count - 1:
            took, fresh = time.process_time() - began, max(1, replay.events - before)
            samples.append(
                {
                    "day": round(observer.seconds / DAY_S, 2),
                    "events": replay.events,
                    "event_bytes": events.nbytes,
                    "memory_bytes": observer.memory.nbytes,
                    "resident_bytes": resident_bytes(),
                    "ms_per_event": round(1e3 * took / fresh, 3),
                }
            )
            print(f"day {samples[-1]['day']:.1f}: {replay.events} events", file=sys.stderr, flush=True)
            began, before = time.process_time(), replay.events
    return samples


def held(samples: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Whether bytes and the time of a step stay as they were after the first day."""
    if not samples:
        return {"events": 0, "flat": True}
    first, last = samples[0], samples[-1]
    largest = max(s["event_bytes"] for s in samples)
    return {
        "events": last["events"],
        "event_bytes_after_a_day": first["event_bytes"],
        "event_bytes_largest": largest,
        "event_bytes_at_end": last["event_bytes"],
        "memory_bytes_at_end": last["memory_bytes"],
        "resident_mib_after_a_day": round(first["resident_bytes"] / 2**20, 1),
        "resident_mib_at_end": round(last["resident_bytes"] / 2**20, 1),
        "ms_per_event_first_day": first["ms_per_event"],
        "ms_per_event_last_day": last["ms_per_event"],
        "flat": largest <= FLAT * first["event_bytes"],
    }


def compared(found: Sequence[list[Judgement]], recent: Sequence[bool]) -> dict[str, Any]:
    """Figures of the memory of all days and of the one that saw the newest world alone."""
    out: dict[str, Any] = {"by_kind": {}}
    for name, judged in zip(("days", "newest"), found, strict=True):
        new = [j for j, r in zip(judged, recent, strict=True) if r]
        never = [j for j in judged if not j.record.answerable]
        old = [j for j, r in zip(judged, recent, strict=True) if j.record.answerable and not r]
        low, high = bootstrap(new, accuracy, samples=300)
        out[f"{name}_memory"] = {
            "recent_n": len(new),
            "recent_right": round(accuracy(new), 4),
            "low": round(low, 4),
            "high": round(high, 4),
            "never_n": len(never),
            "never_right": round(accuracy(never), 4),
            "abstention_f1": round(abstention([*new, *never])["f1"], 4),
            "older_n": len(old),
            "older_right": round(accuracy(old), 4),
        }
        for group, mine in (("recent", new), ("never", never), ("older", old)):
            for judgement in mine:
                cell = out["by_kind"].setdefault(f"{group} {judgement.record.kind}", {"n": 0, "days": 0, "newest": 0})
                cell["n"] += name == "days"
                cell[name] += judgement.correct
    pairs = [(a.correct, b.correct) for a, b, r in zip(*found, recent, strict=True) if r]
    out["recent_only_days_right"] = sum(a and not b for a, b in pairs)
    out["recent_only_newest_right"] = sum(b and not a for a, b in pairs)
    return out


def asked(once: Tokens, newest: Tokens, gap_s: int, count: int) -> list[tuple[QuestionRecord, bool]]:
    """Questions at the end, and whether each is about the newest world alone.

    What happened first happened in the first round, what happened last in the last one or later: so the rounds between
    are left out of the truth, and what lies after them is `gap_s` later.
    """
    truth = joined([once, once, newest]).truth
    out = []
    for record in ask(truth, SEED, count, name="days", times=[truth.seconds]):
        start = START_NS + (truth.seconds - newest.truth.seconds) * SECOND_NS
        inside = [e.start_ns >= start for e in record.evidence]
        recent = bool(inside) and (all(inside) if record.needs_all else inside[-1])
        out.append((later(record, START_NS + once.truth.seconds * SECOND_NS, gap_s * SECOND_NS), recent))
    return out


def later(record: QuestionRecord, from_ns: int, by_ns: int) -> QuestionRecord:
    """A question whose stamps from `from_ns` on are later."""

    def moved(stamp: int | None) -> int | None:
        return stamp + by_ns if stamp is not None and stamp >= from_ns else stamp

    expected = record.expected.model_copy(
        update={name: moved(getattr(record.expected, name)) for name in ("event_start_ns", "event_end_ns")}
    )
    evidence = tuple(
        e.model_copy(update={"start_ns": moved(e.start_ns), "end_ns": moved(e.end_ns)}) for e in record.evidence
    )
    return record.model_copy(update={"ask_ns": moved(record.ask_ns), "expected": expected, "evidence": evidence})


def answers(observer: BankedObserver, records: Sequence[QuestionRecord]) -> list[Judgement]:
    """Ask a memory and judge."""
    speaker = answerer(observer)
    view = observer.wait_for_view()
    out = []
    for record in records:
        question = record.question(limited=False)
        out.append(judge(record, speaker.ask(question, deadline=time.monotonic() + 600.0, view=view)))
    return out


def tables(results: dict[str, Any]) -> list[Table]:
    """State by day, both memories side by side, and kinds of questions."""
    state = Table(*("day", "events", "event kB", "memory kB", "resident MiB", "ms/event"), title="state")
    samples = results["samples"]
    for row in samples[:: max(1, len(samples) // 8)] + samples[-1:]:
        state.add_row(
            f"{row['day']:.1f}", f"{row['events']:.0f}", f"{row['event_bytes'] / 1e3:.1f}",
            f"{row['memory_bytes'] / 1e3:.1f}", f"{row['resident_bytes'] / 2**20:.0f}", f"{row['ms_per_event']:.2f}",
        )  # fmt: skip
    both = Table("figure", "all days", "the newest world alone", title=f"asked after {results['days']} days")
    for name, value in results["days_memory"].items():
        both.add_row(name, f"{value:.4g}", f"{results['newest_memory'][name]:.4g}")
    kinds = Table("kind", "questions", "all days right", "newest alone right", title="by kind")
    for name, cell in sorted(results["by_kind"].items()):
        kinds.add_row(name, *(str(cell[key]) for key in ("n", "days", "newest")))
    return [state, both, kinds]
