"""A reader of the log's words as the script of the STUB server: it knows what is asked, and nothing of the truth.

It looks a question's template and words up in the lines, as a perfect reader of language would. The words of the lines
come from `caption`, which is a perfect captioner: what the truth says the picture shows. Neither is a model.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.lab.perfect_reader import QUESTION
from salmonn_node.lab.stub_server import text_of
from salmonn_node.lab.world.sounds import SOUNDS, SPOKEN
from salmonn_node.lab.world.truth import START_NS, Truth
from salmonn_node.memory.log_entries import SOUND, LogEntry
from salmonn_node.stream.observations import SECOND_NS

PLACE = re.compile(r"at (\S+) (\S+)")
SAME_PLACE_M = 0.5
# What questions call a spoken word, and what its line says.
SAID = {SOUNDS[name].title: f"says {word}" for name, word in SPOKEN.items()}


def caption(entry: LogEntry, truth: Truth) -> str:
    """What a perfect captioner writes of an entry: things in plain view, room and doors; or the sound's name."""
    if entry.what == SOUND:
        first, last = ((stamp - START_NS) / SECOND_NS for stamp in (entry.first_ns, entry.last_ns))
        heard = [(min(s.end_s, last) - max(s.start_s, first), s) for s in truth.sounds if s.clear]
        overlap, best = max(heard, key=lambda pair: pair[0], default=(-1.0, None))
        return "[]" if best is None or overlap < -1.0 else f"[{_title(best.name)}]"
    if entry.picture is None:
        return "[]"
    second = (entry.picture.stamp_ns - START_NS) // SECOND_NS
    moment = truth.moments[min(second, truth.seconds - 1)]
    words = [seen.thing.name for seen in moment.seen if seen.clear]
    words += [f"door {'open' if look.state else 'shut'}" for look in moment.looked if look.kind == "door"]
    return f"[{', '.join([*words, f'in {moment.room}'])}]"


def _title(name: str) -> str:
    return SAID.get(SOUNDS[name].title, SOUNDS[name].title)


@dataclass(frozen=True)
class _Line:
    number: int
    what: str
    place: tuple[float, float] | None
    words: tuple[str, ...]


class WordReader:
    """Names the lines whose words a question speaks of.

    Args:
        records: the questions that may be asked, each with another text.
        most: most events that it names.
    """

    def __init__(self, records: Sequence[QuestionRecord], most: int = 4) -> None:
        self._records, self._most = {record.text: record for record in records}, most

    def __call__(self, request: dict[str, Any]) -> str:
        """The reply to a request; to the second pass it only says that there was nothing."""
        text = text_of(request)
        asked = QUESTION.search(text)
        if asked is None or "The log:" not in text:
            return json.dumps({"observed": False, "text": "", "pictures": []})
        record = self._records[json.loads(asked.group(2))]
        return json.dumps({"events": self.named(record, _lines(text))[: self._most], "counted": []})

    def named(self, record: QuestionRecord, lines: Sequence[_Line]) -> list[int]:
        """Numbers of lines for a question of the world, the best first."""
        about = {key: str(value) for key, value in record.about.items()}
        template = about["template"]

        def with_words(*words: str) -> list[_Line]:
            return [line for line in lines if all(word in line.words for word in words)]

        def numbers(found: Sequence[_Line]) -> list[int]:
            return [line.number for line in found]

        if "sound" in about:
            heard = [line for line in with_words(SAID.get(about["sound"], about["sound"])) if line.what == SOUND]
            return numbers(heard[:1] if template == "when_first_sound" else heard[-1:])
        if template in ("when_first_thing", "existence_thing", "when_last_thing") or template in (
            "where_object",
            "where_robot_thing",
            "room",
            "how_long_thing",
        ):
            seen = with_words(about["thing"])
            return numbers(seen[:1] if template == "when_first_thing" else seen[-1:])
        if template == "order_things":
            return [number for key in ("a", "b") for number in numbers(with_words(about[key])[:1])]
        if template == "colour":
            inside = with_words(f"in {about['room']}")
            return numbers([x for x in inside if any(w.endswith(f" {about['shape']}") for w in x.words)][::-1])
        if template == "count_things":
            shape = "cross" if about["shapes"] == "crosses" else about["shapes"][:-1]
            last = {word: x.number for x in lines for word in x.words if word.endswith(f" {shape}")}
            return list(dict.fromkeys(last.values()))
        if template in ("door_now", "door_earlier"):
            inside = with_words(f"in {about['room']}")
            doors = [x for x in inside if {"door open", "door shut"} & set(x.words)]
            return numbers(doors[-1:] if template == "door_now" else doors[:1])
        if template == "still_there":
            first = with_words(about["thing"])[:1]
            return numbers([x for x in lines if first and _near(x, first[0])][-3:] + first)
        if template == "said_while_seeing":
            seen = with_words(about["thing"])
            spoken = [x.number for x in lines if any(word.startswith("says ") for word in x.words)]
            return sorted(numbers(seen), key=lambda n: min((abs(n - s) for s in spoken), default=0))
        if template in ("appeared", "gone"):
            return numbers(with_words(f"in {about['room']}"))[::-1]
        return []


def _near(one: _Line, other: _Line) -> bool:
    return one.place is not None and other.place is not None and math.dist(one.place, other.place) <= SAME_PLACE_M


def _lines(text: str) -> list[_Line]:
    out = []
    for line in text.splitlines():
        parts = line.split(" | ")
        if len(parts) < 5 or not parts[0].isdigit() or not parts[-1].startswith("["):
            continue
        place = next((PLACE.fullmatch(part) for part in parts if part.startswith("at ")), None)
        where = None if place is None else (float(place[1]), float(place[2]))
        out.append(_Line(int(parts[0]), parts[1], where, tuple(parts[-1].strip("[]").split(", "))))
    return out
