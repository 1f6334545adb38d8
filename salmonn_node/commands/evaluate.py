"""`salmonn eval tiny`: arms of the memory on worlds never trained on, by length of stream and age of evidence."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from salmonn_node.evaluation.arms import bytes_table, changes, parse_arms
from salmonn_node.evaluation.scores import Judgement, accuracy, bootstrap
from salmonn_node.lab.training import bank
from salmonn_node.lab.training.eval_plot import write_plot
from salmonn_node.lab.training.evaluate import answered, blind, records, table
from salmonn_node.lab.training.memories import CAMERA, MICROPHONE
from salmonn_node.lab.training.result_rows import add_row, read_rows
from salmonn_node.lab.training.streams import Pieces, Tokens, joined, read_bank
from salmonn_node.model.checkpoint import load
from salmonn_node.model.video_salmonn_s import VideoSalmonnS

DEFAULT = "default"
ARMS = "default,recent,fifo,uniform,merge,paper,place"
# What the questions give away to one who sees only, hears only, or says the commonest answer of each question's form.
BASELINES: dict[str, tuple[str, ...]] = {"vision": (CAMERA,), "audio": (MICROPHONE,), "blind": ()}
AGES_S = (0, 120, 600, 1800, 3600, 7200, 10**9)
SEED = 600_000


@dataclass(frozen=True)
class Set:
    """Streams to score on.

    Attributes:
        name: of the set.
        seconds: of each stream; 0: a world of `bank.LONG` whole.
        streams: how many.
        questions: asked at the end of each.
        dense: which worlds.
        joined: worlds of `bank.LONG` that follow each other in one stream.
    """

    name: str
    seconds: int
    streams: int
    questions: int
    dense: bool | None = None
    joined: int = 1


SETS = (
    Set("within", 44, 60, 14),
    Set("sparse-4x", 512, 5, 60, False),
    Set("sparse-16x", 2048, 3, 100, False),
    Set("sparse-100x", 0, 3, 150, False),
    Set("sparse-300x", 0, 1, 300, False, 3),
    Set("dense-1x", 128, 8, 40, True),
    Set("dense-4x", 512, 5, 60, True),
    Set("dense-16x", 2048, 3, 100, True),
    Set("dense-100x", 0, 1, 150, True),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `salmonn eval`."""
    parser.add_argument("checkpoint", help="tiny, or a folder")
    parser.add_argument("--work", type=Path, default=Path("train_tiny"), help="folder of the rendered worlds")
    parser.add_argument(
        "--arms", default=ARMS, help="arms of the memory, see docs/world.md; or baselines: " + ", ".join(BASELINES)
    )
    parser.add_argument(
        "--sets", default="", help="names of sets, all when left out: " + ", ".join(s.name for s in SETS)
    )
    parser.add_argument("--plot", type=Path, help="write accuracy against stream length here, as SVG")
    parser.add_argument("--results", type=Path, help="JSON lines, one an arm and set; what is there is not run again")


def run(args: argparse.Namespace) -> int:
    """Score and print a table."""
    import torch

    torch.set_num_threads(1)
    console = Console(soft_wrap=True)
    wanted = [s for s in SETS if not args.sets or s.name in args.sets.split(",")]
    arms = [a.strip() for a in args.arms.split(",")]
    done = {(row["set"], row["arm"]): row for row in read_rows(args.results)}
    kept = [arm for name in arms if name != DEFAULT and name not in BASELINES for arm in parse_arms(name)]
    reference = load(args.checkpoint)
    console.print(bytes_table(reference.config, kept))
    rows = []
    for chosen in wanted:
        streams: list[Tokens] | None = None
        for arm in arms:
            row = done.get((chosen.name, arm))
            if row is None:
                streams = streams or list(streams_of(chosen, args.work, reference.network))
                row = {"set": chosen.name, "arm": arm, **score(arm_model(args.checkpoint, arm), streams, chosen, arm)}
                add_row(args.results, row)
            rows.append(row)
            console.print(_line(row), highlight=False)
    console.print(_table(rows))
    if args.plot is not None:
        write_plot(args.plot, rows)
    return 0


