"""The client of an OpenAI-compatible server: one request, one text or one error in words, in time.

It reads no proxy from the environment and follows no redirect, so that nothing goes to a host that was not allowed.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from salmonn_node.answering.circuit_breaker import CircuitBreaker
from salmonn_node.answering.server_settings import ServerSettings

MOST_REPLY_BYTES = 4 << 20
SHORT_WORDS = 200
LOOK_S = 0.02  # how often a running request looks at its deadline and at `cancel`
MOST_REPLY_TOKENS = 1024
# Reads status, content type and body of a reply.
Reading = Callable[[int, str, bytes], str]


class ServerError(Exception):
    """The server gave no usable reply; the text says what came instead."""


class StoppedError(Exception):
    """The deadline passed or the question was canceled; the request was broken off."""


class ServerClient:
    """Asks one model at one server. Any thread may use it.

    Args:
        settings: address, model and key.
        breaker: leaves a failing server alone for a while.

    Attributes:
        counts: number of requests that were sent, and of those that failed.

    Raises:
        ValueError: the settings do not allow it, see `ServerSettings.check`.
    """

    def __init__(self, settings: ServerSettings, breaker: CircuitBreaker | None = None) -> None:
        settings.check()
        self.settings = settings
        self.breaker = breaker or CircuitBreaker()
        self.counts = {"sent": 0, "failed": 0}

    def chat(
        self,
        messages: list[dict[str, Any]],
        schema: dict[str, Any] | None = None,
        *,
        deadline: float = math.inf,
        cancel: threading.Event | None = None,
        max_tokens: int = MOST_REPLY_TOKENS,
    ) -> str:
        """Send messages; returns the text of the reply.

        Args:
            messages: as the chat completions API takes them.
            schema: JSON schema that the reply should follow; the server may ignore it.
            deadline: time.monotonic() at which to break off.
            cancel: set it to break off.
            max_tokens: longest reply.

        Raises:
            ServerError: the server is down, slow, left alone by the breaker, or replied with something else.
            StoppedError: `deadline` or `cancel` came first.
        """
        body: dict[str, Any] = {
            "model": self.settings.server_model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": max_tokens,
        }
        if schema is not None:
            named = {"name": "reply", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return self._ask("/chat/completions", {"json": body}, _content, deadline, cancel)

    def transcribe(self, wav: bytes, *, deadline: float = math.inf, cancel: threading.Event | None = None) -> str:
        """Let the server's `server_transcriber_model` write down what is said in a WAV file; "" where nothing is.

        Arguments and errors are those of `chat`.
        """
        form = {
            "data": {"model": self.settings.server_transcriber_model, "response_format": "json", "temperature": "0"},
            "files": {"file": ("sound.wav", wav, "audio/wav")},
        }
        return self._ask("/audio/transcriptions", form, _transcript, deadline, cancel)

    def _ask(
        self, path: str, given: dict[str, Any], read: Reading, deadline: float, cancel: threading.Event | None
    ) -> str:
        rest = self.breaker.wait_s()
        if rest:
            raise ServerError(f"the server failed repeatedly and is left alone for {rest:.0f} s more")
        self.counts["sent"] += 1
        try:
            text = asyncio.run(self._within(path, given, read, deadline, cancel or threading.Event()))
        except ServerError:
            self.counts["failed"] += 1
            self.breaker.note(False)
            raise
        self.breaker.note(True)
        return text

    async def _within(
        self, path: str, given: dict[str, Any], read: Reading, deadline: float, stop: threading.Event
    ) -> str:
        late = time.monotonic() + self.settings.server_timeout_s
        request = asyncio.ensure_future(self._post(path, given))
        while not request.done():
            now = time.monotonic()
            if stop.is_set() or now >= min(deadline, late):
                request.cancel()
                await asyncio.wait([request])
                if stop.is_set() or now >= deadline:
                    raise StoppedError
                raise ServerError(f"no reply within server_timeout_s ({self.settings.server_timeout_s:g} s)")
            await asyncio.wait([request], timeout=min(LOOK_S, max(0.0, min(deadline, late) - now)))
        return read(*request.result())

    async def _post(self, path: str, given: dict[str, Any]) -> tuple[int, str, bytes]:
        """Status, content type and body of the reply."""
        key = self.settings.key()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = self.settings.server_url.rstrip("/") + path
        try:
            async with (
                httpx.AsyncClient(timeout=None, trust_env=False, follow_redirects=False) as client,
                client.stream("POST", url, headers=headers, **given) as reply,
            ):
                data = b""
                async for piece in reply.aiter_bytes():
                    data += piece
                    if len(data) > MOST_REPLY_BYTES:
                        raise ServerError(f"the reply is longer than {MOST_REPLY_BYTES} bytes")
                return reply.status_code, reply.headers.get("content-type", ""), data
        except httpx.ConnectError as error:
            raise ServerError(f"cannot connect to {self.settings.server_url}: {_short(str(error))}") from None
        except httpx.RemoteProtocolError as error:
            raise ServerError(f"the server broke off its reply: {_short(str(error))}") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerError(f"the request failed: {type(error).__name__}: {_short(str(error))}") from None


def _content(status: int, kind: str, data: bytes) -> str:
    """The text of a chat completion. Raises ServerError with the server's words, shortened."""
    return _text(status, kind, data, "a chat completion", lambda reply: reply["choices"][0]["message"]["content"])


def _transcript(status: int, kind: str, data: bytes) -> str:
    """The text of a transcription. Raises ServerError with the server's words, shortened."""
    return _text(status, kind, data, "a transcription", lambda reply: reply["text"])


def _text(status: int, kind: str, data: bytes, expected: str, find: Callable[[Any], Any]) -> str:
    words = data.decode("utf-8", "replace")
    if status != httpx.codes.OK:
        raise ServerError(f"the server replied with HTTP {status}: {_short(_message(words))}")
    try:
        content = find(json.loads(words))
    except (ValueError, KeyError, IndexError, TypeError):
        said = f"of type {kind.partition(';')[0]}" if kind else "without a type"
        raise ServerError(f"expected {expected} in JSON, got a reply {said}: {_short(words)}") from None
    if not isinstance(content, str):
        raise ServerError(f"the reply holds no text: {_short(words)}")
    return content


def _message(words: str) -> str:
    """The message of an error in JSON, or the words as they are."""
    try:
        error = json.loads(words)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return words


def _short(words: str) -> str:
    """At most SHORT_WORDS characters on one line, as a quotation."""
    line = " ".join(words.split())
    return repr(line if len(line) <= SHORT_WORDS else line[:SHORT_WORDS] + "...")
