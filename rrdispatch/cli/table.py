"""A table for people: columns that fit the terminal, colour only where it can be seen.

Written by ourselves: ``import rich`` alone costs more than ``list`` may take.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PIPED = 200  # columns when nobody looks
COLOURS = {
    "online": "32", "serving": "32", "ready": "32", "launching": "34", "starting": "34",
    "reloading": "34", "stopping": "33", "stopped": "31", "degraded": "33", "errored": "31",
    "killed": "31", "not answering": "31",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """``drop``: the higher, the sooner it goes when the terminal is narrow; 0: never."""

    key: str
    title: str
    right: bool = False
    drop: int = 0


TITLES = {
    "restarts": "↺", "serving": "workers", "memory": "mem", "connections": "conns",
    "connections_per_second": "conn/s",
}  # fmt: skip


def number(key: str, drop: int = 0) -> Column:
    """A column of figures."""
    return Column(key, TITLES.get(key, key), right=True, drop=drop)


def width() -> int:
    """Of the terminal, or of one that nobody sees."""
    said = os.environ.get("COLUMNS", "")
    if said.isascii() and said.isdigit() and int(said):
        return int(said)
    if not sys.stdout.isatty():
        return PIPED
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except OSError:
        return 80


def colourful() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def render(
    columns: Sequence[Column], rows: Sequence[Mapping[str, str]], most: int, colour: bool = False
) -> str:
    """Lines no longer than ``most``: columns are dropped first, then the widest texts are cut."""
    widths = fit(columns, rows, most)
    shown = [column for column in columns if column.key in widths]
    lines = [_rule(shown, widths, "┌┬┐"), _line(shown, widths, {c.key: c.title for c in shown})]
    lines.append(_rule(shown, widths, "├┼┤"))
    lines += [_line(shown, widths, row, colour) for row in rows]
    lines.append(_rule(shown, widths, "└┴┘"))
    return "\n".join(lines)


def fit(
    columns: Sequence[Column], rows: Sequence[Mapping[str, str]], most: int, gap: int = 3
) -> dict[str, int]:
    """The columns that stay, in their order, and how wide each is."""
    shown = list(columns)
    widths = _widths(shown, rows)
    while _total(widths, gap) > most and (least := max(shown, key=lambda one: one.drop)).drop:
        shown.remove(least)
        widths = _widths(shown, rows)
    while _total(widths, gap) > most and max(widths.values()) > 4:
        widest = max(widths, key=lambda key: widths[key])
        widths[widest] -= 1
    return widths


def _widths(columns: Sequence[Column], rows: Sequence[Mapping[str, str]]) -> dict[str, int]:
    return {c.key: max([len(c.title), *(len(row[c.key]) for row in rows)]) for c in columns}


def _total(widths: Mapping[str, int], gap: int) -> int:
    return sum(widths.values()) + gap * len(widths) + 1


def _rule(columns: Sequence[Column], widths: Mapping[str, int], ends: str) -> str:
    return ends[0] + ends[1].join("─" * (widths[c.key] + 2) for c in columns) + ends[2]


def _line(
    columns: Sequence[Column],
    widths: Mapping[str, int],
    row: Mapping[str, str],
    colour: bool = False,
) -> str:
    cells = []
    for column in columns:
        text = cut(row[column.key], widths[column.key])
        cell = text.rjust if column.right else text.ljust
        told = cell(widths[column.key])
        code = COLOURS.get(row[column.key]) if colour else None
        cells.append(f" \033[{code}m{told}\033[0m " if code else f" {told} ")
    return "│" + "│".join(cells) + "│"


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(0, most - 1)] + "…"


def plain(text: str) -> str:
    """Without characters that a terminal would act on."""
    return "".join(char if char.isprintable() else "?" for char in text)


def shown_time(seconds: float) -> str:
    """``42s``, ``7m``, ``3h``, ``12D``: the unit changes at more than one of the next."""
    for size, unit in ((86400, "D"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size or (unit == "D" and seconds >= size):
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def shown_bytes(count: float) -> str:
    for unit in ("b", "kb", "mb"):
        if count < 1024:
            return f"{count:.0f}{unit}" if unit == "b" else f"{count:.1f}{unit}"
        count /= 1024
    return f"{count:.1f}gb"
