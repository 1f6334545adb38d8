"""The client of a server: what it sends, each way of failing in words and in time, never a host that is not allowed."""

from __future__ import annotations

import io
import json
import math
import sys
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from salmonn_node.answering.circuit_breaker import CircuitBreaker
from salmonn_node.answering.server_captions import wav
from salmonn_node.answering.server_client import ServerClient, ServerError, StoppedError
from salmonn_node.answering.server_settings import ServerSettings
from salmonn_node.lab.stub_server import StubServer

MESSAGES = [{"role": "user", "content": "say something"}]
LATE_S = 60.0


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer(lambda request: "a word") as server:
        yield server


def client(server: StubServer, **fields: Any) -> ServerClient:
    return ServerClient(ServerSettings(reader="server", server_url=server.url, server_model="stub", **fields))


def test_what_is_sent_and_what_comes_back(server: StubServer, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret-123\n")
    asking = client(server, server_key_file=str(key))
    assert asking.chat(MESSAGES, {"type": "object"}) == "a word"
    (sent,), (headers,) = server.requests, server.headers
    assert sent["model"] == "stub"
    assert sent["messages"] == MESSAGES
    assert sent["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert headers["Authorization"] == "Bearer secret-123"
    assert "secret" not in repr(asking.settings) + asking.settings.where
    assert "Authorization" not in [client(server).chat(MESSAGES), server.headers][1][1]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("memory", "HTTP 500: 'CUDA error: out of memory"),
        ("html", "expected a chat completion in JSON, got a reply of type text/html: '<html>"),
        ("half", "broke off"),
        ("empty", "expected a chat completion in JSON"),
        ("redirect", "HTTP 302"),
        ("long", "longer than"),
    ],
)
def test_a_failing_server_is_told_in_words(server: StubServer, fault: str, words: str) -> None:
    server.fault = fault
    with pytest.raises(ServerError, match=words.replace("(", r"\(")) as error:
        client(server).chat(MESSAGES)
    assert len(str(error.value)) < 400
    server.fault = ""
    assert client(server).chat(MESSAGES) == "a word"


def test_a_server_that_is_down(server: StubServer) -> None:
    asking = client(server)
    server.close()
    with pytest.raises(ServerError, match="cannot connect"):
        asking.chat(MESSAGES)


def test_a_slow_server_is_left_at_its_timeout_the_deadline_or_a_cancel(server: StubServer) -> None:
    server.fault = "slow"
    with pytest.raises(ServerError, match="server_timeout_s"):
        client(server, server_timeout_s=0.1).chat(MESSAGES, deadline=time.monotonic() + LATE_S)
    with pytest.raises(StoppedError):
        client(server).chat(MESSAGES, deadline=time.monotonic() + 0.1)
    cancel = threading.Event()
    timer = threading.Timer(0.1, cancel.set)
    timer.start()
    with pytest.raises(StoppedError):
        client(server).chat(MESSAGES, cancel=cancel)


def test_the_breaker_rests_and_tries_again(server: StubServer) -> None:
    now = [0.0]
    breaker = CircuitBreaker(failures=2, rest_s=5.0, now=lambda: now[0])
    asking = ServerClient(ServerSettings(reader="server", server_url=server.url, server_model="stub"), breaker)
    server.fault = "memory"
    for _ in range(2):
        with pytest.raises(ServerError, match="HTTP 500"):
            asking.chat(MESSAGES)
    assert breaker.state.startswith("open")
    with pytest.raises(ServerError, match="left alone for 5 s"):
        asking.chat(MESSAGES)
    assert len(server.requests) == 2
    now[0] = 5.0
    with pytest.raises(ServerError, match="HTTP 500"):
        asking.chat(MESSAGES)
    now[0] = 10.0
    with pytest.raises(ServerError, match="left alone"):  # twice as long as before
        asking.chat(MESSAGES)
    now[0], server.fault = 15.0, ""
    assert asking.chat(MESSAGES) == "a word"
    assert breaker.state == "closed"
    assert asking.chat(MESSAGES) == "a word"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"server_url": "http://192.0.2.1:8000/v1"}, "server_allow_remote"),
        ({"server_url": "https://example.com/v1"}, "server_allow_remote"),
        ({"server_url": "http://localhost.example.com/v1"}, "server_allow_remote"),
        ({"server_url": "127.0.0.1:8000/v1"}, "expected http://HOST:PORT/v1"),
        ({"server_url": "http://user:word@127.0.0.1/v1"}, "server_key_file"),
        ({"server_url": "http://127.0.0.1:99999/v1"}, "is no address"),
        ({"server_model": ""}, "server_model"),
        ({"server_key_file": "/nowhere/key"}, "cannot be read"),
    ],
)
def test_settings_that_are_refused_name_the_parameter(fields: dict[str, Any], words: str) -> None:
    given = {"reader": "server", "server_model": "stub", **fields}
    with pytest.raises(ValueError, match=words):
        ServerSettings(**given).check()


def test_another_machine_must_be_allowed_and_is_named() -> None:
    settings = ServerSettings("server", "http://192.0.2.1/v1", "stub", server_allow_remote=True)
    settings.check()
    assert "ANOTHER MACHINE" in settings.where
    assert "this machine" in ServerSettings("server", "http://[::1]:1/v1", "stub").where
    assert "stay in this process" in ServerSettings().where


def test_neither_a_proxy_nor_a_redirect_leads_away_from_this_machine(
    server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://192.0.2.1:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    reached: list[Any] = []
    on = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if on and event == "socket.connect":
            reached.append(arguments[1])

    sys.addaudithook(hook)
    asking = client(server)
    assert asking.chat(MESSAGES) == "a word"
    server.fault = "redirect"
    with pytest.raises(ServerError):
        asking.chat(MESSAGES, deadline=math.inf)
    on = False
    assert reached
    assert all(address[0] == "127.0.0.1" for address in reached), json.dumps(reached)


def test_a_sound_is_sent_as_wav_to_the_transcriber_and_its_failures_are_told(server: StubServer) -> None:
    asking = client(server, server_transcriber_model="stub-ears")
    sound = wav(np.arange(160, dtype=np.int16))
    assert asking.transcribe(sound) == "hello"
    (form,) = server.sounds
    assert sound in form
    assert b'name="model"\r\n\r\nstub-ears\r\n' in form
    assert b'filename="sound.wav"' in form
    with wave.open(io.BytesIO(sound)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, 160)
    server.fault = "memory"
    with pytest.raises(ServerError, match="HTTP 500"):
        asking.transcribe(sound)
    assert asking.counts == {"sent": 2, "failed": 1}
    assert "sound" in asking.settings.where
    assert "sound" not in client(server).settings.where
