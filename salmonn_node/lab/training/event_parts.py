"""Fit what answers from events need beside the read-outs: names, the question head, and temperatures of confidences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from salmonn_node.answering.confidence import Calibration, fit_temperature
from salmonn_node.evaluation.scores import Judgement
from salmonn_node.lab.training import event_names, question_head
from salmonn_node.lab.training.evaluate import answered, records
from salmonn_node.lab.training.loop import Figures
from salmonn_node.lab.training.streams import Tokens, joined, quiet_seconds
from salmonn_node.lab.world.truth import SoundTruth
from salmonn_node.memory.event_heads import EventHeads
from salmonn_node.model.event_parts import EventParts
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.answers import AnswerType

SEED, QUESTIONS, FEW = 810_000, 120, 20


def fit(
    model: VideoSalmonnS,
    heads: EventHeads,
    streams: Sequence[Tokens],
    hours: Sequence[Tokens],
    sounds: Iterable[tuple[Tensor, tuple[SoundTruth, ...]]] = (),
    steps: int = question_head.STEPS,
) -> Iterator[tuple[EventParts, Figures]]:
    """Fit the parts and yield them with figures as they come; the last ones are done.

    Args:
        model: the network; nothing of it changes.
        heads: the read-outs that tell events apart.
        streams: encoded streams of training worlds.
        hours: hours of one training flat each.
        sounds: further audio tokens with what was to be heard.
        steps: of the question head.
    """
    names = event_names.fit(heads, streams, sounds)
    told = event_names.fit_credibility(names, heads, [*streams, *several(streams), *hours])
    language, width = model.network.language, int(model.config.text["hidden_size"])
    for questions, figures in question_head.fit(language, model.tokenizer, width, steps=steps):
        yield EventParts(heads, names, questions), told | figures
    parts = EventParts(heads, names, questions)
    yield parts, fit_temperatures(model, parts, [*several(streams), *hours])


def several(streams: Sequence[Tokens], at_once: int = 6) -> list[Tokens]:
    """Streams joined to longer ones, each without the sounds that its ends would cut."""
    whole = []
    for stream in streams:
        cuts = quiet_seconds(stream.truth)
        whole.append(stream.piece(int(cuts[0]), int(cuts[-1])))
    return [joined(whole[i : i + at_once]) for i in range(0, len(whole), at_once)]


def fit_temperatures(model: VideoSalmonnS, parts: EventParts, streams: Sequence[Tokens]) -> Figures:
    """Fit a temperature for each type of answer on answers from events; returns the share that is right.

    A type with few answers gets that of all types.
    """
    model.event_parts, parts.names.temperature = parts, {kind.name: 1.0 for kind in AnswerType}
    found: list[Judgement] = []
    raw = Calibration.raw(model.checkpoint.id)
    for number, tokens in enumerate(streams):
        asked = records(tokens, QUESTIONS, SEED + number, f"events-{number}")
        # What the network answers has a weight of "nothing"; what comes from events has none.
        found += [a.judged() for a in answered(model, tokens, asked, raw) if math.isnan(a.null_weight)]
    sure = [j for j in found if not math.isnan(j.confidence)]
    temperature = {}
    for kind in (kind for kind in AnswerType if kind != AnswerType.ANY):
        mine = [j for j in sure if j.record.answer_type == kind.name]
        mine = mine if len(mine) >= FEW else sure
        if mine:
            fitted = fit_temperature([j.confidence for j in mine], [j.correct for j in mine])
            temperature[kind.name] = round(fitted, 3)
    parts.names.temperature = temperature
    return {"answers": float(len(found)), "right": sum(j.correct for j in found) / max(1, len(found))}
