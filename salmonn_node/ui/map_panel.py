"""Map: the robot's path, evidence and things with their spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicegui import ui

from salmonn_node.ui.map_drawing import drawing

if TYPE_CHECKING:
    from salmonn_node.ui.page import Page


class MapPanel:
    """The tab Map of one page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        with ui.row().classes("actions"):
            ui.button("Read again", icon="refresh", on_click=self.refresh).props("outline dense no-caps")
        self._drawing = ui.html("", sanitize=False)

    async def refresh(self) -> None:
        """Read the path anew and draw it with the last answers."""
        timeline = await self._page.read_timeline()
        source = self._page.source
        if timeline is not None:
            self._drawing.set_content(drawing(timeline.path, source.recent(), source.origin_ns))
