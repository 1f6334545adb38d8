"""Demo stream: 84 seconds of one held-out flat as a small bag with ten questions. It is package data of the node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from salmonn_node.evaluation.questions import QuestionRecord, write_questions
from salmonn_node.lab.world.asking import ask
from salmonn_node.lab.world.bag import write_bag
from salmonn_node.lab.world.schedule import Density
from salmonn_node.lab.world.stream import World
from salmonn_node.lab.world.truth import Truth
from salmonn_node.lab.world.truth_file import truth_to_json

SEED = 100_179
SECONDS = 84
# Between sparse and dense, so that a minute and a half contains one of most kinds of event. The lights stay on.
DENSITY = Density(13.0, 35.0, 30.0, 1e9, 7.0, 0.75, (3.0, 4.2), 24)
# One question of each of these, all asked at the end. Those marked False are unanswerable.
WANTED = (
    ("existence", "existence_thing", True),
    ("existence", "existence_thing", False),
    ("colour", "colour", True),
    ("room", "room", True),
    ("where_object", "where_object", True),
    ("count", "count_sound", True),
    ("when_last", "when_last_sound", True),
    ("how_long", "how_long_thing", True),
    ("seen_when_heard", "seen_when_heard", True),
    ("what_was_said", "said_while_seeing", True),
    ("order", "order_things", True),
    ("when_last", "when_last_thing", False),
)


def demo_world() -> World:
    """Return the demo's world."""
    return World(SEED, SECONDS, density=DENSITY)


def demo_questions(truth: Truth) -> list[QuestionRecord]:
    """Draw one question of each wanted kind at the end of the stream, about as many different things as possible."""
    pool = ask(truth, SEED, 400, name="demo", times=[truth.seconds], held_out_phrasings=False)
    chosen: list[QuestionRecord] = []
    used: Counter[str] = Counter()
    for kind, template, answerable in WANTED:
        fits = [r for r in pool if r.kind == kind and r.about["template"] == template and r.answerable == answerable]
        if fits:
            record = min(fits, key=lambda r: sum(used[t] for t in _subjects(r)))
            chosen.append(record.model_copy(update={"id": f"demo-{len(chosen):02d}"}))
            used.update(_subjects(record))
    return chosen


def _subjects(record: QuestionRecord) -> set[str]:
    return {str(v) for k, v in record.about.items() if k in ("thing", "sound", "shape", "room", "a", "b")}


def write_demo(folder: Path, on_second: Callable[[int], None] = lambda second: None) -> list[QuestionRecord]:
    """Write bag, questions and truth to a new folder, with the same bytes each time. Needs OpenGL."""
    folder.mkdir(parents=True)
    truth = write_bag(folder / "bag", demo_world(), fps=3, jpeg_quality=80, on_second=on_second)
    records = demo_questions(truth)
    write_questions(folder / "questions.jsonl", records)
    (folder / "truth.json").write_text(truth_to_json(truth) + "\n", encoding="utf-8")
    return records
