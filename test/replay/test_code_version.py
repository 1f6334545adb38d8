"""The version of the code: what makes memories and answers changes it; pages and commands do not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import salmonn_node


def version_of(folder: Path) -> str:
    """The version of the package in `folder`, by a process of its own."""
    code = "from salmonn_node.replay import code_version as c; print(c.__file__); print(c.code_version())"
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    file, version = ran.stdout.split()
    assert Path(file).is_relative_to(folder)
    return version


def test_what_changes_the_version_and_what_does_not(tmp_path):
    package = tmp_path / "salmonn_node"
    shutil.copytree(Path(salmonn_node.__file__).parent, package, ignore=shutil.ignore_patterns("checkpoints", "*.pyc"))
    first = version_of(tmp_path)
    assert first.startswith(f"{salmonn_node.__version__}+")
    for unrelated in ("ui/page.py", "ros/node.py", "commands/ask.py", "cli.py", "lab/__init__.py"):
        with (package / unrelated).open("a") as file:
            file.write("# changed\n")
    assert version_of(tmp_path) == first
    seen = {first}
    for related in ("memory/token_memory.py", "stream/session.py", "ttt/update.py", "answering/grounding.py"):
        with (package / related).open("a") as file:
            file.write("# changed\n")
        seen.add(version_of(tmp_path))
    assert len(seen) == 5
