"""`salmonn mcp` against a running node: both tools, enforced schemas, pictures, and lines that no server likes."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from .harness import PATIENCE_S, ROOT, NodeProcess, Robot, _environment

pytestmark = pytest.mark.ros


class Server:
    """The server's process, spoken to in lines."""

    def __init__(self, version: str = "2025-06-18") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "salmonn_node.cli", "mcp"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=_environment(),
        )
        client = {"name": "test", "version": "1"}
        parameters = {"protocolVersion": version, "capabilities": {}, "clientInfo": client}
        self.version = self.request("initialize", parameters)["result"]["protocolVersion"]
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message: Any) -> None:
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def read(self) -> Any:
        return json.loads(self.process.stdout.readline())

    def request(self, method: str, parameters: dict[str, Any] | None = None, number: Any = 1) -> Any:
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": parameters or {}})
        return self.read()

    def call(self, tool: str, **arguments: Any) -> Any:
        return self.request("tools/call", {"name": tool, "arguments": arguments})["result"]

    def end(self) -> int:
        self.process.stdin.close()
        return self.process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def server(node: NodeProcess, robot: Robot) -> Iterator[Server]:
    server = Server()
    yield server
    assert server.end() == 0


@pytest.fixture
def ready(server: Server, seen: int) -> Server:
    return server


def test_ask_gives_the_typed_answer_and_pictures(ready: Server, seen: int) -> None:
    tools = ready.request("tools/list")["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["ask", "watch"]
    arguments = {"text": "point 3", "answer_type": "POSITION", "timeout": PATIENCE_S, "want_thumbnails": True}
    result = ready.call("ask", **arguments)
    assert not result["isError"], result
    answer = json.loads(result["content"][0]["text"])
    assert answer == result["structuredContent"]
    assert answer["pose"]["position_m"][0] == pytest.approx(2.0)
    assert answer["evidence"][0]["seen_s"][1] <= seen * 1e-9 + 1e-3
    picture = result["content"][1]
    assert picture["mimeType"] == "image/jpeg"
    assert base64.b64decode(picture["data"]).startswith(b"\xff\xd8")


def test_watch_ends_when_it_becomes_true_and_when_its_time_is_over(ready: Server, seen: int) -> None:
    found = ready.call("watch", text="after 1 look", after=seen * 1e-9 - 1.0, timeout=PATIENCE_S)["structuredContent"]
    assert found["became_true"]
    assert found["text"] == "yes"
    over = ready.call("watch", text="never", wait=0.5, timeout=PATIENCE_S)
    assert not over["isError"]
    assert not over["structuredContent"]["became_true"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"text": 3},
        {"text": ""},
        {"text": "x", "colour": "red"},
        {"text": "x", "answer_type": "POEM"},
        {"text": "x", "after": "!"},
        {"text": "x", "max_evidence": -1},
        {"text": "x", "answer_type": "CHOICE", "choices": "red or blue"},
        {"text": "x", "answer_type": "CHOICE", "choices": '["red", "blue"]'},
        {"text": "x", "timeout": 1e10},
        {"text": "x \ud83d"},
        {"text": "x", "after": 5, "before": 3},
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_errors_that_an_assistant_can_read(
    server: Server, arguments: dict[str, Any]
) -> None:
    result = server.call("ask", **arguments)
    assert result["isError"] is True
    assert result["content"][0]["text"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"jsonrpc":"2.0","id":5,"method":"ping","params":{"t":"\xe9"}}', -32700),
        (b"{", -32700),
        (b"[" * 100_000 + b"]" * 100_000, -32700),
        (b'{"jsonrpc":"2.0","id":5,"method":"ping","params":{"x":' + b"[" * 995 + b"]" * 995 + b"}}", None),
        (b'{"jsonrpc":"2.0","id":5,"method":"ping","params":[1]}', -32600),
        (b'{"id":5,"method":"ping"}', -32600),
        (b"3", -32600),
        (b'[{"jsonrpc":"2.0","id":5,"method":"ping"}]', -32600),
        (b'{"jsonrpc":"2.0","id":5,"method":"memory/clear"}', None),
    ],
    ids=lambda value: str(value)[:60],
)
def test_lines_that_cannot_be_served_get_an_error_and_the_next_one_is_served(
    server: Server, line: bytes, code: int | None
) -> None:
    server.send(line)
    reply = server.read()
    if code is not None:
        assert reply["error"]["code"] == code
    assert server.request("ping", number="next") == {"jsonrpc": "2.0", "id": "next", "result": {}}


def test_batches_as_version_2025_03_26_has_them(node: NodeProcess) -> None:
    server = Server("2025-03-26")
    assert server.version == "2025-03-26"
    ping = {"jsonrpc": "2.0", "method": "ping"}
    server.send([{**ping, "id": 1}, {"jsonrpc": "2.0", "method": "notifications/none"}, {**ping, "id": 2}, 3])
    replies = server.read()
    assert {reply["id"] for reply in replies} == {1, 2, None}
    server.send([])
    assert server.read()["error"]["code"] == -32600
    assert server.request("ping", number="next")["id"] == "next"
    assert server.end() == 0
