"""One open page: its head, its tabs, and what they share; made anew for each browser tab."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import run, ui

from salmonn_node.stream.kept_timeline import KeptTimeline
from salmonn_node.stream.observations import Interval
from salmonn_node.ui.ask_panel import AskPanel
from salmonn_node.ui.health_panel import HealthPanel
from salmonn_node.ui.manage_panel import ManagePanel
from salmonn_node.ui.map_panel import MapPanel
from salmonn_node.ui.source import RefusedError, Source, SourceState
from salmonn_node.ui.timeline_panel import TimelinePanel
from salmonn_node.ui.watch_panel import WatchPanel

LOOK_S = 1.0  # how often a page looks at the source's state
PRIVATE = "Cameras and microphones record people. What this page shows is private: show it to nobody else."
THEMES = {None: ("brightness_auto", "as the system"), False: ("light_mode", "light"), True: ("dark_mode", "dark")}


class Page:
    """What the panels share.

    Attributes:
        source: where everything comes from.
        state: how it was at the last look.
        window: the chosen window, or None.
        timeline: what was last read of the source.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.state: SourceState = source.state()
        self.window: Interval | None = None
        self.timeline: KeptTimeline | None = None
        self._build()

    def _build(self) -> None:
        ui.page_title(f"{self.source.title} · salmonn")
        self._dark = ui.dark_mode(None)
        with ui.header().classes("head"):
            ui.html("<h1>salmonn</h1>", sanitize=False)
            ui.label(self.source.title).classes("title")
            self._sign = ui.label().props('role="status"').classes("sign")
            self._theme = ui.button(on_click=self._next_theme).props("flat round dense color=white").classes("theme")
            self._show_theme()
        self._gone = ui.label().classes("gone").props('role="alert"')
        with ui.element("div").classes("sheet"):
            with ui.tabs().props("align=left inline-label outside-arrows mobile-arrows no-caps") as self._tabs:
                names = ["Ask", "Timeline", "Map", "Health"]
                names += ["Watch"] if self.source.abilities.watch else []
                names += ["Keep and forget"] if self.source.abilities.change else []
                tabs = {name: ui.tab(name) for name in names}
            self._tabs.on_value_change(self._refresh)
            with ui.tab_panels(self._tabs, value=tabs["Ask"]).props("keep-alive").classes("panels"):
                with ui.tab_panel(tabs["Ask"]):
                    self.asking = AskPanel(self)
                with ui.tab_panel(tabs["Timeline"]):
                    self._timeline = TimelinePanel(self)
                with ui.tab_panel(tabs["Map"]):
                    self._map = MapPanel(self)
                with ui.tab_panel(tabs["Health"]):
                    self._health = HealthPanel(self)
                if "Watch" in tabs:
                    with ui.tab_panel(tabs["Watch"]):
                        self._watch = WatchPanel(self)
                if "Keep and forget" in tabs:
                    with ui.tab_panel(tabs["Keep and forget"]):
                        self._manage = ManagePanel(self)
        ui.label(PRIVATE).classes("private")
        ui.timer(LOOK_S, self._look)

    # -- what the panels use ------------------------------------------------------------------------------------------

    async def call(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run a call of the source in a thread; what it refuses is shown, and gives None."""
        try:
            return await run.io_bound(work, *arguments)
        except RefusedError as refused:
            ui.notify(str(refused), type="warning", multi_line=True, timeout=8000, close_button="Close")
            return None

    async def read_timeline(self) -> KeptTimeline | None:
        """Read anew what is held."""
        found = await self.call(self.source.timeline, None, 240, 1000)
        if found is not None:
            self.timeline = found
        return self.timeline

    def source_names(self) -> list[str]:
        """Cameras and microphones that are known so far."""
        names = [row.source for row in self.timeline.rows] if self.timeline else []
        names += [part.name.removeprefix("input ") for part in self.state.health if part.name.startswith("input ")]
        return [name for name in dict.fromkeys(names) if name != "pose"]

    def choose(self, window: Interval | None) -> None:
        """Choose a window everywhere."""
        self.window = window
        self.asking.show_window()
        self._timeline.draw()

    def open(self, name: str) -> None:
        """Go to a tab."""
        self._tabs.set_value(name)

    # -- what goes on by itself ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        state = self.source.state()
        changed, self.state = state != self.state or not self._sign.text, state
        if not changed:
            return
        self._sign.set_text("Connected" if state.reachable else "Not connected")
        self._sign.classes(remove="up down", add="up" if state.reachable else "down")
        self._gone.set_text("" if state.reachable else state.text)
        self._gone.set_visibility(not state.reachable)
        self.asking.look()
        if self._tabs.value == "Health":
            self._health.draw()

    async def _refresh(self) -> None:
        """A tab was opened: read what it shows."""
        refreshing: dict[str, Callable[[], Awaitable[None] | None]] = {
            "Timeline": self._timeline.refresh,
            "Map": self._map.refresh,
            "Health": self._health.draw,
        }
        if self.source.abilities.change:
            refreshing["Keep and forget"] = self._manage.refresh
        if refresh := refreshing.get(self._tabs.value):
            waiting = refresh()
            if waiting is not None:
                await waiting

    def _next_theme(self) -> None:
        order = list(THEMES)
        self._dark.set_value(order[(order.index(self._dark.value) + 1) % len(order)])
        self._show_theme()

    def _show_theme(self) -> None:
        icon, words = THEMES[self._dark.value]
        self._theme.props(f'icon={icon} aria-label="Colours: {words}. Press for the next"')
