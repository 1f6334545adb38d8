"""Local model hub: serve folders of this machine to `salmonn checkpoint get` over loopback, for tests.

    python -m salmonn_node.lab.local_hub Qwen/Qwen3-VL-2B-Instruct=/tmp/Qwen3-VL-2B-random
    HF_ENDPOINT=http://127.0.0.1:PORT salmonn checkpoint get qwen3-vl-2b

It implements the routes that huggingface_hub uses to download a model: model info, file tree, and files with ranges.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# The hub keeps files of about this size and more in its large-file storage, under their SHA-256.
LARGE_BYTES = 1 << 20
PIECE = 1 << 16
LICENCE = re.compile(r"^license:\s*(\S+)", re.MULTILINE)


@dataclass
class Faults:
    """Faults to inject.

    Attributes:
        cut_after: close the connection of a large file after this many bytes. Each cut uses up one entry.
        stall_after: stop sending a large file after this many bytes, until the client disconnects. None: never.
        claimed_size: size of large files stated in the tree. None: the true size.
        flip_byte: whether to change a byte of a large file.
    """

    cut_after: list[int] = field(default_factory=list)
    stall_after: int | None = None
    claimed_size: int | None = None
    flip_byte: bool = False


class LocalHub:
    """Context manager that serves folders as models.

    Args:
        folders: folders by hub id.
        port: port to listen on. 0 picks a free one.

    Attributes:
        url: value for HF_ENDPOINT.
        requests: method, path and Range header (or "") of each request.
        faults: faults to inject. You may change them while the hub runs.
        stalled: set when a download has stalled.
    """

    def __init__(self, folders: Mapping[str, Path], port: int = 0) -> None:
        self.folders = dict(folders)
        self.requests: list[tuple[str, str, str]] = []
        self.faults = Faults()
        self.stalled = threading.Event()
        self.closing = threading.Event()
        self._digests: dict[Path, str] = {}
        hub = self

        class Handler(_Handler):
            served = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> LocalHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def sha256(self, file: Path) -> str:
        """SHA-256 of a file's content."""
        if file not in self._digests:
            digest = hashlib.sha256()
            with file.open("rb") as source:
                while piece := source.read(1 << 22):
                    digest.update(piece)
            self._digests[file] = digest.hexdigest()
        return self._digests[file]

    def commit(self, hub_id: str) -> str:
        """Forty hex digits that change with the folder's names and sizes."""
        names = [[str(f.relative_to(self.folders[hub_id])), f.stat().st_size] for f in self.files(hub_id)]
        return hashlib.sha1(json.dumps([hub_id, names]).encode(), usedforsecurity=False).hexdigest()

    def files(self, hub_id: str) -> list[Path]:
        """Files of a model, by name."""
        return sorted(f for f in self.folders[hub_id].rglob("*") if f.is_file())

    def info(self, hub_id: str) -> dict[str, Any]:
        """Return the hub's information about a model."""
        card = self.folders[hub_id] / "README.md"
        licence = LICENCE.search(card.read_text()) if card.is_file() else None
        return {
            "id": hub_id,
            "sha": self.commit(hub_id),
            "tags": [f"license:{licence[1]}"] if licence else [],
            "siblings": [{"rfilename": str(f.relative_to(self.folders[hub_id]))} for f in self.files(hub_id)],
        }

    def tree(self, hub_id: str) -> list[dict[str, Any]]:
        """Path, size and digests of each file of a model."""
        entries = []
        for file in self.files(hub_id):
            size = file.stat().st_size
            name = str(file.relative_to(self.folders[hub_id]))
            entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": self.etag(file)[:40]}
            if size >= LARGE_BYTES:
                size = entry["size"] = self.faults.claimed_size or size
                entry["lfs"] = {"oid": self.sha256(file), "size": size, "pointerSize": 134}
            entries.append(entry)
        return entries

    def etag(self, file: Path) -> str:
        """Return the name under which a client stores a file's content."""
        return self.sha256(file) if file.stat().st_size >= LARGE_BYTES else self.sha256(file)[:40]


class _Handler(BaseHTTPRequestHandler):
    served: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Do not log."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.served.requests.append((self.command, path, self.headers.get("Range", "")))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            hub_id, what, revision = match.groups()
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            hub_id, revision, what = match.groups()
        else:
            return self._json(404, {"error": "no such route"})
        if hub_id not in self.served.folders:
            return self._json(401, {"error": "Invalid username or password."}, {"X-Error-Code": "RepoNotFound"})
        commit = self.served.commit(hub_id)
        if revision not in (None, "main", commit):
            return self._json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        if path.startswith("/api/"):
            return self._json(200, self.served.tree(hub_id) if what == "tree" else self.served.info(hub_id))
        file = self.served.folders[hub_id] / what
        if file not in self.served.files(hub_id):
            return self._json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        return self._file(file, commit, body)

    def _json(self, status: int, value: object, headers: Mapping[str, str] | None = None) -> None:
        payload = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(payload)

    def _file(self, file: Path, commit: str, body: bool) -> None:
        size, start = file.stat().st_size, 0
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(match[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        self.send_header("ETag", f'"{self.served.etag(file)}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        if body:
            self._send(file, start, size)

    def _send(self, file: Path, start: int, size: int) -> None:
        """Send a file from `start` on, with the injected faults."""
        faults, large = self.served.faults, size >= LARGE_BYTES
        cut = faults.cut_after.pop(0) if large and faults.cut_after else size
        stall = faults.stall_after if large and faults.stall_after is not None else size
        with file.open("rb") as source:
            source.seek(start)
            sent = 0
            while piece := source.read(min(PIECE, max(0, min(cut, stall) - sent))):
                if large and faults.flip_byte and not sent:
                    piece = bytes([piece[0] ^ 1]) + piece[1:]
                try:
                    self.wfile.write(piece)
                except OSError:  # the client has disconnected
                    return
                sent += len(piece)
        if start + sent < size:
            self.close_connection = True
            if sent >= stall:
                self.served.stalled.set()
                self.served.closing.wait()


def main(arguments: list[str]) -> None:
    """Serve HUB_ID=FOLDER until interrupted."""
    with LocalHub({name: Path(folder) for name, _, folder in (a.partition("=") for a in arguments)}) as hub:
        print(f"HF_ENDPOINT={hub.url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
