"""Schemas that a server is sent, and the check of its replies: both allow only what was sent and asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from salmonn_node.answering.server_log import SentLog
from salmonn_node.answering.server_prompts import ReplyError, naming_schema, read_naming, read_reply, reply_schema
from salmonn_node.memory.log_entries import VIEW, LogEntry
from salmonn_node.stream.answers import AnswerType, Question

ENTRY = LogEntry("view:0:1", VIEW, 0, 1, 1, 1, -1, -1, "", ())
COLOUR = Question("What colour?", AnswerType.CHOICE, choices=("red", "blue"))
SHOWN = 3


def reply(**fields: Any) -> str:
    return json.dumps({"observed": True, "text": "a mug", "pictures": [1], **fields})


def test_schemas_allow_the_numbers_that_were_sent() -> None:
    naming = naming_schema(AnswerType.COUNT, 4, 120)["properties"]
    assert naming["events"] == {
        "type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 120}, "maxItems": 4,
    }  # fmt: skip
    assert naming["counted"]["items"]["maximum"] == 120
    assert set(naming_schema(AnswerType.TEXT, 4, 120)["properties"]) == {"events"}
    for kind in AnswerType:
        schema = reply_schema(kind, COLOUR, SHOWN)
        pictures = schema["properties"]["pictures"]
        assert (pictures["items"]["maximum"], pictures["maxItems"]) == (SHOWN, SHOWN)
        assert schema["required"] == list(schema["properties"])
        assert not schema["additionalProperties"]
    assert reply_schema(AnswerType.CHOICE, COLOUR, SHOWN)["properties"]["value"]["enum"] == ["red", "blue"]


def test_a_server_that_ignores_the_schema_is_refused_in_words() -> None:
    with pytest.raises(ReplyError, match="which has 1 to 2"):
        read_naming('{"events": [2, 3]}', SentLog("", {1: ENTRY, 2: ENTRY}, 2))
    for kind, fields, words in (
        (AnswerType.TEXT, {"pictures": [4]}, r"pictures \[4\] were not sent; there are 3"),
        (AnswerType.BINARY, {"value": "yes"}, "true or false"),
        (AnswerType.COUNT, {"value": -1}, "0 or more"),
        (AnswerType.CHOICE, {"value": "green"}, "one of"),
        (AnswerType.POSITION, {"box": [500, 0, 400, 10]}, "within 0 to 1000"),
    ):
        with pytest.raises(ReplyError, match=words):
            read_reply(reply(**fields), kind, COLOUR, SHOWN)
    assert read_reply(reply(box=[0, 10, 500, 1000]), AnswerType.POSITION, COLOUR, SHOWN).box == [0, 10, 500, 1000]
    assert read_reply(f"<think>a mug?</think>```json\n{reply()}\n```", AnswerType.TEXT, COLOUR, SHOWN).text == "a mug"
