"""Tables of the evidence benchmark, from rows whose figures are known."""

from __future__ import annotations

import pytest
from rich.console import Console

from salmonn_node.answering.abstention import Observed
from salmonn_node.lab.bench.evidence_tables import (
    abstains,
    abstention,
    head_sizes,
    hits,
    interval,
    separation,
    share,
    with_chosen_heads,
)


def row(stream: int, number: int, answerable: bool) -> dict:
    signs = {
        "answer": 1.0,
        "shown": 2.0 if answerable else -1.0,
        "gain": 0.5 if answerable else -0.5,
        "sufficiency": 0.0,
        "attention": 0.1 * number,
    }
    made = {
        "stream": f"s{stream}", "seconds": 60, "kind": "room", "answerable": answerable, "abstained": False,
        "correct": answerable, "signs": signs, "words_right": number % 2 == 0,
    }  # fmt: skip
    return made | {"chance": 0.1, "attention": number < 6, "alone": number < 8} if answerable else made


ROWS = [row(s, n, n < 10) for s in range(6) for n in range(14)]


def shown(table) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_hits_are_shares_of_the_answerable_with_an_interval_over_streams() -> None:
    text = shown(hits(ROWS))
    assert "60 answerable questions, 30 with the right words" in text
    assert "0.60 (0.60 to 0.60)" in text, "streams are alike, so that the interval has no width"
    assert "over the cached memory" not in text, "a way that was not measured has no line"
    value, low, high = interval([*ROWS, row(9, 0, True)], share("answerable"))
    assert low <= value <= high
    assert high > low


def test_abstention_by_the_default_rule_and_by_a_fitted_one() -> None:
    text = shown(abstention(ROWS, ROWS))
    assert text.count("1.00 (1.00 to 1.00)") == 8, "both rules tell all apart, and hold nothing back"
    assert "1.00" in shown(separation(ROWS))
    doubtful = row(0, 0, True) | {
        "signs": {"answer": 0.0, "shown": -0.1, "gain": -0.1, "sufficiency": 0.0, "attention": 0.0}
    }
    assert abstains(doubtful, None)
    assert not abstains(doubtful, Observed(weights={"shown": 1.0}, bias=1.0))
    assert abstains(doubtful | {"signs": None, "abstained": True}, None)
    assert not abstains(doubtful | {"signs": None}, None)


def scored(stream: int, number: int) -> dict:
    """Head (1, 1) looks at the evidence. The other heads look elsewhere, harder."""
    attention = [[[0.0] * 8 for _ in range(2)] for _ in range(2)]
    true = number % 8
    attention[1][1][true] = 0.4
    attention[0][0][(true + 3) % 8] = attention[0][1][(true + 3) % 8] = 0.8
    hits_of = [window == true for window in range(8)]
    values = {"attention": attention, "sufficiency": [0.0] * 8, "hits": hits_of}
    return row(stream, number, True) | {"scored": values, "kind": "when_last" if number % 4 == 0 else "room"}


def test_heads_are_chosen_on_other_worlds_and_times_count_apart() -> None:
    fitted_on = [scored(s, n) for s in range(6) for n in range(10)]
    tested = with_chosen_heads(
        [scored(s, n) for s in range(20, 24) for n in range(10)] + [row(30, 12, False)], fitted_on
    )
    assert all(r["chosen"] for r in tested if r["answerable"])
    assert "chosen" not in tested[-1]
    text = shown(hits(tested))
    assert "step 2 with heads chosen on other worlds" in text
    assert "of them 8 not about a time" in text, "of 20 with the right words"
    sizes = " ".join(shown(head_sizes(fitted_on)).split())
    assert "60 questions: the best 1 are taken" in sizes
    assert "0.00" in sizes
    assert "best 2" in sizes


def test_no_rows_give_no_number() -> None:
    assert interval([], share("alone"))[0] != pytest.approx(0.0)
