"""A page that shows what was sent to a server for a question and what came back, pictures included."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from salmonn_node.answering.server_reader import ServerExchange
from salmonn_node.stream.answers import Answer

HEAD = """<!doctype html><meta charset="utf-8"><title>What was sent</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>body{font:14px sans-serif;max-width:60em;margin:2em auto;padding:0 1em}pre{white-space:pre-wrap;background:#8882;
padding:.6em}img{display:block;image-rendering:pixelated;min-width:320px}</style>"""
PICTURE = "data:image/jpeg;base64,"


def page(question: str, answer: Answer, exchanges: Sequence[ServerExchange]) -> str:
    """The page as HTML; it loads nothing from anywhere."""
    told = answer.error_msg or f"{answer.outcome.name}: {answer.text}"
    parts = [HEAD, f"<h1>{html.escape(question)}</h1><p>{html.escape(told)}</p>"]
    if not exchanges:
        parts.append("<p>Nothing was sent.</p>")
    for number, exchange in enumerate(exchanges, 1):
        parts.append(f"<h2>Request {number}</h2>")
        for message in exchange.messages:
            parts.append(f"<h3>{html.escape(str(message['role']))}</h3>")
            content = message["content"]
            sent: list[dict[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
            for part in sent:
                if part["type"] == "text":
                    parts.append(f"<pre>{html.escape(part['text'])}</pre>")
                elif part["image_url"]["url"].startswith(PICTURE):
                    parts.append(f'<img src="{html.escape(part["image_url"]["url"], quote=True)}" alt="">')
        parts.append(f"<h3>reply</h3><pre>{html.escape(exchange.reply)}</pre>")
    return "\n".join(parts) + "\n"
