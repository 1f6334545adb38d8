"""Keep and forget: forget an interval or everything, save, load; each confirmed, and each says what will be lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from nicegui import ui

from salmonn_node.stream.observations import Interval
from salmonn_node.ui.timeline_drawing import held_within
from salmonn_node.ui.wording import span, stamp_of

if TYPE_CHECKING:
    from salmonn_node.ui.page import Page

NAME_WORDS = "1 to 64 letters, digits, - or _; empty: the running memory's own name"


class ManagePanel:
    """The tab Keep and forget of one page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        with ui.element("div").classes("health"):
            with ui.element("section").classes("card"):
                ui.html("<h3>Forget</h3><p>From memory and from disk. It cannot be undone.</p>", sanitize=False)
                self._from = ui.input("From", placeholder="14:05:30, or seconds").props("outlined dense")
                self._to = ui.input("To", placeholder="14:06:00, or seconds").props("outlined dense")
                with ui.row().classes("actions"):
                    ui.button("Forget this interval", icon="delete", on_click=self._forget).props("outline no-caps")
                    ui.button("Forget everything", icon="delete_forever", on_click=self._forget_all).props(
                        "outline no-caps color=negative"
                    )
            with ui.element("section").classes("card"):
                ui.html("<h3>Save</h3><p>A snapshot of the running memory, on the robot's disk.</p>", sanitize=False)
                self._name = ui.input("Name", placeholder="kitchen").props("outlined dense maxlength=64")
                ui.html(f'<p class="quiet">{NAME_WORDS}.</p>', sanitize=False)
                ui.button("Save", icon="save", on_click=self._save).props("outline no-caps")
            with ui.element("section").classes("card"):
                ui.html("<h3>Load</h3><p>A stored memory takes the place of the running one.</p>", sanitize=False)
                self._stored = ui.select([], label="Stored memory").props("outlined dense options-dense")
                ui.button("Load", icon="folder_open", on_click=self._load).props("outline no-caps")

    async def refresh(self) -> None:
        """Read what is stored and what is held."""
        page = self._page
        await page.read_timeline()
        names = await page.call(page.source.stored)
        self._stored.set_options(list(names or ()))
        if page.window is not None:
            for box, stamp_ns in ((self._from, page.window.start_ns), (self._to, page.window.end_ns)):
                box.set_value(f"{(stamp_ns - self._base_ns()) / 1e9:.3f}")

    def _base_ns(self) -> int:
        """The stamp from which typed seconds count; see `stamp_of`."""
        facts = self._page.state.facts
        return stamp_of("0", facts.start_ns, facts.newest_ns, self._page.source.origin_ns) if facts else 0

    async def _forget(self) -> None:
        page, facts = self._page, self._page.state.facts
        if facts is None or not facts.newest_ns:
            ui.notify("Nothing is remembered yet.", type="warning")
            return
        try:
            ends = [
                stamp_of(str(box.value or ""), facts.start_ns, facts.newest_ns, page.source.origin_ns)
                for box in (self._from, self._to)
            ]
            if not all(box.value for box in (self._from, self._to)) or ends[1] < ends[0]:
                raise ValueError("Write both ends of the interval, the earlier one first.")
        except ValueError as error:
            ui.notify(str(error), type="warning")
            return
        interval = Interval(*ends)
        timeline = await page.read_timeline()
        tokens, moments = held_within(timeline, interval) if timeline else (0, 0)
        await self._confirmed(
            f"Forget {span(interval, page.source.origin_ns)}?",
            f"Lost for good: about {tokens} tokens and {moments} moments with their pictures, the journal of that "
            "time, and every snapshot that holds it. The fast weights go back to a snapshot from before; what they "
            "learned since is lost too. Memories saved under other names keep the interval.",
            "Forget it",
            lambda: page.call(page.source.forget, interval),
        )

    async def _forget_all(self) -> None:
        page, facts = self._page, self._page.state.facts
        held = f"{facts.visual_tokens + facts.audio_tokens} tokens" if facts else "all tokens"
        await self._confirmed(
            "Forget everything?",
            f"Lost for good: {held}, all pictures, the path and the fast weights of the running memory, here and on "
            "disk. Memories saved under other names stay.",
            "Forget everything",
            lambda: page.call(page.source.forget, None),
        )

    async def _save(self) -> None:
        page, name = self._page, str(self._name.value or "").strip()
        taken = name in (await page.call(page.source.stored) or ())
        lost = "The memory that has this name now is replaced and lost." if taken else "Nothing is lost."
        await self._confirmed(
            f"Save as {name or 'its own name'}?",
            f"{lost} The saved memory holds what people did and said: treat it as private.",
            "Replace it" if taken else "Save",
            lambda: page.call(page.source.save, name, taken),
            "Saved as {}.",
        )

    async def _load(self) -> None:
        page, name = self._page, self._stored.value
        if not name:
            ui.notify("Choose a stored memory first.", type="warning")
            return
        await self._confirmed(
            f"Load {name}?",
            "The running memory is saved under its own name first. While the other one is loaded, the robot observes "
            "nothing, open questions are canceled and watches end.",
            "Load it",
            lambda: page.call(page.source.load, name),
            "Loaded; the memory is {}.",
        )

    async def _confirmed(
        self, title: str, lost: str, verb: str, work: Callable[[], Awaitable[Any]], done: str = "{}"
    ) -> None:
        """Ask whether to do it, do it, and say what came of it."""
        with ui.dialog() as dialog, ui.card().classes("confirm").props('role="alertdialog"'):
            ui.label(title).classes("value small")
            ui.label(lost)
            with ui.row().classes("actions"):
                ui.button("Leave it", on_click=lambda: dialog.submit(False)).props("outline no-caps autofocus")
                ui.button(verb, on_click=lambda: dialog.submit(True)).props("unelevated no-caps color=negative")
        agreed = await dialog
        dialog.delete()
        if not agreed:
            return
        result = await work()
        if result is not None:
            ui.notify(done.format(result), type="positive", multi_line=True, timeout=8000, close_button="Close")
            await self.refresh()
