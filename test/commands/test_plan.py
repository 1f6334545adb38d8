"""`salmonn plan`: what fits this machine or a given one, item by item for one network, and the line to paste."""

from __future__ import annotations

import re
import shlex

import pytest

from salmonn_node.cli import build_parser, main
from salmonn_node.model.device_memory import computer_memory, device_memory


def planned(capsys, *words: str) -> tuple[int, str]:
    status = main(["plan", *words])
    return status, capsys.readouterr().out


def test_a_table_of_all_that_fits_and_a_line_that_can_be_pasted(capsys):
    status, out = planned(capsys, "--device-memory", "8GiB")
    assert status == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith(("qwen3", "video"))}
    assert set(rows) == {"qwen3-vl-2b", "qwen3-vl-4b", "qwen3-vl-8b", "video-salmonn-s"}
    assert rows["video-salmonn-s"].split()[-1] == "-"
    pasted = next(line for line in out.splitlines() if "salmonn ask --bag" in line)
    words = shlex.split(pasted.strip())
    assert build_parser("ask").parse_args(words[1:]).bag.name == "YOUR_BAG"
    assert words[words.index("--checkpoint") + 1] in rows
    assert words[words.index("--weights") + 1] in ("full", "int8", "int4")


def test_a_cpu_is_given_no_more_than_one_waits_for(capsys):
    for words, tokens in (((), "4096"), (("--visual-tokens", "8192"), "8192")):
        _, out = planned(capsys, "--device-memory", "64GiB", "--device", "cpu", *words)
        pasted = next(line for line in out.splitlines() if "salmonn ask --bag" in line)
        assert f"--visual-tokens {tokens} " in pasted
        assert "without a GPU" in out


def test_more_memory_never_gives_less_and_little_gives_nothing(capsys):
    kept = []
    for size in ("4GiB", "6GiB", "12GiB", "64GiB"):
        status, out = planned(capsys, "--device-memory", size, "--device", "cpu")
        row = next(line for line in out.splitlines() if line.startswith("qwen3-vl-2b"))
        kept.append([int(cell) for cell in re.findall(r"(\d+), [\d.]+ GiB", row.replace("  -", "  0, 0 GiB"))])
    assert kept == sorted(kept)
    assert kept[-1] == [16_384, 16_384, 16_384]
    status, out = planned(capsys, "--device-memory", "1GiB")
    assert status == 1
    assert "Nothing fits" in out


def test_one_network_item_by_item(capsys):
    status, full = planned(capsys, "qwen3-vl-2b", "--device-memory", "24GiB", "--visual-tokens", "4096")
    assert status == 0
    assert "keys and values" in full
    assert "4096 visual tokens" in full
    status, small = planned(capsys, "qwen3-vl-2b", "--device-memory", "3GiB", "--weights", "int4")
    assert status == 1
    assert "does not fit" in small
    assert planned(capsys, "tiny", "--device", "cpu")[0] == 0


def test_what_cannot_be_planned_is_named(capsys):
    for name, reason in (("/nowhere", "is not a folder"), ("no such", "neither a folder nor a name")):
        assert main(["plan", name]) == 2
        assert reason in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plan", "--device-memory", "much"])


def test_the_memory_of_this_machine_is_read():
    total, free = computer_memory()
    assert 0 < free <= total
    here = device_memory("cpu")
    assert (here.total, here.device) == (total, "cpu")
    assert "GiB free" in here.describe()
