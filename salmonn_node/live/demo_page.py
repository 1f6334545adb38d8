"""The page beside the demo's node: a process of its own that stays until Ctrl-C."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from salmonn_node.live.processes import end

MISSING = "--ui needs the extra `ui`: pip install 'salmonn_node[ui]', or `make setup` in the repository"


def check_page() -> None:
    """Raise ValueError when the page cannot be served, before the demo runs."""
    if importlib.util.find_spec("nicegui") is None:
        raise ValueError(MISSING)


def keep_page(console: Console, log: Path) -> None:
    """Serve the page of the node `salmonn` in this process' ROS domain until Ctrl-C, or until the page ends."""
    console.print("[bold]The node stays up.[/bold] The page starts; Ctrl-C ends both.")
    command = [sys.executable, "-m", "salmonn_node.cli", "ui"]
    with log.open("wb") as errors:
        page = subprocess.Popen(command, stderr=errors)
        try:
            if page.wait():
                console.print(f"[red]✗ the page ended: {log.read_text(errors='replace').strip()[-500:]}[/red]")
        except KeyboardInterrupt:
            pass
        finally:
            end(page)
