"""MCP transport over standard input and output: one JSON-RPC message or batch per line.

The `mcp` package has such a transport, but it does not reply to a line that it cannot read, and it does not support
batches, which version 2025-03-26 of the protocol has.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp import types
    from mcp.shared.message import SessionMessage

PARSE_ERROR, INVALID_REQUEST = -32700, -32600
BATCHES = "2025-03-26"  # the only version of the protocol that has batches
MAX_LINE_BYTES = 4 * 1024 * 1024


class _Lines:
    """Converts lines to messages and back; remembers the protocol version and the open batches."""

    def __init__(self) -> None:
        self.version = ""
        self._batches: list[tuple[set[Any], list[Any]]] = []  # ids that a batch waits for, and its replies so far

    def read(self, line: bytes) -> tuple[list[SessionMessage], list[Any]]:
        """Parse a line: returns its messages for the server, and the replies to send at once."""
        if not line.strip():
            return [], []
        try:
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(f"the line has more than {MAX_LINE_BYTES} bytes")
            found = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            return [], [_error(PARSE_ERROR, f"not JSON in UTF-8: {type(error).__name__}: {error}"[:200])]
        if not isinstance(found, list):
            message, refused = _message(found)
            return ([message] if message else []), ([refused] if refused else [])
        if self.version != BATCHES or not found:
            reason = "the batch is empty" if not found else f"only version {BATCHES} of the protocol has batches"
            return [], [_error(INVALID_REQUEST, reason)]
        messages, refusals, ids = [], [], set()
        for one in found:
            message, refused = _message(one)
            if refused is not None:
                refusals.append(refused)
            elif message is not None:
                messages.append(message)
                if "method" in one and "id" in one:
                    ids.add(one["id"])
        if not ids:
            return messages, [refusals] if refusals else []
        self._batches.append((ids, refusals))
        return messages, []

    def write(self, message: types.JSONRPCMessage) -> list[Any]:
        """Values to write for a message of the server; none while it waits for the rest of its batch."""
        value = message.model_dump(mode="json", by_alias=True, exclude_none=True)
        result = value.get("result")
        if isinstance(result, dict) and "protocolVersion" in result:
            self.version = str(result["protocolVersion"])
        for batch in self._batches:
            ids, replies = batch
            if "method" not in value and value.get("id") in ids:
                ids.discard(value["id"])
                replies.append(value)
                if ids:
                    return []
                self._batches.remove(batch)
                return [replies]
        return [value]


@contextlib.asynccontextmanager
async def stdio() -> AsyncIterator[tuple[Any, Any]]:
    """Streams for `Server.run`. A line that cannot be read gets an error reply; then the next line is served."""
    import anyio

    lines = _Lines()
    to_server, incoming = anyio.create_memory_object_stream[Any](0)
    outgoing, from_server = anyio.create_memory_object_stream[Any](0)
    source, sink = anyio.wrap_file(sys.stdin.buffer), anyio.wrap_file(sys.stdout.buffer)
    writing = anyio.Lock()

    async def write(values: list[Any]) -> None:
        async with writing:
            for value in values:
                await sink.write(json.dumps(value).encode() + b"\n")
                await sink.flush()

    async def read_lines() -> None:
        async with to_server:
            async for line in source:
                messages, replies = lines.read(line)
                await write(replies)
                for message in messages:
                    await to_server.send(message)

    async def write_lines() -> None:
        async with from_server:
            async for message in from_server:
                await write(lines.write(message.message))

    async with anyio.create_task_group() as group:
        group.start_soon(read_lines)
        group.start_soon(write_lines)
        yield incoming, outgoing


def _message(value: Any) -> tuple[SessionMessage | None, Any]:
    """Parse one JSON value: returns a message for the server, or an error to reply."""
    from mcp import types
    from mcp.shared.message import SessionMessage

    try:
        return SessionMessage(types.JSONRPCMessage.model_validate(value)), None
    except (ValueError, RecursionError):
        number = value.get("id") if isinstance(value, dict) else None
        if not isinstance(number, (str, int)) or isinstance(number, bool):
            number = None
        return None, _error(INVALID_REQUEST, "not a request, notification or response of JSON-RPC 2.0", number)


def _error(code: int, text: str, number: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": text}}
