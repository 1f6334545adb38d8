"""Questions, answers and evidence pictures as a folder that Hugging Face `datasets` loads, and back.

The folder holds one Parquet file with the pictures in it, and a card. Each row is a question of one recording, with its
answer if there is one. Every column but the pictures and the words of the answer is read back.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from salmonn_node.evaluation.answer_file import Answered, answer_from_json, answer_to_json
from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.evaluation.scores import judge
from salmonn_node.evaluation.wording import answer_text

PARQUET = Path("data") / "test-00000-of-00001.parquet"
ROWS_AT_ONCE = 256  # pictures are held in memory for so many rows
CARD = """---
pretty_name: {name}
size_categories: [{size}]
configs:
- config_name: default
  data_files:
  - split: test
    path: data/test-*.parquet
---

{rows} questions about recordings of a robot{answered}. Stamps are nanoseconds of the recording's clock. `about` and
`answer` are JSON. `evidence` is what is enough to answer; `pictures` show what the given answer rests on.

Pictures of cameras can show people: ask before you publish them.
"""


@dataclass(frozen=True)
class DatasetRow:
    """One row: a question, and its answer with its pictures if there is one."""

    record: QuestionRecord
    answered: Answered | None = None


def write_dataset(folder: Path, rows: Iterable[DatasetRow]) -> int:
    """Write a new folder; after a failure it is not there. Returns the number of rows.

    Raises:
        FileExistsError: `folder` exists.
        RuntimeError: pyarrow is not installed (extra `datasets`).
        ValueError: a value that the format cannot hold, such as a stamp of more than 64 bits, or no row.
    """
    arrow, parquet = _arrow()
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; name a folder that does not")
    schema = _schema(arrow)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    whole = scratch / folder.name
    count = answers = 0
    try:
        (whole / PARQUET).parent.mkdir(parents=True)
        with parquet.ParquetWriter(whole / PARQUET, schema, compression="zstd") as writer:
            for batch in _batches(rows):
                values = [_values(row) for row in batch]
                try:
                    writer.write_table(arrow.Table.from_pylist(values, schema=schema))
                except (OverflowError, arrow.ArrowException) as error:
                    raise ValueError(
                        f"a question between {batch[0].record.id} and {batch[-1].record.id}: {error}"
                    ) from None
                count += len(batch)
                answers += sum(row.answered is not None for row in batch)
        if not count:
            raise ValueError("there is no question to write")
        size = next(name for limit, name in _SIZES if count < limit)
        answered = f", {answers} of them with the answer of salmonn_node" if answers else ""
        card = CARD.format(name=json.dumps(folder.name), size=size, rows=count, answered=answered)
        (whole / "README.md").write_text(card, encoding="utf-8")
        whole.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return count


def read_dataset(folder: Path) -> Iterator[DatasetRow]:
    """Read the rows of a folder that `write_dataset` wrote, or that was edited with `datasets` since.

    Raises:
        RuntimeError: pyarrow is not installed (extra `datasets`).
        ValueError: no Parquet file, another table, or a row that is no question; the message names file and row.
    """
    arrow, parquet = _arrow()
    files = sorted(folder.rglob("*.parquet")) if folder.is_dir() else [folder]
    if not files:
        raise ValueError(f"{folder} holds no .parquet file; expected {PARQUET}")
    number = 0
    for file in files:
        try:
            table = parquet.ParquetFile(file)
        except (OSError, arrow.ArrowException) as error:
            raise ValueError(f"{file} cannot be read as Parquet: {error}") from None
        with table:
            missing = {"id", "ask_ns", "text"} - set(table.schema_arrow.names)
            if missing:
                raise ValueError(f"{file} has no column {', '.join(sorted(missing))}; expected a table of questions")
            for batch in table.iter_batches(ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    try:
                        yield _row(row)
                    except (ValueError, KeyError, TypeError) as error:
                        text = " ".join(str(error).split())
                        raise ValueError(f"{file}, row {number}: no question: {text}") from None


# -- columns ----------------------------------------------------------------------------------------------------------

_SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (2**63, "n>100K")]
_EXPECTED = {
    "text": "string", "accepted": ["string"], "vocabulary": ["string"], "binary": "bool", "choice_index": "int64",
    "count": "int64", "position_m": ["float64"], "frame_id": "string", "map_id": "string", "pose_kind": "string",
    "event_start_ns": "int64", "event_end_ns": "int64", "duration_s": "float64",
}  # fmt: skip
_TOLERANCE = {"position_m": "float64", "time_s": "float64", "duration_s": "float64", "duration_fraction": "float64"}
_QUESTION: dict[str, Any] = {
    "id": "string", "stream": "string", "ask_ns": "int64", "text": "string", "kind": "string",
    "answer_type": "string", "choices": ["string"], "answerable": "bool", "expected": _EXPECTED,
    "tolerance": _TOLERANCE, "evidence": [{"start_ns": "int64", "end_ns": "int64", "modality": "string"}],
    "needs_all": "bool", "near_miss": "string", "stream_s": "float64", "phrasing": "string", "pixels": "float64",
    "snr_db": "float64", "about": "string",
}  # fmt: skip
_ANSWER: dict[str, Any] = {
    "answer_text": "string", "correct": "bool", "confidence": "float64", "answer": "string", "pictures": ["image"],
}  # fmt: skip
COLUMNS = _QUESTION | _ANSWER


def _schema(arrow: Any) -> Any:
    """The table's schema, with the metadata by which `datasets` knows that bytes are pictures."""
    scalars = {"string": arrow.string(), "int64": arrow.int64(), "float64": arrow.float64(), "bool": arrow.bool_()}
    scalars["image"] = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])

    def typed(kind: Any) -> Any:
        if isinstance(kind, dict):
            return arrow.struct([(name, typed(inner)) for name, inner in kind.items()])
        return arrow.list_(typed(kind[0])) if isinstance(kind, list) else scalars[kind]

    def feature(kind: Any) -> Any:
        if isinstance(kind, dict):
            return {name: feature(inner) for name, inner in kind.items()}
        if isinstance(kind, list):
            # Lists of structs are plain lists: a Sequence of them would become a struct of lists.
            return (
                [feature(kind[0])] if isinstance(kind[0], dict) else {"feature": feature(kind[0]), "_type": "Sequence"}
            )
        return {"_type": "Image"} if kind == "image" else {"dtype": kind, "_type": "Value"}

    metadata = {"huggingface": json.dumps({"info": {"features": feature(COLUMNS)}})}
    return arrow.schema([(name, typed(kind)) for name, kind in COLUMNS.items()], metadata=metadata)


