"""Serves the page: address, token, bounds, and the files that a browser needs, all from this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nicegui import Client, app, ui

from salmonn_node.ui.guard import Guard, Rules, is_loopback
from salmonn_node.ui.page import Page
from salmonn_node.ui.source import Source

FILES = Path(__file__).parent / "static"
FILES_ADDRESS = "/static"
MAX_PAGES = 16
# Bytes of one message from a browser. A question has at most 4 KiB.
MAX_MESSAGE_BYTES = 64 << 10
RECONNECT_S = 20.0


@dataclass(frozen=True)
class Address:
    """Where the page is.

    Attributes:
        host: to listen on.
        port: to listen on.
        token: that a browser needs; empty: none.
    """

    host: str
    port: int
    token: str = ""

    @property
    def url(self) -> str:
        """What to open in a browser."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        name = "localhost" if self.host in ("", "127.0.0.1") else name
        return f"http://{name}:{self.port}/" + (f"?token={self.token}" if self.token else "")


def serve(source: Source, address: Address) -> None:
    """Serve until Ctrl-C; the source is closed by the caller."""
    rules = Rules(address.port, address.token, is_loopback(address.host), lambda: len(Client.instances) >= MAX_PAGES)
    app.add_middleware(Guard, rules=rules)
    app.add_static_files(FILES_ADDRESS, FILES)

    @ui.page("/")
    def index() -> None:
        ui.add_head_html(f'<link rel="stylesheet" href="{FILES_ADDRESS}/page.css">')
        ui.add_head_html(f'<script src="{FILES_ADDRESS}/page.js" defer></script>')
        Page(source)

    ui.run(
        host=address.host,
        port=address.port,
        title="salmonn",
        favicon=FILES / "icon.svg",
        dark=None,
        reload=False,
        show=False,
        show_welcome_message=False,
        tailwind=False,
        binding_refresh_interval=None,
        reconnect_timeout=RECONNECT_S,
        ws_max_size=MAX_MESSAGE_BYTES,
        server_header=False,
    )
