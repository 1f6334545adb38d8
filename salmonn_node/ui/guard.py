"""Who may talk to the page: ASGI middleware that checks host, origin and token of requests and websockets.

A page on this machine's loopback needs no token; every other address does. A foreign site that a browser has open can
neither read nor send anything here: its Origin differs, and its own name for this machine is no known Host.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MAX_FORM_BYTES = 1024
HEADERS = (
    # NiceGUI's page has inline scripts and compiles its templates. Nothing may come from or go to another machine.
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
        b"frame-ancestors 'none'; form-action 'self'; base-uri 'self'; object-src 'none'",
    ),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>salmonn: token</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<body style="font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 3rem auto; padding: 0 1rem">
<h1>This page needs its token</h1>
<p>It shows what cameras and microphones recorded. The terminal in which <code>salmonn ui</code> runs prints the whole
address with the token. Open that address, or paste the token here.</p>{problem}
<form method="post" action="/token"><label>Token <input name="token" type="password" autocomplete="off" autofocus
style="font: inherit"></label> <button style="font: inherit">Open</button></form></body></html>"""


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Rules:
    """Who is let in.

    Attributes:
        port: of the page.
        token: needed once by each browser; empty: none, which is for loopback only.
        loopback: the page listens on loopback, so that only loopback's names may stand in Host.
        full: returns whether no further page may be opened.
    """

    port: int
    token: str = ""
    loopback: bool = True
    full: Callable[[], bool] = field(default=lambda: False)

    @property
    def cookie(self) -> str:
        """Name of the cookie; ports of one host share cookies."""
        return f"salmonn_ui_{self.port}"

    @property
    def proof(self) -> str:
        """What the cookie holds: it shows that the browser knew the token."""
        return sha256(f"salmonn ui {self.token}".encode()).hexdigest()

    def matches(self, token: str) -> bool:
        """Whether a token is the right one, in constant time."""
        return bool(self.token) and hmac.compare_digest(token.encode(), self.token.encode())

    def problem(self, kind: str, method: str, headers: dict[str, str]) -> str:
        """Why a request is refused whatever its token, in words; empty when it is not.

        Args:
            kind: "http" or "websocket".
            method: of the request; a websocket has none.
            headers: by lower-case name.
        """
        host = headers.get("host", "")
        if not host or (self.loopback and _name(host) not in LOOPBACK):
            return f"the host {host[:80]!r} is not this page's: open it as localhost"
        origin = headers.get("origin")
        if origin is None and kind == "websocket":
            return "a websocket without an Origin"
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return f"the origin {origin[:80]!r} is another site"
        site = headers.get("sec-fetch-site", "none")
        opens = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("same-origin", "none") and not (opens and headers.get("sec-fetch-dest") == "document"):
            return "a request from another site"
        return ""


class Guard:
    """ASGI middleware that lets in what the rules allow, and adds headers to every response."""

    def __init__(self, app: App, rules: Rules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Check one request or websocket, and pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        rules, kind = self._rules, scope["type"]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope.get("method", "")
        problem = rules.problem(kind, method, headers)
        if problem:
            await _refuse(kind, send, receive, 403, f"Refused: {problem}.\n")
            return
        if rules.token and not _has(headers.get("cookie", ""), rules.cookie, rules.proof):
            await self._ask_token(scope, receive, send)
            return
        if kind == "http" and scope["path"] == "/" and rules.full():
            await _refuse(kind, send, receive, 503, "Too many pages are open. Close one, and load this again.\n")
            return
        await self._app(scope, receive, _with_headers(send))

    async def _ask_token(self, scope: Scope, receive: Any, send: Any) -> None:
        """Take a token from the address or the form, or show the form."""
        rules = self._rules
        if scope["type"] == "websocket":
            await _refuse("websocket", send, receive, 403, "")
            return
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["method"] == "POST" and scope["path"] == "/token":
            given = parse_qs((await _body(receive)).decode("latin-1")).get("token", [""])[0]
        if rules.matches(given):
            cookie = f"{rules.cookie}={rules.proof}; HttpOnly; SameSite=Strict; Path=/"
            await _respond(send, 303, b"", [(b"location", b"/"), (b"set-cookie", cookie.encode())])
            return
        problem = "<p><strong>This is not the token.</strong></p>" if given else ""
        page = LOGIN.format(problem=problem).encode()
        await _respond(send, 403, page, [(b"content-type", b"text/html; charset=utf-8")])


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    return urlsplit(f"//{host}").hostname or ""


def _has(cookies: str, name: str, value: str) -> bool:
    pairs = (part.strip().partition("=") for part in cookies.split(";"))
    return any(key == name and hmac.compare_digest(found.encode(), value.encode()) for key, _, found in pairs)


async def _body(receive: Any) -> bytes:
    body = b""
    while len(body) <= MAX_FORM_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    return body[:MAX_FORM_BYTES]


async def _refuse(kind: str, send: Any, receive: Any, status: int, text: str) -> None:
    if kind == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    await _respond(send, status, text.encode(), [(b"content-type", b"text/plain; charset=utf-8")])


async def _respond(send: Any, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length, *HEADERS]})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Any) -> Any:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return send_with_headers
