"""A table with a line that is chosen. Only what is seen is drawn, so 512 workers cost no more.

The chosen line is known by its key: it stays chosen when others come and go above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from rrdispatch.cli.table import Column, cut, fit

GAP = 2
MOST_BAR = 60


@dataclass(frozen=True, slots=True)
class Row:
    """``bar``: what is drawn in the room that is left over, as a function of that room."""

    key: str
    cells: Mapping[str, str]
    styles: Mapping[str, str]
    bar: str = ""
    faint: bool = False


class Grid(Widget, can_focus=True):
    """Rows of ``columns``; arrows choose one of them."""

    BINDINGS = [  # noqa: RUF012 (textual's own way)
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("down,j", "move(1)", "down", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("pagedown", "page(1)", "page down", show=False),
        Binding("home,g", "move(-1000000)", "first", show=False),
        Binding("end,G", "move(1000000)", "last", show=False),
    ]

    class Chosen(Message):
        """Another line is chosen."""

        def __init__(self, grid: Grid) -> None:
            super().__init__()
            self.grid = grid

        @property
        def control(self) -> Grid:
            return self.grid

    def __init__(
        self,
        columns: Sequence[Column],
        room: Mapping[str, str],
        bar: int,
        id: str,  # noqa: A002
    ) -> None:
        """``room``: texts for which there is always room; ``bar``: the least width of the bars."""
        super().__init__(id=id)
        self._least = bar
        self._columns = columns
        self._room = {column.key: room.get(column.key, "") for column in columns}
        self._rows: Sequence[Row] = ()
        self._widths: dict[str, int] = {}
        self._top = 0
        self.chosen = ""
        self.title = ""

    @property
    def seen(self) -> int:
        """Lines that fit, without the heads of the columns."""
        return max(1, self.size.height - 1)

    def show(self, rows: Sequence[Row], title: str) -> None:
        """Instead of those before."""
        at = self._at()
        self._rows, self.title = rows, title
        if rows and not any(row.key == self.chosen for row in rows):
            self._choose(min(max(at, 0), len(rows) - 1))
        elif not rows:
            self.chosen = ""
        self._lay_out()

    def bar_room(self) -> int:
        """Columns that are left over at the right."""
        used = sum(self._widths.values()) + GAP * (len(self._widths) + 1)
        return max(0, min(MOST_BAR, self.size.width - used))

    def on_resize(self) -> None:
        self._lay_out()

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def action_move(self, by: int) -> None:
        if self._rows:
            self._choose(min(max(self._at() + by, 0), len(self._rows) - 1))
            self._lay_out()

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self.seen - 1))

    def _choose(self, index: int) -> None:
        key = self._rows[index].key
        if key != self.chosen:
            self.chosen = key
            self.post_message(self.Chosen(self))

    def _at(self) -> int:
        return next((i for i, row in enumerate(self._rows) if row.key == self.chosen), -1)

    def _lay_out(self) -> None:
        cells = [self._room, *(row.cells for row in self._rows)]
        self._widths = fit(self._columns, cells, self.size.width - self._least - GAP, GAP)
        at, seen = max(0, self._at()), self.seen
        self._top = max(at - seen + 1, min(self._top, at, max(0, len(self._rows) - seen)))
        last = min(len(self._rows), self._top + seen)
        part = f" ({self._top + 1} to {last} of {len(self._rows)})"
        self.border_title = self.title + (part if len(self._rows) > seen else "")
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            titles = {column.key: column.title for column in self._columns}
            return self._strip([Segment(self._text(titles), Style(dim=True))], width)
        index = self._top + y - 1
        if index >= len(self._rows):
            return Strip.blank(width)
        row = self._rows[index]
        chosen = row.key == self.chosen
        base = Style(reverse=chosen and self.has_focus, bold=chosen or None, dim=row.faint or None)
        segments = [Segment("▸ " if chosen else "  ", base)]
        for column in self._columns:
            if column.key in self._widths:
                own = Style() if base.reverse else Style.parse(row.styles.get(column.key, "none"))
                segments.append(Segment(self._cell(column, row.cells), base + own))
                segments.append(Segment(" " * GAP, base))
        if self.bar_room() >= len(row.bar):
            segments.append(Segment(row.bar, Style.parse(row.styles.get("bar", "none"))))
        return self._strip(segments, width)

    def _text(self, cells: Mapping[str, str]) -> str:
        shown = [self._cell(c, cells) for c in self._columns if c.key in self._widths]
        return " " * GAP + (" " * GAP).join(shown)

    def _cell(self, column: Column, cells: Mapping[str, str]) -> str:
        width = self._widths[column.key]
        text = cut(cells[column.key], width)
        return text.rjust(width) if column.right else text.ljust(width)

    def _strip(self, segments: list[Segment], width: int) -> Strip:
        return Strip(segments).adjust_cell_length(width)
