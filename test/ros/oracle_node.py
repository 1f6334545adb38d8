"""The real node with an oracle in the network's place: the world's oracle answers, from the truth of the demo's bag.

Encoders, memory, views, answerer, queue and doors are the node's own; what the language model would say, and which
memory tokens it would point at, is read from the truth. Nothing that it says is a figure of this project.

"at front 10 60: ..." points, half and half, at what a source observed at these seconds of the stream.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from salmonn_node.answering.confidence import Calibration
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.lab.world.asking import ask
from salmonn_node.lab.world.demo import SEED
from salmonn_node.lab.world.oracle import Oracle
from salmonn_node.lab.world.truth import START_NS, Truth, WorldMoment
from salmonn_node.lab.world.truth_file import truth_from_json
from salmonn_node.live.demo_recording import TRUTH
from salmonn_node.model.generation import Generation
from salmonn_node.ros.node import main
from salmonn_node.runtime.build import Backend, build_backend, load_model
from salmonn_node.runtime.settings import Settings
from salmonn_node.stream.answers import Answer, AnswerType, Outcome
from salmonn_node.stream.observations import SECOND_NS, Interval

# As an evidence head with this file would be: half of the weight on "nothing" is an abstention.
CALIBRATION = Calibration(checkpoint="oracle", temperature={"BINARY": 1.0}, null_above=0.5, ambiguous_ratio=0.7)


def truth() -> Truth:
    return truth_from_json(TRUTH.read_text())


def records() -> list[QuestionRecord]:
    """Questions about the demo's bag, asked at its end, each with another text."""
    found = truth()
    asked = ask(found, SEED, 80, name="demo", times=[found.seconds], held_out_phrasings=False)
    return list({record.text: record for record in asked}.values())


def oracle_network(settings: Settings) -> Any:
    model = load_model(settings)
    calibration = Path(tempfile.mkdtemp()) / "calibration.json"
    calibration.write_text(CALIBRATION.model_dump_json())
    model.checkpoint = replace(
        model.checkpoint, id="oracle", name="oracle (no network)", trained=True, calibration=calibration
    )
    # A budget that keeps all of the bag: what the memory lets go is another question.
    model.config = replace(model.config, memory=replace(model.config.memory, visual_tokens=8_000))
    found, by_text = truth(), {record.text: record for record in records()}
    oracle = Oracle(found)

    def answer(
        question: str, view: Any, *, on_text: Callable[[str], None] | None = None, grammar: Any = None, **typed: Any
    ) -> Generation:
        record = by_text.get(question)
        if record is not None:
            said = oracle(record)
            pointer = _read(view, found, record, said)
        else:
            said = Answer(text="there", binary=True, choice_index=0)
            pointer = _pointed(view, question)
        seen = bool(pointer.any())
        if on_text is not None and said.text:
            on_text(said.text)
        extra: dict[str, Any] = {}
        if typed.get("options"):
            extra["option_logprobs"] = torch.full((len(typed["options"]),), -4.0)
            chosen = said.choice_index if said.choice_index >= 0 else 0 if said.binary else 1
            extra["option_logprobs"][chosen] = -0.1
        if grammar is not None:
            extra |= {"value": _value(grammar.kind, said), "value_logprob": -0.1}
        nothing = 0.0 if seen and said.outcome == Outcome.ANSWERED else 1.0
        even = torch.full((len(view),), 1.0 / len(view))
        pointer = pointer / pointer.sum() if seen else even
        return Generation(said.text, [1], [-0.1], even, pointer=pointer, null_weight=nothing, **extra)

    model.answer = answer
    return model


def _value(kind: AnswerType, said: Answer) -> str:
    if kind == AnswerType.COUNT:
        return str(said.count)
    if kind == AnswerType.DURATION:
        return f"{said.duration_s:.1f} seconds"
    return f"{(said.event.start_ns - START_NS) / SECOND_NS if said.event else 0.0:.1f} seconds"


def _read(view: Any, found: Truth, record: QuestionRecord, said: Answer) -> Tensor:
    """(T,) weights on what the view holds of the oracle's evidence; for an object on the cells that it covers."""
    weights = torch.zeros(len(view))
    for evidence in said.evidence:
        weights += _between(view, evidence.interval, evidence.modality, evidence.source)
    if record.about["template"] != "where_object" or view.visual is None:
        return weights
    # Pictures that begin a temporal patch: their stamp and pose are the evidence's.
    at = {m.stamp_ns: m for m in found.moments if m.second % 2 == 0}
    covered = torch.zeros_like(weights)
    for row in torch.nonzero(weights)[:, 0].tolist():
        moment = at.get(int(view.visual.stamp_ns[row]))
        if moment is not None:
            covered[row] = _covered(view.visual, row, moment, str(record.about["thing"]))
    return covered if covered.any() else weights


def _covered(visual: Any, row: int, moment: WorldMoment, name: str) -> float:
    high, wide = visual.grid[row].tolist()
    y, x = divmod(int(visual.place[row]), wide)
    for seen in moment.seen:
        if seen.thing.name == name and seen.clear:
            left, top, right, bottom = seen.box
            across = min(right, (x + 1) / wide) - max(left, x / wide)
            return max(0.0, across) * max(0.0, min(bottom, (y + 1) / high) - max(top, y / high))
    return 0.0


def _between(view: Any, interval: Interval, modality: str, source: str) -> Tensor:
    """(T,) one for each token of a source that was observed in the interval."""
    parts = []
    for name, batch in (("vision", view.visual), ("audio", view.audio)):
        if batch is None:
            continue
        held = torch.zeros(len(batch))
        if name == modality and source in view.sources:
            held = (batch.source == view.sources.index(source)).float()
            last = batch.last_ns + (SECOND_NS // 2 if name == "audio" else 0)
            held *= (batch.stamp_ns <= interval.end_ns) & (last >= interval.start_ns)
        parts.append(held)
    return torch.cat(parts)


def _pointed(view: Any, question: str) -> Tensor:
    words = question.partition(":")[0].split()
    weights = torch.zeros(len(view))
    if words[:1] != ["at"]:
        return weights  # what it was timed with, and what nobody told it of
    for second in words[2:]:
        stamp = START_NS + round(float(second) * SECOND_NS)
        held = _between(view, Interval(stamp, stamp), "vision", words[1])
        weights += held / held.sum().clamp(min=1)
    return weights


def build(settings: Settings) -> Backend:
    return build_backend(settings, oracle_network)


if __name__ == "__main__":
    sys.exit(main(sys.argv, build))
