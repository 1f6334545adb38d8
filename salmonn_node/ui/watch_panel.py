"""Watch: "tell me when" a yes-or-no question becomes true; a mark and the evidence when it did."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from nicegui import background_tasks, run, ui

from salmonn_node.stream.answers import AnswerType, ErrorCode, Question
from salmonn_node.ui.answer_card import evidence, text
from salmonn_node.ui.ask_panel import MAX_QUESTION_BYTES
from salmonn_node.ui.source import WatchResult
from salmonn_node.ui.wording import span

if TYPE_CHECKING:
    from salmonn_node.ui.page import Page

MAX_WATCHES = 4
LOOK_S = 0.5
TIMEOUT_S = 10.0


class WatchPanel:
    """The tab Watch of one page. Its watches end when the page is closed."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._running: set[threading.Event] = set()
        with ui.element("form").classes("ask").on("submit.prevent", self._start):
            self._text = (
                ui.input("Tell me when", placeholder="is the door open?")
                .props(f"outlined maxlength={MAX_QUESTION_BYTES} autocomplete=off")
                .classes("grow")
            )
            ui.button("Watch", icon="visibility").props("type=submit unelevated no-caps")
        ui.html(
            '<p class="quiet">Write a question with the answer yes or no. It is asked about everything new until the '
            "answer is yes. Leave this page open.</p>",
            sanitize=False,
        )
        self._list = ui.column().classes("answers")
        ui.context.client.on_delete(self._end_all)

    def _end_all(self) -> None:
        for cancel in self._running:
            cancel.set()

    def _start(self) -> None:
        asked = str(self._text.value or "").strip()
        if not asked or len(asked.encode()) > MAX_QUESTION_BYTES:
            ui.notify("Write a question first.", type="warning")
            return
        if len(self._running) >= MAX_WATCHES:
            ui.notify(f"At most {MAX_WATCHES} watches run at a time. Cancel one.", type="warning")
            return
        cancel = threading.Event()
        self._running.add(cancel)
        self._text.set_value("")
        with self._list:
            box = ui.element("article").classes("card watch")
        box.move(target_index=0)
        with box:
            ui.html(f'<p class="q">{text(asked)}</p>', sanitize=False)
            words = ui.html('<p role="status">Watching …</p>', sanitize=False)
            stop = ui.button("Cancel", icon="close", on_click=cancel.set).props("outline dense no-caps")
        background_tasks.create(self._run(asked, cancel, words, stop))

    async def _run(self, asked: str, cancel: threading.Event, words: ui.html, stop: ui.button) -> None:
        question = Question(asked, AnswerType.BINARY, timeout_s=TIMEOUT_S)
        looks = 0

        def on_look(count: int) -> None:
            nonlocal looks
            looks = count

        def show() -> None:
            words.set_content(f'<p role="status">Watching. Looked {looks} times; not yet.</p>')

        with words.parent_slot.parent if words.parent_slot else words:
            ticker = ui.timer(LOOK_S, show)
        try:
            result = await run.io_bound(self._page.source.watch, question, on_look, cancel)
        finally:
            self._running.discard(cancel)
            ticker.cancel()
        if words.is_deleted or result is None:
            return
        stop.delete()
        words.set_content(outcome(result, self._page.source.origin_ns))
        if result.became_true:
            with words:
                ui.notify(f"It became true: {asked}", type="positive", timeout=0, close_button="Close")


def outcome(result: WatchResult, origin_ns: int = 0) -> str:
    """How a watch ended, as HTML."""
    answer = result.answer
    if result.became_true:
        at = span(answer.evidence[0].interval, origin_ns) if answer.evidence else "now"
        shown = "".join(evidence(piece, 0, origin_ns, n) for n, piece in enumerate(answer.evidence, 1))
        return (
            f'<p role="alert"><span class="badge good">✓ Became true</span> {text(at)}, after {result.evaluations} '
            f'looks.</p><ul class="evidence">{shown}</ul>'
        )
    if answer.error_code == ErrorCode.CANCELED:
        return f'<p><span class="badge quiet">Ended</span> after {result.evaluations} looks; it was not true.</p>'
    return f'<p><span class="badge bad">{answer.error_code.name}</span> {text(answer.error_msg)}</p>'