def _values(row: DatasetRow) -> dict[str, Any]:
    record = row.record
    values = record.model_dump(mode="python")
    values["about"] = json.dumps(values["about"], sort_keys=True) if values["about"] else ""
    if row.answered is None:
        return values
    answer = row.answered.answer
    facts = answer_to_json(answer)
    return values | {
        "answer_text": answer_text(answer, record, answer.memory_start_ns),
        "correct": judge(record, answer).correct,
        "confidence": facts["confidence"],
        "answer": json.dumps(facts),
        "pictures": [
            {"bytes": piece.thumbnail, "path": f"{number}.jpg"}
            for number, piece in enumerate(answer.evidence)
            if piece.thumbnail
        ],
    }


def _row(values: dict[str, Any]) -> DatasetRow:
    question = {name: values[name] for name in _QUESTION if values.get(name) is not None}
    question["about"] = json.loads(question.get("about") or "{}")
    expected, tolerance = question.get("expected", {}), question.get("tolerance", {})
    question["expected"] = {name: value for name, value in expected.items() if value is not None}
    question["tolerance"] = {name: value for name, value in tolerance.items() if value is not None}
    record = QuestionRecord.model_validate(question)
    if not values.get("answer"):
        return DatasetRow(record)
    answer = answer_from_json(json.loads(values["answer"]))
    pictures = {picture["path"]: picture["bytes"] for picture in values.get("pictures") or []}
    evidence = [
        replace(piece, thumbnail=pictures.get(f"{number}.jpg") or b"") for number, piece in enumerate(answer.evidence)
    ]
    return DatasetRow(record, Answered(record.id, record.stream, replace(answer, evidence=tuple(evidence))))


def _batches(rows: Iterable[DatasetRow]) -> Iterator[Sequence[DatasetRow]]:
    batch: list[DatasetRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise RuntimeError("this needs pyarrow: pip install 'salmonn_node[datasets]'") from None
    return pyarrow, pyarrow.parquet
