"""A server as the reader of a recording: captions before a question, and the page of what was sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from salmonn_node.answering.answerer import Answerer
from salmonn_node.ingest.observer import Observer
from salmonn_node.stream.answers import Answer


def caption_before(observer: Observer, answerer: Answerer, most: int) -> Callable[[], object]:
    """A function that lets the server write at most `most` captions, the newest first; does nothing without one."""
    if answerer.server is None or most <= 0:
        return lambda: None
    from salmonn_node.answering.server_captions import Captioner

    captions = Captioner(observer, answerer.server.client, 0.0)

    def write() -> None:
        for _ in range(most):
            if not captions.step(observer.newest_ns):
                return

    return write


def write_page(path: Path, question: str, answer: Answer, answerer: Answerer) -> None:
    """Write what was sent to the server for the last question; without a server nothing is written."""
    if answerer.server is None:
        return
    from salmonn_node.answering.server_page import page

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(question, answer, answerer.server.exchanges), encoding="utf-8")
