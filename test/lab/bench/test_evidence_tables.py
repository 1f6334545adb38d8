"""Tables of the evidence benchmark, from rows whose figures are known."""

from __future__ import annotations

import pytest
from rich.console import Console

from salmonn_node.answering.abstention import Observed
from salmonn_node.lab.bench.evidence_tables import abstains, abstention, hits, interval, separation, share


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


def test_no_rows_give_no_number() -> None:
    assert interval([], share("alone"))[0] != pytest.approx(0.0)
