"""Who is let in: hosts, origins, tokens, the bound on pages; over the ASGI interface, for requests and websockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from salmonn_node.ui.guard import Guard, Rules, is_loopback, new_token

TOKEN = "a-token-of-this-test"


async def inside(scope: Any, receive: Any, send: Any) -> None:
    """The page behind the guard."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})


def ask(
    rules: Rules,
    *,
    kind: str = "http",
    method: str = "GET",
    path: str = "/",
    query: str = "",
    body: bytes = b"",
    host: str = "localhost:8500",
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    """Status (101: an accepted websocket, 1008: a refused one), headers and body of one request."""
    given = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": kind, "path": path, "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    } | ({"method": method} if kind == "http" else {})  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body} if kind == "http" else {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(inside, rules)(scope, receive, send))
    first = sent[0]
    if kind == "websocket":
        return (101 if first["type"] == "websocket.accept" else first["code"]), {}, b""
    found = {name.decode(): value.decode() for name, value in first["headers"]}
    return first["status"], found, b"".join(message.get("body", b"") for message in sent[1:])


def test_a_browser_on_this_machine_is_let_in_and_no_other_site_may_frame_or_read_the_page():
    status, headers, body = ask(Rules(8500))

    assert (status, body) == (200, b"inside")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "connect-src 'self'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert ask(Rules(8500), host="127.0.0.1:8500")[0] == ask(Rules(8500), host="[::1]:8500")[0] == 200


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8500", "origin": "http://evil.example:8500"},  # a name that resolves to this machine
        {"origin": "http://evil.example"},
        {"origin": "http://localhost:9999"},  # another port is another site
        {"origin": "null"},
        {"origin": "http://localhost:8500", "sec_fetch_site": "cross-site"},
        {"host": ""},
    ],
)
def test_other_sites_are_refused(kind: str, headers: dict[str, str]):
    assert ask(Rules(8500), kind=kind, **headers)[0] in (403, 1008)


def test_a_websocket_needs_an_origin():
    assert ask(Rules(8500), kind="websocket")[0] == 1008
    assert ask(Rules(8500), kind="websocket", origin="http://localhost:8500")[0] == 101


def test_a_link_on_another_site_may_open_the_page_but_not_embed_it():
    link = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}
    assert ask(Rules(8500), **link, sec_fetch_dest="document")[0] == 200
    assert ask(Rules(8500), **link, sec_fetch_dest="iframe")[0] == 403


def test_without_its_token_nothing_is_shown_and_with_it_a_browser_keeps_a_cookie():
    rules = Rules(8500, TOKEN, loopback=False)
    host = "robot:8500"
    assert ask(rules, host=host)[0] == ask(rules, host=host, path="/static/page.js")[0] == 403
    assert ask(rules, host=host, kind="websocket", origin="http://robot:8500")[0] == 1008
    assert b"not the token" in ask(rules, host=host, query="token=wrong")[2]

    for given in ({"query": f"token={TOKEN}"}, {"method": "POST", "path": "/token", "body": f"token={TOKEN}".encode()}):
        status, headers, _ = ask(rules, host=host, **given)
        assert (status, headers["location"]) == (303, "/")
        assert {"HttpOnly", "SameSite=Strict"} <= set(headers["set-cookie"].split("; "))
        assert TOKEN not in headers["set-cookie"]

    cookie = headers["set-cookie"].partition(";")[0]
    assert ask(rules, host=host, cookie=f"other=1; {cookie}")[2] == b"inside"
    assert ask(rules, host=host, kind="websocket", origin="http://robot:8500", cookie=cookie)[0] == 101
    # The cookie does not open another site's way in.
    assert ask(rules, host=host, kind="websocket", origin="http://evil.example", cookie=cookie)[0] == 1008
    assert ask(rules, host=host, cookie=cookie[:-1])[0] == 403


def test_the_number_of_pages_is_bounded():
    rules = Rules(8500, full=lambda: True)
    assert ask(rules)[0] == 503
    assert ask(rules, path="/static/page.js")[0] == 200


def test_which_addresses_need_no_token():
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.1.2.3")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.4", "robot.local", "")))
    assert new_token() != new_token()
    assert len(new_token()) >= 32
