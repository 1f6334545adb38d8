"""Timeline: what is still held; click a moment to see it, drag a window to ask within it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nicegui import ui

from salmonn_node.stream.observations import Interval
from salmonn_node.ui.answer_card import evidence
from salmonn_node.ui.timeline_drawing import drawing, gaps
from salmonn_node.ui.wording import seconds, span

if TYPE_CHECKING:
    from salmonn_node.ui.page import Page


class TimelinePanel:
    """The tab Timeline of one page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        with ui.row().classes("actions"):
            ui.button("Read again", icon="refresh", on_click=self.refresh).props("outline dense no-caps")
            self._ask = ui.button("Ask within the window", icon="search", on_click=lambda: page.open("Ask")).props(
                "unelevated dense no-caps"
            )
            self._all = ui.button("Whole memory", on_click=lambda: page.choose(None)).props("flat dense no-caps")
        self._words = ui.label("Drag to choose a window. Click a moment to see it.").props('role="status"')
        self._drawing = ui.html("", sanitize=False)
        self._about = ui.html("", sanitize=False)
        self._moment = ui.html("", sanitize=False).props('role="region" aria-label="The moment"')
        ui.on("salmonn_window", self._on_window)
        ui.on("salmonn_moment", self._on_moment)
        self.draw()

    async def refresh(self) -> None:
        """Read anew what is held."""
        await self._page.read_timeline()
        self.draw()

    def draw(self) -> None:
        """Draw what was read last."""
        page, window = self._page, self._page.window
        origin_ns = page.source.origin_ns
        self._ask.set_visibility(window is not None)
        self._all.set_visibility(window is not None)
        if window is not None:
            self._words.set_text(f"Chosen: {span(window, origin_ns)}, {seconds(window.duration_s)}.")
        else:
            self._words.set_text("Drag to choose a window. Click a moment to see it.")
        if page.timeline is None:
            return
        self._drawing.set_content(drawing(page.timeline, page.source.recent(), window, origin_ns))
        holes = [f"{span(gap, origin_ns)} ({seconds(gap.duration_s)})" for gap in gaps(page.timeline)]
        facts = page.state.facts
        lines = [f"Session {facts.session}, memory {facts.memory_id}."] if facts else []
        lines.append(f"Nothing observed in {len(holes)} stretches: {'; '.join(holes[:5])}." if holes else "No gaps.")
        self._about.set_content(f'<p class="quiet">{" ".join(lines)}</p>')

    def _at(self, share: Any) -> int:
        """The stamp at a share of the timeline, 0..1; raises ValueError for anything else."""
        timeline = self._page.timeline
        whole = timeline.span if timeline else None
        value = float(share)
        if whole is None or not 0.0 <= value <= 1.0:
            raise ValueError("not a place on the timeline")
        return whole.start_ns + round(value * (whole.end_ns - whole.start_ns))

    def _on_window(self, event: Any) -> None:
        try:
            start_ns, end_ns = sorted((self._at(event.args["from"]), self._at(event.args["to"])))
        except (KeyError, TypeError, ValueError):
            return
        self._page.choose(Interval(start_ns, end_ns))

    async def _on_moment(self, event: Any) -> None:
        try:
            source, stamp_ns = str(event.args["source"]), self._at(event.args["at"])
        except (KeyError, TypeError, ValueError):
            return
        if source not in self._page.source_names():
            return
        found = await self._page.call(self._page.source.moment, source, stamp_ns)
        if found is not None:
            held = (
                "The memory still holds it." if found.score else "Only this trace is left; the memory holds it no more."
            )
            shown = evidence(found, 0, self._page.source.origin_ns)
            self._moment.set_content(f'<ul class="evidence one">{shown}</ul><p>{held}</p>')
