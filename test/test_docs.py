"""What the documents name is there: files of tests, commands of `salmonn`, links between pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "bench/RESULTS.md"]
CODE = re.compile(r"`([^`\n]+)`|```[a-z]*\n(.*?)```", re.DOTALL)


def code(page: Path) -> str:
    """All code of a page, inline and in blocks."""
    return "\n".join(inline or block for inline, block in CODE.findall(page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_and_links_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.])test/[\w/.]+\w", code(page))
    missing = [path for path in dict.fromkeys(named) if not (ROOT / path).exists()]
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    missing += [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_every_sub_command_that_a_page_names_exists() -> None:
    from salmonn_node.cli import COMMANDS

    named = {word for page in PAGES for word in re.findall(r"(?m)(?:^|[ `(])salmonn ([a-z]+)\b", code(page))}
    assert named - set(COMMANDS) == set()


def test_the_makefile_has_every_target_that_a_page_names() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    named = {word for page in PAGES for word in re.findall(r"(?m)^make ([a-z][a-z-]+)\b", code(page))}
    assert named - targets == set()
