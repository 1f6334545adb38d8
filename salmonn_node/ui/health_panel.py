"""Health: what the node says about itself; drawn again while one looks at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicegui import ui

from salmonn_node.ui.health_drawing import drawing

if TYPE_CHECKING:
    from salmonn_node.ui.page import Page


class HealthPanel:
    """The tab Health of one page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._drawing = ui.html("", sanitize=False)
        self.draw()

    def draw(self) -> None:
        """Draw the state at the last look."""
        self._drawing.set_content(drawing(self._page.state, self._page.source.origin_ns))
