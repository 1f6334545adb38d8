"""Draw question sets about a stream from a seed: balanced kinds, varied age of evidence, a share unanswerable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from salmonn_node.evaluation.questions import Expected, QuestionRecord
from salmonn_node.lab.world.objects import COLOURS, PERSON, Thing, pairs
from salmonn_node.lab.world.phrasings import phrase
from salmonn_node.lab.world.queries import all_queries
from salmonn_node.lab.world.query import Query
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
    """Draw the times of asking: a third at the end of the stream, most others in its second half."""
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
    """Draw questions about a stream, in order of their time of asking.

    Args:
        truth: truth of the stream.
        seed: seed of the draw. Held-out seeds use held-out phrasings and pairs.
        count: number of questions. Fewer are returned if the stream does not have enough.
        name: name of the bag or stream, for the records.
        times: whole seconds just before which questions are asked. Drawn if not given.
        instants: number of different moments of asking, which questions share.
        kinds: restrict the draw to these kinds.
        held_out_phrasings: use held-out wordings for half of the questions. Defaults to whether the seed is held out.
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
            # Choose the rarest kind so far, then answerable or not at random, then the rarest age, then any query.
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
    """Key of a question. The same question is repeated only with other evidence."""
    return query.template, tuple(query.words.items()), query.evidence


def _near_misses(pool: list[Query]) -> list[Query]:
    """Return the near misses among unanswerable queries."""
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
