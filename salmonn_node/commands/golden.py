"""`salmonn golden`: recompute the golden vectors of a folder and print the largest error of each file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from salmonn_node.lab.bench.golden import Check, FileResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `salmonn golden`."""
    parser.add_argument("directory", type=Path, help="folder of golden vectors")
    parser.add_argument("--only", default="*", help="check only files whose name matches this pattern")
    parser.add_argument("--verbose", action="store_true", help="print every value, not only the worst")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Check every file: 0 when all that could be checked passed, 1 after a failure, 2 when there was nothing."""
    from salmonn_node.lab.bench.golden import check_file, golden_files, load_families

    if not args.directory.is_dir():
        print(f"salmonn golden: {args.directory} is not a folder", file=sys.stderr)
        return 2
    load_families()
    results = [check_file(p) for p in golden_files(args.directory) if fnmatch(p.name, args.only)]
    if args.json:
        print(json.dumps([_as_json(r) for r in results], indent=2))
    else:
        _print_table(results, args.verbose)
    checked = [r for r in results if r.state not in ("unknown", "helper")]
    if not checked:
        return 2
    return int(any(r.state != "passed" for r in checked))


def _as_json(result: FileResult) -> dict[str, Any]:
    worst = result.worst
    return {
        "file": result.name,
        "state": result.state,
        "detail": result.detail,
        "checks": len(result.checks),
        "worst": None if worst is None else {"key": worst.key, "error": worst.error, "tolerance": worst.tolerance},
        "failed": [{"key": c.key, "error": c.error, "tolerance": c.tolerance} for c in result.checks if not c.passed],
    }


def _figures(check: Check) -> str:
    return f"{check.error:.2e} of {check.tolerance:.0e}"


def _print_table(results: Sequence[FileResult], verbose: bool) -> None:
    width = max((len(r.name) for r in results), default=0)
    for result in results:
        worst = result.worst
        line = f"{result.state:8} {result.name:{width}}"
        if worst is not None:
            line += f" {len(result.checks):4} values, largest error {_figures(worst)} ({worst.key})"
        print(f"{line} {result.detail}".rstrip())
        for check in result.checks:
            if verbose or (not check.passed and check is not worst):
                print(
                    f"    {'ok  ' if check.passed else 'FAIL'} {check.key}: {check.error:.2e} of {check.tolerance:.0e}"
                )
    count = {state: sum(r.state == state for r in results) for state in ("passed", "failed", "error", "unknown")}
    print(", ".join(f"{number} {state}" for state, number in count.items()))
