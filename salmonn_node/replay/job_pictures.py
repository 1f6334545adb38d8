"""The pictures of a job's evidence: files beside its answers, so that an answer file stays text."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from salmonn_node.evaluation.answer_file import Answered
from salmonn_node.stream.answers import Answer


def save_pictures(folder: Path, answered: Answered) -> None:
    """Write the pictures of an answer below a job's folder."""
    for number, piece in enumerate(answered.answer.evidence):
        if piece.thumbnail:
            file = _file(folder, answered.id, number)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(piece.thumbnail)


def with_pictures(folder: Path, question_id: str, answer: Answer) -> Answer:
    """An answer with the pictures that were saved for it; evidence without one keeps what it has."""
    evidence = []
    for number, piece in enumerate(answer.evidence):
        file = _file(folder, question_id, number)
        evidence.append(replace(piece, thumbnail=file.read_bytes()) if file.exists() else piece)
    return replace(answer, evidence=tuple(evidence))


def _file(folder: Path, question_id: str, number: int) -> Path:
    """The name comes from the place in the answer and a digest, because an id is any text."""
    digest = hashlib.sha256(question_id.encode()).hexdigest()[:12]
    return folder / "evidence" / f"{digest}-{number}.jpg"
