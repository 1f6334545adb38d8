"""How `salmonn` reads its arguments: flags may stand before, between and after the others; `--` ends the flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from salmonn_node.cli import build_parser


@pytest.mark.parametrize(
    "arguments",
    [
        "A B --questions Q --jobs 2",
        "--questions Q A B --jobs 2",
        "A --questions Q B --jobs 2",
        "A --jobs 2 --questions Q B",
    ],
)
def test_flags_stand_anywhere_between_the_recordings(arguments: str) -> None:
    args = build_parser("replay").parse_args(["replay", *arguments.split()])
    assert (args.recordings, args.questions, args.jobs) == ([Path("A"), Path("B")], Path("Q"), 2)


def test_questions_stand_around_flags_and_behind_two_dashes() -> None:
    parse = build_parser("ask").parse_args
    assert parse(["ask", "one?", "--bag", "B", "two?"]).text == ["one?", "two?"]
    assert parse(["ask", "--bag", "B", "--", "--three?", "four?"]).text == ["--three?", "four?"]
    assert parse(["ask", "--bag", "B"]).text == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["replay", "--questions", "Q"], "required: BAG"),
        (["replay", "A"], "required: --questions"),
        (["replay", "A", "--questions", "Q", "B", "--nope"], "unrecognized arguments: --nope"),
        (["bag"], "required: ACTION"),
        (["bag", "info"], "required: bag"),
        (["bag", "info", "A", "B"], "unrecognized arguments: B"),
    ],
    ids=str,
)
def test_what_is_missing_or_unknown_is_named(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser(arguments[0]).parse_args(arguments)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err