def arm_model(checkpoint: str, arm: str) -> VideoSalmonnS:
    """The checkpoint with its memory kept as an arm says, at the same bytes; a baseline reads the checkpoint's own."""
    model = load(checkpoint)
    if arm == DEFAULT or arm in BASELINES:
        return model
    return load(checkpoint, **changes(model.config, arm))


def streams_of(chosen: Set, folder: Path, network: object) -> Iterator[Tokens]:
    """The streams of a set; worlds that are missing are rendered, which needs OpenGL."""
    worlds = bank.HELD_OUT if chosen.seconds else bank.LONG_DENSE if chosen.dense else bank.LONG_SPARSE
    bank.render(folder, worlds)
    if not chosen.seconds:
        whole = read_bank(folder, worlds, network).streams  # type: ignore[arg-type]
        for number in range(chosen.streams):
            yield joined(whole[number * chosen.joined : (number + 1) * chosen.joined])
        return
    held = read_bank(folder, bank.HELD_OUT, network)  # type: ignore[arg-type]
    pieces = Pieces([s.truth for s in held.streams], held.dense)
    rng = np.random.default_rng(SEED)
    for _ in range(chosen.streams):
        yield held.stream(pieces.several(chosen.seconds, min(chosen.seconds, 240), rng, chosen.dense))


def score(model: VideoSalmonnS, streams: list[Tokens], chosen: Set, arm: str = DEFAULT) -> dict[str, object]:
    """Figures of one arm or baseline on one set."""
    started = time.monotonic()
    found: list[Judgement] = []
    asked = [records(t, chosen.questions, SEED + i, f"{chosen.name}-{i}") for i, t in enumerate(streams)]
    if arm == "blind":
        found = [a.judged() for a in blind([record for mine in asked for record in mine])]
    else:
        for tokens, mine in zip(streams, asked, strict=True):
            found += [a.judged() for a in answered(model, tokens, mine, sources=BASELINES.get(arm, ()))]
    answerable = [j for j in found if j.record.answerable]
    low, high = bootstrap(answerable, accuracy, samples=300)
    ages = {}
    for first, last in zip(AGES_S, AGES_S[1:], strict=False):
        inside = [j for j in answerable if (age := j.record.evidence_age_s) is not None and first <= age < last]
        if inside:
            ages[str(first)] = [len(inside), round(accuracy(inside), 3)]
    kinds = {
        kind: [len(mine), round(accuracy(mine), 3)]
        for kind in sorted({j.record.kind for j in answerable})
        if (mine := [j for j in answerable if j.record.kind == kind])
    }
    figures = {name: round(value, 4) for name, value in table(found).items()}
    return {
        **figures, "low": round(low, 4), "high": round(high, 4), "ages": ages, "kinds": kinds,
        "settings": asdict(chosen), "s": round(time.monotonic() - started, 1),
    }  # fmt: skip


def _line(row: dict[str, object]) -> str:
    return f"{row['set']} {row['arm']}: " + ", ".join(
        f"{name} {row[name]}" for name in ("n", "answerable", "abstention_f1", "hit", "kept", "answerable_kept", "s")
    )


def _table(rows: list[dict[str, object]]) -> Table:
    shown = Table(title="answerable accuracy with its 95 % interval")
    arms = list(dict.fromkeys(str(r["arm"]) for r in rows))
    shown.add_column("set")
    for arm in arms:
        shown.add_column(arm)
    for name in dict.fromkeys(str(r["set"]) for r in rows):
        cells = {str(r["arm"]): r for r in rows if r["set"] == name}
        shown.add_row(name, *(_cell(cells.get(arm)) for arm in arms))
    return shown


def _cell(row: dict[str, object] | None) -> str:
    return "" if row is None else f"{row['answerable']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
