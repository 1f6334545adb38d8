"""What answers from events cost: CPU of a second of stream, and time until the first text, with and without events.

Two networks with the same weights see the same pictures and sound of a rendered world, in turns, in one process. Both
memories are full before anything is timed. Then both are asked the same questions, again in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from rich.table import Table

from salmonn_node.answering.answerer import Answerer
from salmonn_node.answering.event_answers import EventAnswers
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.lab.bench.event_replay import Replay, told
from salmonn_node.lab.training import bank
from salmonn_node.lab.training.banked_observer import BankedObserver, answerer
from salmonn_node.lab.training.memories import CAMERA, MICROPHONE
from salmonn_node.lab.training.streams import Tokens, encode
from salmonn_node.lab.world.asking import ask
from salmonn_node.lab.world.shards import Shard, read_shard
from salmonn_node.lab.world.truth import START_NS
from salmonn_node.model.checkpoint import load
from salmonn_node.stream.answers import Answer
from salmonn_node.stream.observations import SECOND_NS, AudioSpan, Frame

ARMS = ("never", "auto")  # values of `read_events`
SEED = 600_000
INGEST_FLOOR, FIRST_FLOOR = 1.2, 1.0


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All figures; `passed` is whether both floors hold."""
    worlds = replace(bank.HELD_OUT, count=1)
    bank.render(args.work, worlds)
    shard = read_shard(bank.shard_path(args.work, worlds, worlds.first))
    observers = [BankedObserver(load(args.checkpoint, read_events=arm == "auto")) for arm in ARMS]
    tokens = encode(observers[0].model.network, shard)
    for observer in observers:
        fill(observer, tokens)
    results = {
        "ingest": ingest(observers, shard, args.block, args.rounds),
        "first": first_text(observers, tokens, args.questions, args.repeats),
    }
    held = results["ingest"]["ratio"] <= INGEST_FLOOR and results["first"]["all"]["first_ratio"] <= FIRST_FLOOR
    return {**results, "passed": held}


def fill(observer: BankedObserver, tokens: Tokens, rounds: int = 12) -> None:
    """Bring all budgets of a memory to the brim: its tokens' by the stream itself, its events' by replays of it."""
    observer.take(tokens)
    events, parts = observer.memory.events, observer.model.event_parts
    if events is not None and parts is not None:
        ended, replay = told(parts.heads, tokens), Replay(events)
        for _ in range(rounds):
            replay.add(ended, observer.seconds)
            observer.seconds += tokens.truth.seconds
    else:
        observer.seconds += rounds * tokens.truth.seconds
    observer.take(tokens)


def ingest(observers: Sequence[BankedObserver], shard: Shard, block: int, rounds: int) -> dict[str, Any]:
    """Process milliseconds of a second of stream, encoders included; blocks of seconds in turns, medians."""
    took: list[list[float]] = [[] for _ in ARMS]
    for number in range(rounds):
        seconds = [(number * block + i) % len(shard.frames) for i in range(block)]
        for arm in _turns(number):
            observer = observers[arm]
            began = time.process_time()
            for i, second in enumerate(seconds):
                stamp = START_NS + (observer.seconds + i) * SECOND_NS
                observer.model.observe_frame(observer.memory, Frame(stamp, CAMERA, shard.frames[second]))
                observer.model.observe_audio(observer.memory, AudioSpan(stamp, MICROPHONE, shard.sound(second)))
            took[arm].append(1e3 * (time.process_time() - began) / block)
            observer.seconds += block
    without, with_events = (statistics.median(t) for t in took)
    ratios = [b / a for a, b in zip(*took, strict=True)]
    return {
        "blocks": rounds,
        "seconds_of_a_block": block,
        "ms_never": round(without, 3),
        "ms_auto": round(with_events, 3),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_low": round(float(np.quantile(ratios, 0.1)), 3),
        "ratio_high": round(float(np.quantile(ratios, 0.9)), 3),
        "floor": INGEST_FLOOR,
    }


class WatchedEvents(EventAnswers):
    """Answers from events that remember whether the last question was theirs."""

    answered = False

    def answer(self, *args: Any, **kwargs: Any) -> Answer | None:
        """As that of `EventAnswers`."""
        found = super().answer(*args, **kwargs)
        self.answered = found is not None
        return found


def first_text(observers: Sequence[BankedObserver], tokens: Tokens, count: int, repeats: int) -> dict[str, Any]:
    """Milliseconds until the first text, and until the answer, of the same questions by both; of repeats the least."""
    records = ask(tokens.truth, SEED, count, name="overhead", times=[tokens.truth.seconds])
    speakers = []
    for observer in observers:
        observer.newest_ns = START_NS + observer.seconds * SECOND_NS
        speakers.append(answerer(observer))
    model = observers[1].model
    assert model.event_parts is not None
    speakers[1].events = watched = WatchedEvents(model, model.event_parts)
    rows: list[dict[str, Any]] = []
    for number, record in enumerate(records):
        times: list[list[tuple[float, float]]] = [[] for _ in ARMS]
        for turn in range(repeats):
            for arm in _turns(number + turn):
                times[arm].append(timed(speakers[arm], record))
        first, whole = ([min(t[i] for t in mine) for mine in times] for i in (0, 1))
        rows.append({"events": watched.answered, "first": first, "whole": whole})
    groups = {"all": rows}
    groups |= {name: [r for r in rows if r["events"] == by] for name, by in (("events", True), ("network", False))}
    return {name: summary(mine) for name, mine in groups.items() if mine}


def timed(speaker: Answerer, record: QuestionRecord) -> tuple[float, float]:
    """Process milliseconds until the first text, or the answer where there is none before, and until the answer."""
    question = record.question(limited=False)
    texts: list[float] = []
    began = time.process_time()
    speaker.ask(question, deadline=time.monotonic() + 600.0, on_text=lambda _: texts.append(time.process_time()))
    ended = time.process_time()
    return 1e3 * (min([*texts, ended]) - began), 1e3 * (ended - began)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over questions; the ratio of the sums weighs each question by its time."""
    out: dict[str, Any] = {"questions": len(rows)}
    for name in ("first", "whole"):
        never, auto = zip(*(row[name] for row in rows), strict=True)
        out |= {f"{name}_ms_never": round(statistics.median(never), 2)}
        out |= {f"{name}_ms_auto": round(statistics.median(auto), 2)}
        out |= {f"{name}_ratio": round(sum(auto) / sum(never), 3)}
        out |= {f"{name}_ratio_median": round(statistics.median(b / a for a, b in zip(never, auto, strict=True)), 3)}
    return out


def _turns(number: int) -> tuple[int, int]:
    """Both arms, the other one first each time."""
    return (0, 1) if number % 2 == 0 else (1, 0)


def tables(results: dict[str, Any]) -> list[Table]:
    """What a second of stream costs, and what an answer does."""
    stream = Table("figure", "value", title="a second of stream, encoders included")
    for name, value in results["ingest"].items():
        stream.add_row(name, f"{value:.4g}")
    names = ("all", "events", "network")
    asked = Table(
        "figure", *(n for n in names if n in results["first"]), title="until the first text; the whole answer"
    )
    for name in results["first"]["all"]:
        asked.add_row(name, *(f"{mine[name]:.4g}" for mine in results["first"].values()))
    return [stream, asked]
