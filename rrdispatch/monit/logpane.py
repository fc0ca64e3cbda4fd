"""The lines of the chosen app or worker. They hold what strangers sent: no escape gets through."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from rich.text import Text
from textual.widgets import RichLog

from rrdispatch.cli.escapes import harmless
from rrdispatch.cluster.logformat import ERR, OUT, Line
from rrdispatch.errors import Error

KEPT = 1000
STREAMS: tuple[str | None, ...] = (None, ERR, OUT)
NAMES = {None: "", ERR: ", stderr only", OUT: ", stdout only"}


class Lines(Protocol):
    """``tail.Tail`` is one."""

    async def more(self) -> list[Line]: ...
    async def close(self) -> None: ...


class LogPane(RichLog):
    """Follows one at a time."""

    def __init__(self, every: float, id: str) -> None:  # noqa: A002
        super().__init__(id=id, max_lines=KEPT, wrap=False, min_width=0)
        self._every = every
        self._of: tuple[str, int | None] | None = None
        self._kept: deque[Line] = deque(maxlen=KEPT)
        self._reading: asyncio.Task[None] | None = None
        self.stream: str | None = None

    def follow(self, of: tuple[str, int | None] | None, tail: Callable[[], Lines]) -> None:
        """These from now on; nothing happens if it is these already."""
        if of == self._of:
            return
        self.leave()
        self._of = of
        self._title()
        if of is not None:
            self._reading = asyncio.get_running_loop().create_task(self._run(tail()))

    def leave(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading, self._of = None, None
        self._kept.clear()
        self.clear()

    def next_stream(self) -> None:
        """Both, one, the other."""
        self.stream = STREAMS[(STREAMS.index(self.stream) + 1) % len(STREAMS)]
        self._title()
        self.clear()
        for line in self._kept:
            self._add(line)

    async def _run(self, tail: Lines) -> None:
        said = ""
        try:
            while True:
                try:
                    for line in await tail.more():
                        self._kept.append(line)
                        self._add(line)
                except (Error, OSError) as error:
                    if str(error) != said:
                        said = str(error)
                        self.write(Text().append(said, "dim"))
                await asyncio.sleep(self._every)
        finally:
            await tail.close()

    def _add(self, line: Line) -> None:
        if self.stream is None or line.stream in (self.stream, None):
            # Who scrolled up reads there: the end comes later.
            self.write(self._text(line), scroll_end=self.is_vertical_scroll_end)

    def _text(self, line: Line) -> Text:
        text = Text(no_wrap=True)
        if line.stamp:
            text.append(f"{line.stamp[11:19]} ", "dim")
        if line.slot is not None and self._of is not None and self._of[1] is None:
            text.append(f"{line.slot} ", "bold")
        if line.stream is not None:
            text.append(f"{line.stream} ", "yellow" if line.stream == ERR else "cyan")
        return text.append_text(Text.from_ansi(harmless(line.message)))

    def _title(self) -> None:
        name, slot = self._of or ("", None)
        who = name if slot is None else f"{name}:{slot}"
        self.border_title = f"logs of {who}{NAMES[self.stream]}" if name else "logs"
