"""How often evidence without an evidence head is right, measured on held-out worlds: one row for each question.

The network is asked in two ways. Through the node's answerer, as a planner asks it: that gives the answer and its signs
for abstention. And for its evidence alone, with "unknown" barred as the first token, so that each question has an
answer whose evidence can be looked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from salmonn_node.answering.confidence import Calibration
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.evaluation.scores import judge
from salmonn_node.lab.training import bank
from salmonn_node.lab.training.banked_observer import BankedObserver, answerer
from salmonn_node.lab.training.evaluate import records
from salmonn_node.lab.training.lessons import UNKNOWN, answer_text
from salmonn_node.lab.training.result_rows import add_row, read_rows
from salmonn_node.lab.training.streams import Pieces, Tokens, read_bank
from salmonn_node.model.answer_decoder import AnswerDecoder
from salmonn_node.model.evidence_windows import (
    CANDIDATES,
    WINDOW_NS,
    Windows,
    can_reread,
    sufficiencies,
    windows_of,
)
from salmonn_node.model.scene_view import SceneView
from salmonn_node.model.video_salmonn_s import VideoSalmonnS
from salmonn_node.model.windows_alone import affordable, sufficiencies_alone
from salmonn_node.stream.observations import Interval

Row = dict[str, Any]
QUESTIONS, UNANSWERABLE = 24, 5  # at the end of each stream; at most so many of them cannot be answered
LONGEST_ANSWER = 12
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Split:
    """Streams to ask about.

    Attributes:
        name: name in the rows.
        worlds: worlds that the streams are cut from.
        streams: (seconds, number of streams).
        seed: seed of the streams and questions. From 100 000 on, half of the wordings are held out from training.
    """

    name: str
    worlds: bank.WorldSet
    streams: tuple[tuple[int, int], ...]
    seed: int


TEST = Split("test", replace(bank.HELD_OUT, count=8), ((60, 22), (120, 6)), 910_100)
FIT = Split("fit", replace(bank.CALIBRATE, count=4), ((60, 8),), 700_100)


class _Known:
    """A grammar of all texts that do not begin with "unknown"."""

    def __init__(self, model: VideoSalmonnS) -> None:
        self._all = list(range(model.config.text["vocab_size"]))
        barred = model.tokenizer.encode(UNKNOWN)[0]
        self._first = [token for token in self._all if token != barred]

    def allowed(self, text: str) -> list[int]:
        return self._all if text else self._first


def rows_of(model: VideoSalmonnS, work: Path, split: Split, results: Path | None) -> list[Row]:
    """Measure all questions of a split. Streams that are in `results` already are not measured again.

    Args:
        model: the network. With an evidence head, the head is not looked at.
        work: folder of the rendered worlds. Missing ones are rendered, which needs OpenGL.
        split: what to ask about.
        results: file of rows, written as they come.
    """
    bank.render(work, split.worlds)
    held = read_bank(work, split.worlds, model.network)
    pieces = Pieces([s.truth for s in held.streams], held.dense)
    rng = np.random.default_rng(split.seed)
    mine = (split.name, model.checkpoint.id)
    known = [row for row in read_rows(results) if (row["split"], row["checkpoint"]) == mine]
    done, found = {row["stream"] for row in known}, list(known)
    number = 0
    for seconds, count in split.streams:
        for _ in range(count):
            tokens = held.stream(pieces.several(seconds, seconds, rng))
            name, seed, number = f"{split.name}-{seconds}-{number}", split.seed + number, number + 1
            if name in done:
                continue
            about = {"split": split.name, "checkpoint": model.checkpoint.id, "stream": name, "seconds": seconds}
            made = [about | row for row in _asked(model, tokens, _few(records(tokens, QUESTIONS, seed, name)))]
            for row in made:
                add_row(results, row)
            found += made
    return found


def _few(asked: Sequence[QuestionRecord]) -> list[QuestionRecord]:
    """All answerable questions, and the first UNANSWERABLE others."""
    others = [record.id for record in asked if not record.answerable][:UNANSWERABLE]
    return [record for record in asked if record.answerable or record.id in others]


@torch.no_grad()
def _asked(model: VideoSalmonnS, tokens: Tokens, asked: Sequence[QuestionRecord]) -> Iterator[Row]:
    observer = BankedObserver(model)
    observer.take(tokens)
    # Nothing is held back here: the rules of abstention are applied to the rows later.
    open_handed = Calibration(checkpoint=model.checkpoint.id, shown_below=0.0)
    speaker, view = answerer(observer, open_handed), observer.wait_for_view()
    last: list[AnswerDecoder] = []  # readings of the question that is being asked, so that it is read once
    read = model.answers.read

    def kept(text: str, seen: SceneView) -> AnswerDecoder:
        last.append(read(text, seen))
        return last[-1]

    model.answers.read = kept  # type: ignore[method-assign]
    for record in asked:
        question = record.question(limited=False)
        last.clear()
        answer = speaker.ask(question, deadline=time.monotonic() + PATIENCE_S, view=view, hurried=lambda: True)
        judged = judge(record, answer)
        row: Row = {
            "kind": str(record.kind),
            "type": record.answer_type,
            "answerable": record.answerable,
            "correct": judged.correct,
            "abstained": judged.abstained,
            "reply_hit": judged.evidence_hit,
            "signs": None if speaker.signs is None else dict(speaker.signs),
        }
        decoder = last[-1]
        decoder.reading.cache.truncate(len(decoder.prompt))
        yield row | _evidence(model, decoder, record)
    model.answers.read = read  # type: ignore[method-assign]


def _evidence(model: VideoSalmonnS, decoder: AnswerDecoder, record: QuestionRecord) -> Row:
    """Whether the heaviest window of each way lies on the evidence, whether the words are right, and the costs."""
    view, tokenizer = decoder.view, model.tokenizer
    calls = iter(range(LONGEST_ANSWER))
    said, _ = decoder.constrained(_Known(model), lambda: next(calls, None) is None)
    text = "yes" if record.kind == "existence" else said or ""
    answer = [*tokenizer.encode(tokenizer.escape(text)), tokenizer.specials.im_end]
    generation = decoder.decode(1, lambda: False, None)
    windows = Windows.of(view, generation.attention)
    row: Row = {"said": said, "words_right": (said or "") == answer_text(record)}
    if not record.answerable:
        return row
    starts = windows_of(view).unique() * WINDOW_NS
    hits = torch.tensor([_met(int(start), record) for start in starts])
    row |= {"windows": len(hits), "chance": float(hits.float().mean()), "attention": bool(hits[windows.mass.argmax()])}
    every = windows.heaviest(len(hits))
    compared = every[:CANDIDATES]
    row["candidates"] = bool(hits[compared].any())
    if model.network.evidence is None and can_reread(decoder):
        scores = sufficiencies(decoder, windows, every, answer)
        assert scores is not None
        row["masked"] = _hit(hits, compared, scores[:CANDIDATES])
        row["weighed"] = _hit(hits, compared, scores[:CANDIDATES] + windows.mass[compared].log())
        scored = windows.scored(decoder.attention_by_head(), every, scores)
        row["scored"] = {
            "attention": np.round(scored.attention.numpy().astype(float), 5).tolist(),
            "sufficiency": np.round(scored.sufficiency.numpy().astype(float), 3).tolist(),
            "hits": hits.tolist(),
        }
    order = affordable(decoder, windows, answer)
    alone = sufficiencies_alone(decoder, lambda part: model.prompt(record.text, part), windows, order, answer)
    assert alone is not None
    row["alone"], row["compared"] = _hit(hits, order, alone), len(order)
    row["alone_weighed"] = _hit(hits, order, alone + windows.mass[order].log())
    row["alone_candidates"] = _hit(hits, order[: len(compared)], alone[: len(compared)])
    return row


def _hit(hits: Tensor, compared: Tensor, scores: Tensor) -> bool:
    return bool(hits[compared[scores.argmax()]])


def _met(start_ns: int, record: QuestionRecord) -> bool:
    """Whether a window meets some piece of evidence."""
    window = Interval(start_ns, start_ns + WINDOW_NS - 1)
    return any(window.overlaps(piece.interval) for piece in record.evidence)
