"""The program around the dashboard: begins the source, and ends it."""

from __future__ import annotations

from textual.app import App

from rrdispatch.monit.dashboard import Dashboard, Source
from rrdispatch.monit.style import CSS


class Monit(App[None]):
    """On the whole screen, until somebody leaves.

    The terminal's own 16 colours, so that its theme and its limits are respected; with ``NO_COLOR``
    none at all.
    """

    TITLE = "rrdispatch monit"
    CSS = CSS
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, source: Source, every: float = 1.0) -> None:
        super().__init__(ansi_color=True)
        self._source = source
        self._every = every

    async def on_mount(self) -> None:
        await self._source.start()
        await self.push_screen(Dashboard(self._source, self._every))

    async def on_unmount(self) -> None:
        await self._source.close()


def run(source: Source, every: float) -> None:
    """Without the mouse: the terminal goes on to mark and copy text with it."""
    Monit(source, every).run(mouse=False)
