"""The import table of docs/architecture.md is what the code does: each room imports only rooms above it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "salmonn_node"
# Imports that still climb; this list only gets shorter.
CLIMBING: set[tuple[str, str]] = set()


def table() -> list[tuple[str, set[str]]]:
    """Rooms in order, each with the packages that it must not import."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)/` \|[^|]*\|([^|]*)\|$", page, re.MULTILINE)
    return [(room, set(re.findall(r"`([a-z_]+)`", never))) for room, never in rows]


def imports(room: str) -> Iterator[tuple[Path, int, str]]:
    """File, line and module of every import in a room, those within functions too."""
    for path in sorted((PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == "salmonn_node":
                names = [f"salmonn_node.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [node.module]
            else:
                continue
            for name in names:
                yield path.relative_to(ROOT), node.lineno, name


def test_every_room_stands_in_the_table():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}

    assert rooms == {room for room, _ in table()}


def test_rooms_import_only_rooms_above_them():
    order = [room for room, _ in table()]
    wrong, climbing = [], set()
    for number, room in enumerate(order):
        for path, line, name in imports(room):
            target = name.split(".")[1] if name.startswith("salmonn_node.") else ""
            if target in order[number + 1 :]:
                if (room, target) in CLIMBING:
                    climbing.add((room, target))
                else:
                    wrong.append(f"{path}:{line} imports {name}, which is below {room}/ in the table")

    assert not wrong, "\n".join(wrong)
    assert climbing == CLIMBING, "take what no longer climbs out of the list"


def test_rooms_stay_away_from_what_they_never_import():
    wrong = []
    for room, never in table():
        for path, line, name in imports(room):
            parts = name.split(".")
            package = parts[1] if parts[0] == "salmonn_node" and len(parts) > 1 else parts[0]
            if package in never and (room, package) not in CLIMBING:
                wrong.append(f"{path}:{line} imports {name}, which {room}/ never does")

    assert not wrong, "\n".join(wrong)


def test_every_file_that_the_page_names_exists():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+/[a-z_0-9]+\.py)`", page))

    assert named
    assert not [name for name in sorted(named) if not (PACKAGE / name).is_file() and not (ROOT / name).is_file()]


def test_no_class_name_stands_for_two_things():
    places: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))

    assert not {name: found for name, found in places.items() if len(found) > 1}
