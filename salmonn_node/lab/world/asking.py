"""Question sets about a stream: kinds in equal parts, ages of evidence spread out, a share unanswerable; seeded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from salmonn_node.evaluation.questions import Expected, QuestionRecord
from salmonn_node.lab.world.objects import COLOURS, PERSON, Thing, pairs
from salmonn_node.lab.world.phrasings import phrase
from salmonn_node.lab.world.queries import Query, all_queries
from salmonn_node.lab.world.randomness import generator, is_held_out
from salmonn_node.lab.world.truth import Truth, ask_stamp_ns, index
from salmonn_node.stream.observations import SECOND_NS

AGE_BINS_S = (0.0, 15.0, 60.0, 300.0, 1200.0, 3600.0, 7200.0)
UNANSWERABLE = 0.3
YES_NO_UNANSWERABLE = 0.5


def _age_bin(query: Query, now: int) -> int:
    if not query.evidence:
        return -1
    ends = [e.end_ns for e in query.evidence]
    age_s = (ask_stamp_ns(now) - (min(ends) if query.needs_all else max(ends))) / SECOND_NS
    return int(np.searchsorted(AGE_BINS_S, age_s, side="right")) - 1


def ask_times(seconds: int, count: int, rng: np.random.Generator) -> list[int]:
    """When questions are asked: most at random in the second half of the stream, a third at its end."""
    late = rng.integers(max(8, seconds // 3), seconds + 1, size=count)
    late[rng.random(count) < 1 / 3] = seconds
    return sorted(int(t) for t in late)


def ask(
    truth: Truth,
    seed: int,
    count: int,
    *,
    name: str = "",
    times: Sequence[int] | None = None,
    instants: int = 24,
    kinds: Sequence[str] | None = None,
    held_out_phrasings: bool | None = None,
) -> list[QuestionRecord]:
    """Draw questions about a stream, in order of the time they are asked.

    Args:
        truth: what the stream let the robot see and hear.
        seed: of the draw; seeds kept out of training bring held-out phrasings and pairs.
        count: how many; fewer come back when the stream does not hold enough.
        name: of the bag or stream, for the records.
        times: whole seconds just before which they are asked; drawn when not given.
        instants: how many different moments of asking; questions share them.
        kinds: only these.
        held_out_phrasings: whether half of them are worded as in no training set; by the seed when not given.
    """
    rng = generator(seed, "questions")
    if times is None:
        times = ask_times(truth.seconds, min(instants, count), rng)
    held_out = is_held_out(seed)
    reworded = held_out if held_out_phrasings is None else held_out_phrasings
    every = [*pairs(held_out), *(Thing(c, PERSON) for c in COLOURS)]
    per_time = np.bincount(np.arange(count) % len(times), minlength=len(times))
    kind_counts: Counter[str] = Counter()
    bin_counts: Counter[tuple[str, int]] = Counter()
    asked: set[object] = set()
    records: list[QuestionRecord] = []
    for now, wanted in zip(times, per_time, strict=True):
        order = [every[i] for i in rng.permutation(len(every))]
        queries = list(all_queries(index(truth, now), truth, order))
        queries = [q for q in queries if kinds is None or q.kind in kinds]
        for _ in range(int(wanted)):
            free = [q for q in queries if _fact(q) not in asked]
            if not free:
                break
            # The rarest kind so far, answerable or not by lot, the rarest age, then any of those.
            rarest = min(kind_counts[k] for k in {q.kind for q in free})
            options = sorted({q.kind for q in free if kind_counts[q.kind] == rarest})
            kind = options[int(rng.integers(len(options)))]
            pool = [q for q in free if q.kind == kind]
            yes_no = rng.random() < (YES_NO_UNANSWERABLE if kind == "existence" else UNANSWERABLE)
            pool = [q for q in pool if (q.expected is None) == yes_no] or pool
            bins = [_age_bin(q, now) for q in pool]
            fewest = min(bin_counts[kind, b] for b in bins)
            pool = [q for q, b in zip(pool, bins, strict=True) if bin_counts[kind, b] == fewest]
            pool = _near_misses(pool)
            query = pool[int(rng.integers(len(pool)))]
            kind_counts[kind] += 1
            bin_counts[kind, _age_bin(query, now)] += 1
            asked.add(_fact(query))
            records.append(_record(query, now, f"{name or seed}-{len(records):04d}", name, reworded, rng))
    return records


def _fact(query: Query) -> object:
    """The same question is asked again only when there is other evidence for it."""
    return query.template, tuple(query.words.items()), query.evidence


def _near_misses(pool: list[Query]) -> list[Query]:
    """Of unanswerable ones, those that come close."""
    close = [q for q in pool if q.expected is None and q.near_miss.startswith(("same", "another"))]
    return close or pool


def _record(query: Query, now: int, ident: str, name: str, reworded: bool, rng: np.random.Generator) -> QuestionRecord:
    text, phrasing = phrase(query.template, reworded, rng, **query.words)
    return QuestionRecord(
        id=ident,
        stream=name,
        ask_ns=ask_stamp_ns(now),
        text=text,
        kind=query.kind,  # type: ignore[arg-type]
        answer_type=query.answer_type,  # type: ignore[arg-type]
        choices=query.choices,
        answerable=query.expected is not None,
        expected=query.expected or _nothing(query),
        tolerance=query.tolerance,
        evidence=query.evidence,
        needs_all=query.needs_all,
        near_miss=query.near_miss,
        stream_s=float(now),
        phrasing=phrasing,
        pixels=round(query.pixels, 4),
        snr_db=None if query.snr_db is None else round(query.snr_db, 1),
        about={"template": query.template, **query.words},
    )


def _nothing(query: Query) -> Expected:
    if query.answer_type == "BINARY":
        return Expected(text="no", binary=False)
    return Expected(count=0) if query.answer_type == "COUNT" else Expected()
