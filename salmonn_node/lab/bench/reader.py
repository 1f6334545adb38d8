"""Is the evidence among the pictures that a server is sent? Two passes over the event log against fixed choices.

Worlds are rendered, or read from a folder, and taken in by the node's observer; questions are asked at the end. The
server is a STUB: its first pass is a reader of words over perfect captions, or one that knows where the evidence lies.
No model is run but the tiny network, as the internal reader: there the figure is whether its evidence hits.
"""

from __future__ import annotations

import argparse
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from salmonn_node.evaluation.questions import QuestionRecord
from salmonn_node.lab.perfect_reader import PerfectReader
from salmonn_node.lab.stub_server import StubServer
from salmonn_node.lab.word_reader import WordReader, caption
from salmonn_node.lab.world.asking import ask
from salmonn_node.lab.world.shards import Shard, make_shard, read_shard, write_shard
from salmonn_node.lab.world.stream import World
from salmonn_node.stream.answers import Question
from salmonn_node.stream.observations import AudioChunk, Frame, Pose

WIDTH_PX, HEIGHT_PX = 128, 72
SPARSE, DENSE = 420_000, 430_000  # held-out seeds
QUESTIONS, BOOTSTRAP = 150, 2_000
ARMS = (
    "internal: its evidence",
    "two passes, words",
    "two passes, knows the time",
    "uniform",
    "last",
    "all pictures of the log",
)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All worlds of both densities."""
    rows: list[dict[str, Any]] = []
    for dense in (False, True):
        for number in range(args.worlds):
            seed = (DENSE if dense else SPARSE) + number
            shard = _shard(args.work, seed, args.minutes, dense)
            found = _world(_first(shard, args.first), seed, args)
            rows.append(found)
            shares = {arm: float(np.mean(hits)) for arm, hits in found["hits"].items() if hits}
            print(f"world {seed}: {found['questions']} questions, {found['entries']} entries, {shares}", flush=True)
    return {"minutes": args.first or args.minutes, "pictures": args.pictures, "rows": rows}


def _shard(folder: Path, seed: int, minutes: float, dense: bool) -> Shard:
    seconds = round(60 * minutes)
    path = folder / f"{seed}-{seconds}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_shard(path, make_shard(World(seed, seconds, dense), WIDTH_PX, HEIGHT_PX))
    return read_shard(path)


def _first(shard: Shard, minutes: float) -> Shard:
    """The first minutes of a world; 0 leaves it whole."""
    seconds = round(60 * minutes) or shard.truth.seconds
    truth = shard.truth.piece(0, seconds)
    return Shard(shard.frames[:seconds], shard.audio[:seconds], truth, shard.seed, shard.dense)


def observations(shard: Shard) -> Iterator[Frame | AudioChunk | Pose]:
    """What the node would get of a world: a pose, a picture and sound each second."""
    for moment in shard.truth.moments:
        stamp, half = moment.stamp_ns, moment.pose.yaw / 2
        turn = np.array([0.0, 0.0, math.sin(half), math.cos(half)])
        yield Pose(stamp, "map", np.array([moment.pose.x, moment.pose.y, 0.0]), turn, map_id=shard.truth.map_id)
        yield Frame(stamp, "front", shard.frames[moment.second], "front_optical")
        yield AudioChunk(stamp, "mic", shard.sound(moment.second)[:, None], 16_000, "mic")


def _world(shard: Shard, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    from salmonn_node.answering.server_client import ServerClient
    from salmonn_node.answering.server_reader import ServerReader
    from salmonn_node.answering.server_settings import ServerSettings
    from salmonn_node.model.checkpoint import load
    from salmonn_node.runtime.build import assemble
    from salmonn_node.runtime.server import keep_log
    from salmonn_node.runtime.settings import Settings

    truth, model = shard.truth, load("tiny")
    records = ask(truth, 600_000 + seed % 1000, QUESTIONS, name=str(seed), times=[truth.seconds])
    asked = [r for r in {r.text: r for r in records}.values() if r.answerable and _seen(r)]
    settings = Settings()
    observer, internal = assemble(model, settings, inline=True)
    keep_log(model, ServerSettings("server"), "tiny")
    observer.restart()  # the new session keeps a log
    for observation in observations(shard):
        observer.submit(observation)
    observer.finish()
    log = observer.memory.log
    assert log is not None
    entries = log.entries()
    for entry in entries:
        observer.caption(entry.key, caption(entry, truth))
    hits: dict[str, list[bool]] = defaultdict(list)
    chars = 0
    with StubServer(lambda request: "") as server:

        def reader(choice: str) -> ServerReader:
            given: dict[str, Any] = {"server_pictures": args.pictures, "server_choice": choice}
            given |= {"server_url": server.url, "server_model": "stub", "server_log_chars": args.log_chars}
            return ServerReader(observer, ServerClient(ServerSettings("server", **given)))

        scripts: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
            "two passes, words": ("log", WordReader(asked, args.pictures)),
            "two passes, knows the time": ("log", PerfectReader(truth, asked, args.pictures)),
            "uniform": ("uniform", PerfectReader(truth, asked)),
            "last": ("last", PerfectReader(truth, asked)),
        }
        for arm, (choice, script) in scripts.items():
            server.script, asking = script, reader(choice)
            for record in asked:
                asking.shown = []
                asking.answer(
                    _question(record),
                    _blank(observer),
                    max_evidence=3,
                    deadline=math.inf,
                    cancel=threading.Event(),
                )
                hits[arm].append(_hit(record, [e.picture.stamp_ns for e in asking.shown if e.picture]))
                first = asking.exchanges[0].messages[1]["content"]
                chars = max(chars, len(first)) if isinstance(first, str) else chars
    every = [p.stamp_ns for entry in entries for p in entry.pictures]
    hits["all pictures of the log"] = [_hit(record, every) for record in asked]
    if args.internal:
        for record in asked:
            answer = internal.ask(_question(record), deadline=math.inf)
            spans = [piece.interval for piece in answer.evidence]
            hits["internal: its evidence"].append(
                any(s.start_ns <= e.end_ns and e.start_ns <= s.end_ns for s in spans for e in _seen(record))
            )
    return {
        "seed": seed,
        "dense": shard.dense,
        "questions": len(asked),
        "entries": len(entries),
        "log_chars": chars,
        "log_bytes": log.nbytes,
        "kinds": [record.kind for record in asked],
        "hits": dict(hits),
    }


def _seen(record: QuestionRecord) -> list[Any]:
    return [piece for piece in record.evidence if piece.modality != "audio"]


def _hit(record: QuestionRecord, stamps: list[int]) -> bool:
    return any(piece.start_ns <= stamp <= piece.end_ns for piece in _seen(record) for stamp in stamps)


def _question(record: QuestionRecord) -> Question:
    return record.question()


def _blank(observer: Any) -> Any:
    from salmonn_node.stream.answers import Answer

    return Answer(memory_start_ns=observer.start_ns, last_observation_ns=observer.newest_ns)


def tables(results: dict[str, Any]) -> list[Table]:
    """Shares with intervals: bootstrap over worlds, then over questions of a world."""
    table = Table("arm", "sparse", "dense")
    minutes, pictures = results["minutes"], results["pictures"]
    table.title = f"evidence among the pictures sent; {minutes:g} minutes, at most {pictures} pictures; a stub server"
    for arm in ARMS:
        cells = []
        for dense in (False, True):
            worlds = [row["hits"].get(arm, []) for row in results["rows"] if row["dense"] == dense]
            cells.append(_share([hits for hits in worlds if hits]))
        table.add_row(arm, *cells)
    return [table]


def _share(worlds: list[list[bool]]) -> str:
    if not worlds:
        return "not run"
    rng = np.random.default_rng(0)
    means = []
    for _ in range(BOOTSTRAP):
        drawn = [worlds[i] for i in rng.integers(0, len(worlds), len(worlds))]
        means.append(np.mean(np.concatenate([rng.choice(hits, len(hits)) for hits in drawn])))
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{np.mean(np.concatenate(worlds)):.2f} ({low:.2f} to {high:.2f}), n={sum(map(len, worlds))}"
