"""Fit the temperatures of confidences of answers from events, on flats of hours and on short pieces of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from salmonn_node.answering.confidence import Calibration, calibration_error, fit_temperature
from salmonn_node.evaluation.scores import Judgement
from salmonn_node.lab.training.evaluate import answered, records
from salmonn_node.lab.training.loop import Figures
from salmonn_node.lab.training.streams import Pieces, Tokens, quiet_seconds
from salmonn_node.model.event_parts import EventParts
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.stream.answers import AnswerType

SEED, FEW = 810_000, 20
# Shares of a flat's stream at which a memory that has run since its start is asked, and questions each time.
ENDS, QUESTIONS = (1.0, 0.8125, 0.625, 0.4375, 0.25), 150
# Seconds, number and questions of pieces, whose memories have room for most or all of them.
SHORT = ((44, 12, 14), (128, 4, 40), (512, 2, 60), (2048, 1, 100))


def asked_of(flat: Tokens, seed: int) -> Iterator[tuple[Tokens, int]]:
    """Yield the beginnings and pieces of a flat's stream to ask about, each with its number of questions."""
    cuts, rng = quiet_seconds(flat.truth), np.random.default_rng(seed)
    for share in ENDS:
        yield flat.piece(0, int(cuts[cuts <= share * flat.truth.seconds][-1])), QUESTIONS
    pieces = Pieces([flat.truth], [True])
    for seconds, count, questions in SHORT:
        for _ in range(count if 2 * seconds <= flat.truth.seconds else 0):
            _, start, stop = pieces.piece(seconds, rng)
            yield flat.piece(start, stop), questions


def fit_temperatures(
    model: VideoSalmonnS, parts: EventParts, flats: Sequence[Tokens], most: int = QUESTIONS
) -> Figures:
    """Fit a temperature for each type of answer on answers from events; returns the share that is right.

    A type with few answers gets that of all types.

    Args:
        model: the network; it answers with these parts from now on.
        parts: what answers from events need; gets the temperatures.
        flats: encoded streams of hours of training worlds that nothing else was fitted to.
        most: most questions about one stream.
    """
    model.event_parts, parts.names.temperature = parts, {kind.name: 1.0 for kind in AnswerType}
    found: list[Judgement] = []
    raw = Calibration.raw(model.checkpoint.id)
    for number, flat in enumerate(flats):
        for part, (tokens, questions) in enumerate(asked_of(flat, SEED + number)):
            asked = records(tokens, min(questions, most), SEED + 100 * number + part, f"events-{number}-{part}")
            # What the network answers has a weight of "nothing"; what comes from events has none.
            found += [a.judged() for a in answered(model, tokens, asked, raw) if math.isnan(a.null_weight)]
    sure = [j for j in found if not math.isnan(j.confidence)]
    temperature, confidences, right = {}, [], []
    for kind in (kind for kind in AnswerType if kind != AnswerType.ANY):
        mine = [j for j in sure if j.record.answer_type == kind.name]
        fitted_on = mine if len(mine) >= FEW else sure
        if not fitted_on:
            continue
        fitted = fit_temperature([j.confidence for j in fitted_on], [j.correct for j in fitted_on], smoothed=True)
        temperature[kind.name] = round(fitted, 3)
        own = Calibration(checkpoint=model.checkpoint.id, temperature={kind.name: fitted})  # type: ignore[dict-item]
        confidences += [own.confidence(kind, j.confidence) for j in mine]
        right += [j.correct for j in mine]
    parts.names.temperature = temperature
    figures = {"answers": float(len(found)), "right": sum(j.correct for j in found) / max(1, len(found))}
    return figures | ({"calibration_error": calibration_error(confidences, right)} if right else {})
