"""The memory as a tool of a language model: its JSON schema, a call with the model's arguments, the answer as JSON.

A language model that plans for a robot calls tools that are described by JSON schemas; most model APIs take the
schemas of `salmonn_node.client.tools` as they stand. They are made from the ROS interface itself. The answer begins
with `error_code`, then `outcome`, then the value. Tell the model that NOT_OBSERVED means "I have not seen it", which is
not "no". Evidence comes with stamps and poses, so that what the model says can be checked. An assistant that speaks MCP
needs none of this: `salmonn mcp` serves the same tools. This prints the schemas, or carries out one call:

    python examples/question_schema.py
    python examples/question_schema.py '{"text": "where is the red box?", "answer_type": "POSITION"}'
"""

from __future__ import annotations

import json
import sys

import rclpy

from salmonn_node.client import Memory, tools


def call(memory: Memory, arguments: str) -> str:
    """Carry out a call of the model; check it against the schema first if your API does not."""
    return json.dumps(tools.answer_as_json(tools.ask(memory, json.loads(arguments))), indent=2)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(json.dumps(tools.descriptions(), indent=2))
    else:
        rclpy.init()
        with Memory(rclpy.create_node("planner")) as memory:
            print(call(memory, sys.argv[1]))
        rclpy.try_shutdown()
