"""Paraphrases: a small grammar of English wordings for each form of question, and for questions of no form.

They stand in `paraphrases.txt`. A frame is a sentence with choices: `[a|b|]` is one of a, b and nothing; `<name>` is a
choice that many frames share; `{thing}` and the like are filled later. The world's held-out wordings are never drawn,
though some frames hold them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from salmonn_node.lab.world.phrasings import TEMPLATES
from salmonn_node.model.question_head import OTHER

MODALITIES = ("thing", "sound")
MOST_DRAWS = 100
_INNER = re.compile(r"\[([^\[\]]*)\]")
_COUNT = re.compile(r"#(\d+)#")
_NAME = re.compile(r"<(\w+)>")


def frames_of(form: str) -> list[str]:
    """The frames of a form, with the choices of its modality written out; those of "other" are of no form."""
    listed = _sections()
    if form == OTHER:
        return [
            *(written_out(line, choices("thing")) for line in listed[OTHER]),
            *(written_out(line, choices(kind)) for kind in MODALITIES for line in listed[f"{OTHER} *"]),
        ]
    shared, _, kind = form.rpartition("_")
    kind = kind.removesuffix("s")
    both = listed.get(f"{shared} *", ()) if kind in MODALITIES else ()
    shown = choices(kind if kind in MODALITIES else "thing")
    return [written_out(line, shown) for line in (*listed.get(form, ()), *both)]


@cache
def choices(modality: str) -> dict[str, str]:
    """Choices by name, for what is seen ("thing") or heard ("sound")."""
    lines = [line for section in ("choices", f"choices {modality}") for line in _sections()[section]]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


@cache
def _sections() -> dict[str, list[str]]:
    """Lines by heading."""
    found: dict[str, list[str]] = {}
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("== "):
            lines = found.setdefault(line.removeprefix("== "), [])
        elif line and not line.startswith("#"):
            lines.append(line)
    return found


def written_out(frame: str, choices: Mapping[str, str]) -> str:
    """A frame with its shared choices written out."""
    while found := _NAME.search(frame):
        frame = frame[: found.start()] + f"[{choices[found.group(1)]}]" + frame[found.end() :]
    return frame


def drawn(frame: str, rng: np.random.Generator) -> str:
    """One sentence of a frame that is written out, none of the held-out wordings.

    Raises:
        ValueError: the frame is one of the held-out wordings.
    """

    def one(match: re.Match[str]) -> str:
        every = match.group(1).split("|")
        return every[int(rng.integers(len(every)))]

    for _ in range(MOST_DRAWS):
        text = frame
        while _INNER.search(text):
            text = _INNER.sub(one, text)
        text = re.sub(r" ([,:;.?])", r"\1", re.sub(r" +", " ", text).strip())
        if normalised(text) not in HELD_OUT:
            return text
    raise ValueError(f"the frame {frame!r} has no sentence that is not held out. Write another one")


def size(frame: str) -> int:
    """How many sentences a frame that is written out has."""

    def many(parts: Sequence[str]) -> int:
        return sum(math.prod(int(n) for n in _COUNT.findall(part)) for part in parts)

    while _INNER.search(frame):
        frame = _INNER.sub(lambda m: f"#{many(m.group(1).split('|'))}#", frame)
    return many([frame])


def normalised(text: str) -> str:
    """A sentence in lower case with single spaces and no marks, to compare."""
    return re.sub(r"\s+", " ", re.sub(r"[^\w\s{}]", " ", text.lower())).strip()


HELD_OUT = frozenset(normalised(templates[-1]) for templates in TEMPLATES.values())
