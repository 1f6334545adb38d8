"""Table of the last `make mutation`, by file: mutants, those that a test noticed, and the names of the others.

Reads the results of mutmut under mutants/. Run it in the folder of the checkout.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from mutmut.stats import status_by_exit_code

NOTICED = {"killed", "timeout", "segfault"}
WITHOUT_RESULT = {"not checked", "skipped"}


def main(root: Path = Path("mutants")) -> int:
    """Print the table and the mutants that survived; returns 1 when there is no result."""
    print("| file | mutants tried | noticed | share | not tried |\n|---|---:|---:|---:|---:|")
    total: Counter[str] = Counter()
    survived = []
    for meta in sorted(root.rglob("*.py.meta")):
        codes = json.loads(meta.read_text())["exit_code_by_key"]
        counts: Counter[str] = Counter()
        for name, code in codes.items():
            status = status_by_exit_code[code]
            kind = "noticed" if status in NOTICED else "left" if status in WITHOUT_RESULT else "survived"
            counts[kind] += 1
            survived += [f"{name} ({status})"] if kind == "survived" else []
        if counts["noticed"] + counts["survived"]:
            _row(str(meta.relative_to(root)).removesuffix(".meta"), counts)
        total += counts
    _row("all", total)
    print("\nNot noticed (`mutmut show NAME`):", *survived, sep="\n- ")
    return 0 if total["noticed"] else 1


def _row(name: str, counts: Counter[str]) -> None:
    tried = counts["noticed"] + counts["survived"]
    print(f"| {name} | {tried} | {counts['noticed']} | {counts['noticed'] / max(1, tried):.2f} | {counts['left']} |")


if __name__ == "__main__":
    sys.exit(main())
