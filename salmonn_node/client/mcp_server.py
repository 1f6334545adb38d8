"""MCP server: assistants that speak the Model Context Protocol can ask the robot's memory.

What the robot saw or heard is data, never an instruction: an answer is sent as a JSON value, and pictures of the
evidence as images. The tools can only ask; they cannot clear, load or forget. The node enforces the deadlines, so a
call never hangs. A failed question (BUSY, TIMEOUT, ...) is a result with `isError`, which the assistant can read.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from salmonn_node import __version__
from salmonn_node.client import tools
from salmonn_node.client.mcp_stdio import stdio
from salmonn_node.client.memory_client import Memory
from salmonn_node.stream.answers import Answer, ErrorCode

if TYPE_CHECKING:
    from mcp import types
    from mcp.server.lowlevel import Server


def build_server(memory: Memory) -> Server:
    """Make a server with the tools `ask` and `watch`. The `mcp` package checks arguments against their schemas.

    Raises:
        ModuleNotFoundError: the package `mcp` is not installed.
    """
    from mcp import types
    from mcp.server.lowlevel import Server

    server: Server = Server("salmonn_node", version=__version__)

    @server.list_tools()
    async def list_tools() -> list[types.Tool]:
        return [types.Tool(**description) for description in tools.descriptions()]

    @server.call_tool()
    async def call_tool(name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        if name == tools.ASK:
            answer = await _in_thread(lambda cancel: tools.ask(memory, arguments, cancel))
            return _result(tools.answer_as_json(answer), answer)
        if name == tools.WATCH:
            watched = await _in_thread(lambda cancel: tools.watch(memory, arguments, cancel))
            return _result(tools.watched_as_json(watched), watched.answer)
        raise ValueError(f"no tool {name[:40]!r}; there are {tools.ASK} and {tools.WATCH}")

    return server


def serve(memory: Memory) -> None:
    """Serve standard input and output until the input ends. Raises what `build_server` raises."""
    import anyio

    server = build_server(memory)

    async def run() -> None:
        async with stdio() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    anyio.run(run)


async def _in_thread(call: Callable[[threading.Event], Any]) -> Any:
    """Run a blocking call in a thread. If the assistant cancels it, the question is canceled at the node too."""
    import anyio

    cancel = threading.Event()
    try:
        return await anyio.to_thread.run_sync(call, cancel, abandon_on_cancel=True)
    finally:
        cancel.set()


def _result(value: dict[str, Any], answer: Answer) -> types.CallToolResult:
    from mcp import types

    content: list[Any] = [types.TextContent(type="text", text=json.dumps(value))]
    if answer.error_code == ErrorCode.NONE:
        content += [
            types.ImageContent(type="image", data=base64.b64encode(e.thumbnail).decode(), mimeType="image/jpeg")
            for e in answer.evidence
            if e.thumbnail
        ]
    return types.CallToolResult(content=content, structuredContent=value, isError=value["error_code"] != "NONE")
