"""Ask: the question's form, the text as it comes, cancel, and the answers as cards."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

from nicegui import run, ui

from salmonn_node.stream.answers import Answer, AnswerType, ErrorCode, Question
from salmonn_node.stream.observations import SECOND_NS, Interval
from salmonn_node.ui.answer_card import as_json, as_python, card
from salmonn_node.ui.source import RefusedError
from salmonn_node.ui.spectrogram import data_url, spectrogram
from salmonn_node.ui.wording import TYPE_WORDS, span, stamp_of

if TYPE_CHECKING:
    from salmonn_node.ui.page import Page

MAX_QUESTION_BYTES = 4096  # as Question.msg says
SHOWN = 20
SHOW_TEXT_S = 0.1
AROUND_NS = SECOND_NS
DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S = 30.0, 600.0


class AskPanel:
    """The tab Ask of one page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._cancel: threading.Event | None = None
        self._partial = ""
        self._build()

    def _build(self) -> None:
        with ui.element("form").classes("ask").on("submit.prevent", self._ask):
            self._text = (
                ui.input("Your question", placeholder="for example: where is the red box?")
                .props(f'outlined maxlength={MAX_QUESTION_BYTES} autocomplete=off autofocus name="question"')
                .classes("grow")
            )
            self._button = ui.button("Ask", icon="search").props("type=submit unelevated no-caps")
            self._stop = ui.button("Cancel", icon="close", on_click=self.cancel).props("outline no-caps")
            self._stop.set_visibility(False)
        with ui.row().classes("options"):
            words = {kind.name: word for kind, word in TYPE_WORDS.items()}
            self._type = ui.select(words, value="ANY", label="Kind of answer").props("outlined dense options-dense")
            self._choices = (
                ui.input("Choices, separated by commas", placeholder="kitchen, bedroom").props("outlined dense")
            ).classes("grow")
            self._choices.bind_visibility_from(self._type, "value", backward=lambda value: value == "CHOICE")
        with ui.expansion("Window, cameras, deadline", icon="tune").classes("more"), ui.row().classes("options"):
            self._after = ui.input("From", placeholder="the start").props("outlined dense")
            self._before = ui.input("To", placeholder="now").props("outlined dense")
            self._sources = (
                ui.select([], multiple=True, label="Cameras and microphones (none chosen: all)")
                .props("outlined dense use-chips options-dense")
                .classes("grow")
            )
            self._timeout = ui.number("Deadline, seconds", value=DEFAULT_TIMEOUT_S, min=0.1, max=MAX_TIMEOUT_S)
            self._timeout.props("outlined dense")
            ui.html(
                '<p class="quiet">Write a time of day such as 14:05:30, or seconds such as 12.5. '
                "The timeline lets you drag a window.</p>",
                sanitize=False,
            )
        self._window = ui.row().classes("window")
        with self._window:
            self._window_text = ui.label()
            ui.button("Whole memory", on_click=lambda: self._page.choose(None)).props("flat dense no-caps")
        self._window.set_visibility(False)
        self._progress = ui.label().props('role="status" aria-live="polite"').classes("partial")
        self._progress.set_visibility(False)
        self._ticker = ui.timer(SHOW_TEXT_S, self._show_partial, active=False)
        self._answers = ui.column().classes("answers")
        with self._answers:
            self._empty = ui.html(
                '<p class="quiet">Answers appear here, the newest first, each with the pictures that show it.</p>',
                sanitize=False,
            )

    # -- asking ---------------------------------------------------------------------------------------------------

    def _question(self) -> Question:
        """What the form says; raises ValueError in words for a person."""
        asked = str(self._text.value or "").strip()
        if not asked:
            raise ValueError("Write a question first.")
        if len(asked.encode()) > MAX_QUESTION_BYTES:
            raise ValueError(f"The question is longer than {MAX_QUESTION_BYTES} bytes.")
        kind = AnswerType[self._type.value]
        choices = tuple(c.strip() for c in str(self._choices.value or "").split(",") if c.strip())
        if kind == AnswerType.CHOICE and not 2 <= len(set(choices)) <= 32:
            raise ValueError("Write 2 to 32 different choices, separated by commas.")
        facts = self._page.state.facts
        span_ns = (facts.start_ns, facts.newest_ns) if facts else (0, 0)
        after_ns, before_ns = (
            stamp_of(str(box.value or ""), *span_ns, self._page.source.origin_ns) for box in (self._after, self._before)
        )
        if self._page.window is not None:
            after_ns, before_ns = self._page.window.start_ns, self._page.window.end_ns
        if before_ns and before_ns < after_ns:
            raise ValueError("The window ends before it begins.")
        timeout_s = min(max(float(self._timeout.value or DEFAULT_TIMEOUT_S), 0.1), MAX_TIMEOUT_S)
        names = set(self._page.source_names())
        sources = tuple(name for name in self._sources.value or () if name in names)
        return Question(
            asked,
            kind,
            choices if kind == AnswerType.CHOICE else (),
            after_ns,
            before_ns,
            sources,
            timeout_s=timeout_s,
            want_thumbnails=True,
        )

    async def _ask(self) -> None:
        if self._cancel is not None:
            return
        try:
            question = self._question()
        except ValueError as error:
            ui.notify(str(error), type="warning")
            return
        cancel = self._cancel = threading.Event()
        self._partial = ""
        self._busy(True)
        try:
            answer = await run.io_bound(self._page.source.ask, question, self._take_text, cancel)
        finally:
            self._cancel = None
            self._busy(False)
        if answer is not None:
            self._show(question, answer)

    def cancel(self) -> None:
        """Cancel the running question."""
        if self._cancel is not None:
            self._cancel.set()

    def _take_text(self, text: str) -> None:
        self._partial = text

    def _show_partial(self) -> None:
        self._progress.set_text(self._partial or "The memory is being read …")

    def _busy(self, busy: bool) -> None:
        self._button.set_enabled(not busy)
        self._stop.set_visibility(busy)
        self._show_partial()
        self._progress.set_visibility(busy)
        self._ticker.active = busy

    # -- showing --------------------------------------------------------------------------------------------------

    def _show(self, question: Question, answer: Answer) -> None:
        source = self._page.source
        self._empty.set_visibility(False)
        with self._answers:
            box = ui.element("div").classes("answer")
        box.move(target_index=0)
        with box:
            ui.html(card(question, answer, source.origin_ns, source.abilities.sound), sanitize=False)
            self._players(answer)
            with ui.row().classes("actions"):
                copies = {
                    "Copy as JSON": as_json(question, answer),
                    "Copy as Python": as_python(question, source.python_call),
                }
                for name, text in copies.items():
                    ui.button(name, icon="content_copy", on_click=lambda text=text: self._copy(text)).props(
                        "flat dense no-caps"
                    )
                if answer.evidence:
                    ui.button("On the timeline", icon="timeline", on_click=lambda: self._page.open("Timeline")).props(
                        "flat dense no-caps"
                    )
                    ui.button("On the map", icon="map", on_click=lambda: self._page.open("Map")).props(
                        "flat dense no-caps"
                    )
        for old in list(self._answers)[SHOWN + 1 :]:
            old.delete()

    def _players(self, answer: Answer) -> None:
        """A player for each piece of sound, where the source has the sound."""
        if not self._page.source.abilities.sound or answer.error_code != ErrorCode.NONE:
            return
        for number, piece in enumerate(answer.evidence, 1):
            if piece.modality == "audio":
                place = ui.column().classes("sound")
                with place:
                    ui.button(
                        f"Play evidence {number}",
                        icon="volume_up",
                        on_click=lambda piece=piece, place=place: self._play(piece.source, piece.interval, place),
                    ).props("outline dense no-caps")

    async def _play(self, source: str, heard: Interval, place: ui.column) -> None:
        """Play a piece of sound with what was around it: alone, a knock is too short to be made out."""
        interval = Interval(max(0, heard.start_ns - AROUND_NS), heard.end_ns + AROUND_NS)
        try:
            sound = await run.io_bound(self._page.source.sound, source, interval)
        except RefusedError as refused:
            ui.notify(str(refused), type="warning")
            return
        if sound is None:  # the page is closed
            return
        place.clear()
        with place:
            about = f"Spectrogram, 0 to 8 kHz, {span(interval, self._page.source.origin_ns)}"
            ui.html(
                f'<img class="spectrogram" alt="{about}" src="{data_url("image/png", spectrogram(sound))}">',
                sanitize=False,
            )
            ui.html(f'<audio controls src="{data_url("audio/wav", sound)}"></audio>', sanitize=False)

    def _copy(self, text: str) -> None:
        ui.run_javascript(f"salmonnCopy({json.dumps(text)})")
        ui.notify("Copied.")

    # -- what the page tells it --------------------------------------------------------------------------------------

    def look(self) -> None:
        """The state has changed: offer its cameras and microphones."""
        names = self._page.source_names()
        if names != list(self._sources.options):
            self._sources.set_options(names)
        self._button.set_enabled(self._cancel is None and self._page.state.reachable)

    def show_window(self) -> None:
        """Take over the window that was chosen on the timeline."""
        window = self._page.window
        self._window.set_visibility(window is not None)
        for box in (self._after, self._before):
            box.set_enabled(window is None)
        if window is not None:
            self._window_text.set_text(f"Only {span(window, self._page.source.origin_ns)} is read.")
