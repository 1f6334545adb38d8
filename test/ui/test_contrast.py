"""Text of the page has contrast AA (WCAG 2: 4.5 to 1) in both themes, and motion stops where a person wants none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import salmonn_node.ui

CSS = (Path(salmonn_node.ui.__file__).parent / "static" / "page.css").read_text(encoding="utf-8")
PAIRS = [
    *[(text, paper) for text in ("ink", "quiet", "accent") for paper in ("paper", "sheet")],
    *[(tone, f"{tone}-paper") for tone in ("good", "warn", "bad")],
    ("ink", "quiet-paper"),
    ("bad", "sheet"),
]


def colours(selector: str) -> dict[str, str]:
    block = re.search(rf"^{re.escape(selector)} \{{(.*?)\}}", CSS, re.MULTILINE | re.DOTALL)
    assert block, selector
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block[1]))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [":root", ".body--dark"])
@pytest.mark.parametrize(("text", "paper"), PAIRS)
def test_text_can_be_read(theme: str, text: str, paper: str):
    found = colours(theme)
    assert contrast(found[text], found[paper]) >= 4.5


def test_fixed_colours_can_be_read():
    for one, other in (("#ffffff", "#0b5c6b"), ("#ffffff", "#9b1c1c"), ("#ffffff", "#0b4a57"), ("#ffffff", "#c2410c")):
        assert contrast(one, other) >= 4.5


def test_motion_stops_where_a_person_wants_none():
    assert "@media (prefers-reduced-motion: reduce)" in CSS
