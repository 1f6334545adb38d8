"""A STUB of an OpenAI-compatible server for tests and benchmarks: it runs no model; a function says what it replies.

It can also fail in the ways in which real servers fail. It listens on 127.0.0.1 only.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# How the stub can fail.
FAULTS = ("", "slow", "memory", "html", "half", "empty", "redirect", "long")
Script = Callable[[dict[str, Any]], str]


class StubServer:
    """Serves /v1/chat/completions and /v1/audio/transcriptions until it is closed; a context manager.

    Args:
        script: gives the text of the reply to a request.

    Attributes:
        url: address for `server_url`.
        script: may be replaced while it runs.
        transcript: what it says that each sound holds.
        fault: one of FAULTS; "" replies as a server should.
        requests: bodies of chat completions received so far.
        sounds: forms with sounds received so far, as bytes.
        headers: their headers.
    """

    def __init__(self, script: Script) -> None:
        self.script, self.fault, self.transcript = script, "", "hello"
        self.sounds: list[bytes] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                stub.reply(self)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="stub-server", daemon=True)
        self._thread.start()

    def reply(self, to: BaseHTTPRequestHandler) -> None:
        """Reply to one request as `fault` says."""
        form = to.rfile.read(int(to.headers["Content-Length"]))
        self.headers.append(dict(to.headers))
        if to.path == "/v1/audio/transcriptions":
            self.sounds.append(form)
            return _send(to, 500 if self.fault else 200, {"text": self.transcript})
        request = json.loads(form)
        self.requests.append(request)
        if to.path != "/v1/chat/completions":
            return _send(to, 404, {"error": {"message": f"no such path: {to.path}"}})
        fault = self.fault
        if fault == "slow":
            self.closing.wait()  # never in time
            return None
        if fault == "memory":
            return _send(to, 500, {"error": {"message": "CUDA error: out of memory. " + "x" * 2_000}})
        if fault == "html":
            return _bytes(to, 200, b"<html><body><h1>It works!</h1></body></html>", "text/html")
        if fault == "empty":
            return _send(to, 200, {"choices": []})
        if fault == "redirect":
            to.send_response(302)
            to.send_header("Location", "http://192.0.2.1/v1/chat/completions")
            to.send_header("Content-Length", "0")
            return to.end_headers()
        content = self.script(request)
        whole = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()
        if fault == "half":
            to.send_response(200)
            to.send_header("Content-Type", "application/json")
            to.send_header("Content-Length", str(len(whole)))
            to.end_headers()
            to.wfile.write(whole[: len(whole) // 2])
            to.close_connection = True
            return None
        if fault == "long":
            whole += b" " * (8 << 20)
        return _bytes(to, 200, whole, "application/json")

    def close(self) -> None:
        """Stop serving. Later requests find nobody."""
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> StubServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _send(to: BaseHTTPRequestHandler, status: int, value: dict[str, Any]) -> None:
    _bytes(to, status, json.dumps(value).encode(), "application/json")


def _bytes(to: BaseHTTPRequestHandler, status: int, data: bytes, kind: str) -> None:
    try:
        to.send_response(status)
        to.send_header("Content-Type", kind)
        to.send_header("Content-Length", str(len(data)))
        to.end_headers()
        to.wfile.write(data)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the caller gave up


def text_of(request: dict[str, Any]) -> str:
    """All text of a request's messages."""
    parts = []
    for message in request["messages"]:
        content = message["content"]
        parts += [content] if isinstance(content, str) else [p["text"] for p in content if p["type"] == "text"]
    return "\n".join(parts)


def pictures_of(request: dict[str, Any]) -> list[str]:
    """The data URLs of the pictures in a request."""
    parts = [p for m in request["messages"] if isinstance(m["content"], list) for p in m["content"]]
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
