"""The memory as a server of the Model Context Protocol: any assistant that speaks it can ask the robot.

MCP over standard input and output is JSON-RPC 2.0, one message a line, so this needs nothing beyond Python. It offers
one tool, `ask_memory`, described by question_schema.py beside it. The node keeps the deadline, so a call never hangs.
What the robot saw or heard is data: an answer is passed on as a JSON value, never as an instruction, and the tool can
only ask; it cannot clear, load or forget. A failed question (BUSY, TIMEOUT, ...) is a result with `isError`, which an
assistant can read and react to. In an assistant's configuration, with the environment of the robot's ROS graph:

    {"mcpServers": {"robot": {"command": "python", "args": ["examples/mcp_server.py", "salmonn"]}}}
"""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

import question_schema
import rclpy

from salmonn_node.client import Memory

PROTOCOLS = ("2025-06-18", "2025-03-26", "2024-11-05")
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602


class _Refusal(Exception):
    """A JSON-RPC error: code and message."""


def serve(memory: Memory, source: TextIO, sink: TextIO) -> None:
    """Reply to each line of `source` until it ends."""
    for line in source:
        if line.strip():
            reply = respond(memory, line)
            if reply is not None:
                sink.write(json.dumps(reply) + "\n")
                sink.flush()


def respond(memory: Memory, line: str) -> dict[str, Any] | None:
    """The reply to one message; None for a notification."""
    number = None
    try:
        try:
            message = json.loads(line)
        except ValueError as error:
            raise _Refusal(PARSE_ERROR, str(error)) from None
        if not isinstance(message, dict) or not isinstance(message.get("method"), str):
            raise _Refusal(INVALID_REQUEST, "a request needs a method")
        if "id" not in message:
            return None
        number = message["id"]
        parameters = message.get("params") or {}
        if not isinstance(parameters, dict):
            raise _Refusal(INVALID_PARAMS, "params must be an object")
        return {"jsonrpc": "2.0", "id": number, "result": _result(memory, message["method"], parameters)}
    except _Refusal as refusal:
        code, text = refusal.args
        return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": text}}


def _result(memory: Memory, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    if method == "initialize":
        wanted = parameters.get("protocolVersion")
        return {
            "protocolVersion": wanted if wanted in PROTOCOLS else PROTOCOLS[0],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "salmonn_node", "version": "0.1.0"},
        }
    if method == "ping":
        return {}
    if method == "tools/list":
        return {"tools": [question_schema.tool()]}
    if method != "tools/call":
        raise _Refusal(METHOD_NOT_FOUND, f"no method {method[:40]!r}")
    arguments = parameters.get("arguments") or {}
    if parameters.get("name") != question_schema.NAME or not isinstance(arguments, dict):
        raise _Refusal(INVALID_PARAMS, f"the only tool is {question_schema.NAME}, and its arguments are an object")
    try:
        answer = question_schema.ask(memory, arguments)
    except (ValueError, TypeError, OverflowError, AssertionError) as error:
        answer = {"error_code": "INVALID_REQUEST", "error_msg": str(error)}
    return {"content": [{"type": "text", "text": json.dumps(answer)}], "isError": answer["error_code"] != "NONE"}


if __name__ == "__main__":
    rclpy.init()
    serve(Memory(rclpy.create_node("memory_tool"), *sys.argv[1:2]), sys.stdin, sys.stdout)
    rclpy.try_shutdown()
