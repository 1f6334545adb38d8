"""`salmonn memory`: list, show, verify, export and clean the memories that nodes have stored."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from salmonn_node.storage.directory import (
    Lock,
    LockedError,
    MemoryPlace,
    default_root,
    describe,
    in_use,
    list_memories,
    set_aside,
)
from salmonn_node.storage.files import FileLayer
from salmonn_node.storage.snapshot import (
    EVIDENCE,
    SnapshotError,
    read_manifest,
    read_tensors,
    snapshot_directories,
    verify_files,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

MIB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    parser.add_argument("--directory", type=Path, default=None, help="folder of memories (the node's default)")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("ls", help="list stored memories")
    info = actions.add_parser("info", help="show what a memory holds, with a chart of kept tokens")
    info.add_argument("name", help="name of a memory")
    info.add_argument("--png", type=Path, help="draw the chart into this file too")
    verify = actions.add_parser("verify", help="check every snapshot and journal against its checksums")
    verify.add_argument("name", nargs="?", help="name of a memory (all)")
    export = actions.add_parser("export", help="pack a memory into a tar file")
    export.add_argument("name", help="name of a memory")
    export.add_argument("file", type=Path, help="tar file to write; unpack it into another folder of memories")
    aside = actions.add_parser("set-aside", help="rename a memory that cannot be restored, so that a node begins anew")
    aside.add_argument("name", help="name of a memory")
    gc = actions.add_parser("gc", help="delete old and unfinished snapshots, and journals that no restore needs")
    gc.add_argument("name", nargs="?", help="name of a memory (all)")
    gc.add_argument("--keep", type=int, default=3, help="newest whole snapshots that stay (%(default)s)")
    gc.add_argument("--damaged", action="store_true", help="also delete what is damaged")
    gc.add_argument("--dry-run", action="store_true", help="only print what would be deleted")


def run(args: argparse.Namespace) -> int:
    """Run one action; 0 when all is well, 1 when something is damaged, 2 for a name or file that cannot be used."""
    from rich.console import Console

    actions: dict[str, Callable[[Path, argparse.Namespace, Console], int]] = {
        "ls": _ls, "info": _info, "verify": _verify, "export": _export, "gc": _gc, "set-aside": _set_aside,
    }  # fmt: skip
    try:
        root = (args.directory or default_root()).expanduser()
        if args.directory is not None and not root.is_dir():
            raise FileNotFoundError(f"{root} is no directory; --directory names the folder that holds memories")
        return actions[args.action](root, args, Console(highlight=False))
    except (ValueError, OSError, SnapshotError) as error:
        print(f"salmonn memory: {error}", file=sys.stderr)
        return 2


def _stamp(stamp_ns: int) -> str:
    """A stamp as UTC when it can be one, else as seconds."""
    if stamp_ns > 10**18:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(stamp_ns / 1e9))
    return f"{stamp_ns / 1e9:.1f} s"


def _ls(root: Path, args: argparse.Namespace, console: Console) -> int:
    from rich.table import Table

    names = list_memories(root)
    if not names:
        console.print(f"no memories in {root}")
        return 0
    table = Table("name", "snapshots", "observed from", "to", "checkpoint", "MiB", "state")
    for name in names:
        place = MemoryPlace(root, name)
        held = describe(place)
        newest = held.manifests[0] if held.manifests else None
        state = "in use" if in_use(place) else "damaged parts" if held.problems else "whole"
        seen = newest is not None and newest.newest_ns > 0
        table.add_row(
            name,
            str(len(held.manifests)),
            _stamp(newest.start_ns) if newest and seen else "-",
            _stamp(newest.newest_ns) if newest and seen else "-",
            newest.identity["checkpoint"] if newest else "-",
            f"{held.size_bytes / MIB:.1f}",
            state,
        )
    console.print(table)
    return 0


def _info(root: Path, args: argparse.Namespace, console: Console) -> int:
    from salmonn_node.storage.retention import as_text, remembered, write_png

    place = MemoryPlace(root, args.name)
    held = describe(place)
    console.print(f"memory {args.name}: {held.size_bytes / MIB:.1f} MiB in {place.directory}")
    for manifest in held.manifests:
        console.print(
            f"  snapshot {manifest.number}: {_stamp(manifest.start_ns)} to {_stamp(manifest.newest_ns)}, "
            f"{manifest.bytes / MIB:.1f} MiB, checkpoint {manifest.identity['checkpoint']}, "
            f"on {manifest.machine.get('host', '?')}"
        )
    for problem in held.problems:
        console.print(f"  damaged: {problem}", markup=False)
    segments = place.segments()
    console.print(f"  journal: {len(segments)} segments, {sum(p.stat().st_size for _, p in segments) / MIB:.1f} MiB")
    if not held.manifests:
        console.print("  no snapshot yet: what was observed lies in the journal alone")
        return 1 if held.problems else 0
    newest = held.manifests[0]
    tensors = read_tensors(place.snapshots / f"{newest.number:08d}")
    found = remembered(tensors, newest.state["values"])
    if found is None:
        console.print("  nothing is kept yet")
    else:
        console.print(f"  kept tokens per {found.bin_s} s of snapshot {newest.number}, the journal not counted:")
        for line in as_text(found):
            console.print(f"  {line}", markup=False, soft_wrap=True)
        if found.waiting:
            console.print(f"  and {found.waiting} visual tokens that wait for their mini-batch")
        if args.png:
            write_png(found, args.png)
            console.print(f"  drawn to {args.png}")
    return 1 if held.problems else 0


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True)


def _verify(root: Path, args: argparse.Namespace, console: Console) -> int:
    from salmonn_node.memory.evidence_index import EvidenceIndex

    names = [args.name] if args.name else list_memories(root)
    if not names:
        raise FileNotFoundError(f"there are no memories in {root}: nothing was checked")
    bad = 0
    for name in names:
        place = MemoryPlace(root, name)
        describe(place)
        for _, path in reversed(snapshot_directories(place.snapshots)):
            try:
                manifest = read_manifest(path)
                with _progress(console) as progress:
                    task = progress.add_task(f"{name} snapshot {manifest.number}", total=manifest.bytes)
                    verify_files(path, manifest, lambda count, p=progress, t=task: p.advance(t, count))  # type: ignore[misc]
                console.print(f"{name}: snapshot {manifest.number} is whole")
            except SnapshotError as error:
                if not path.is_dir():
                    continue  # a running node has just removed it
                bad += 1
                console.print(f"{name}: {error}", markup=False)
        databases = [place.evidence, *sorted(place.snapshots.glob(f"*/{EVIDENCE}"))]
        for path in (database for database in databases if database.is_file()):
            problem = EvidenceIndex.check(path)
            bad += bool(problem)
            text = f"damaged: {problem}" if problem else "whole"
            console.print(f"{name}: {path.relative_to(place.directory)}, {text}", markup=False)
        missing = [] if in_use(place) else _missing(place)
        bad += len(missing)
        for text in missing:
            console.print(f"{name}: {text}", markup=False)
        for number, segment in place.segments():
            problem, records = _read_through(name, segment, console)
            if problem and in_use(place):
                numbers = [n for n, _ in place.segments()]
                if number not in numbers:
                    continue  # the node has just removed it
                if number == max(numbers) and problem.endswith(("is cut short", "ends within its header")):
                    problem = ""  # the node is writing its last record
            bad += bool(problem)
            text = f"damaged: {problem}" if problem else "whole"
            console.print(f"{name}: journal {segment.name}, {records} records, {text}", markup=False)
    return 1 if bad else 0


def _missing(place: MemoryPlace) -> list[str]:
    """What the newest snapshot knows of, or a journal without a snapshot follows, and is not there."""
    from salmonn_node.storage.absence import held_moments, missing_parts
    from salmonn_node.storage.restore import begins_with_journal

    manifests = describe(place).manifests
    if manifests:
        return missing_parts(place, manifests[0], held_moments(place.evidence))
    if begins_with_journal(place) or not (place.segments() or held_moments(place.evidence)):
        return []
    return ["no snapshot is left, and the journal does not begin with the memory: a node refuses to restore it"]


def _read_through(name: str, segment: Path, console: Console) -> tuple[str, int]:
    from salmonn_node.storage.journal import JournalReader

    try:
        reader = JournalReader(segment)
        with _progress(console) as progress:
            task = progress.add_task(f"{name} {segment.name}", total=segment.stat().st_size)
            for _ in reader:
                progress.update(task, completed=reader.bytes)
    except (ValueError, FileNotFoundError) as error:
        return str(error), 0
    return reader.damage, reader.records


def _export(root: Path, args: argparse.Namespace, console: Console) -> int:
    from salmonn_node.storage.export import export_memory

    place = MemoryPlace(root, args.name)
    held = describe(place)
    with _progress(console) as progress:
        task = progress.add_task(f"exporting {args.name}", total=held.size_bytes)
        export_memory(place, args.file, lambda count: progress.advance(task, count))
    console.print(f"{args.file}: {args.file.stat().st_size / MIB:.1f} MiB")
    return 0


def _set_aside(root: Path, args: argparse.Namespace, console: Console) -> int:
    target = set_aside(MemoryPlace(root, args.name))
    console.print(f"{args.name} is now {target.name}; a node that uses the name {args.name} begins anew", markup=False)
    return 0


def _gc(root: Path, args: argparse.Namespace, console: Console) -> int:
    from salmonn_node.storage.export import superfluous

    if args.keep < 1:
        raise ValueError(f"--keep must be at least 1, got {args.keep}")
    files = FileLayer()
    freed = 0
    for name in [args.name] if args.name else list_memories(root):
        place = MemoryPlace(root, name)
        describe(place)
        try:
            lock = Lock(place)
        except LockedError as error:
            console.print(f"{error}: left alone", markup=False)
            continue
        try:
            for path in superfluous(place, args.keep, args.damaged):
                parts = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
                size = sum(p.stat().st_size for p in parts)
                freed += size
                verb = "would delete" if args.dry_run else "deleting"
                console.print(f"{name}: {verb} {path.relative_to(place.directory)}, {size / MIB:.1f} MiB", markup=False)
                if not args.dry_run:
                    files.remove(path)
        finally:
            lock.release()
    console.print(f"{freed / MIB:.1f} MiB {'would be ' if args.dry_run else ''}freed")
    return 0
