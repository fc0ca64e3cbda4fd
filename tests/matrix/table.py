"""The matrix as a table, for the terminal and for ``docs/unmodified.md``."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.matrix.columns import COLUMNS, Row

BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"


def machine(python: str) -> str:
    """When and on what."""
    day = time.strftime("%Y-%m-%d", time.gmtime())
    ask = [python, "-c", "import platform; print(platform.python_version())"]
    version = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    cores, user = len(os.sched_getaffinity(0)), "root" if os.getuid() == 0 else "an ordinary user"
    kernel = platform.release().partition("-")[0]
    return f"{day}, Linux {kernel}, Python {version}, {cores} cores, as {user}"


def line(row: Row) -> str:
    """One row as the terminal shows it when it is there."""
    if not row.version:
        return f"{row.entry.name:<22} not installed: {row.entry.install}"
    cells = "; ".join(
        f"{name} {'' if cell.good else 'NO '}{cell.seen}" for name, cell in row.cells.items()
    )
    return f"{row.entry.name:<22} {row.version:<9} {cells}"


def markdown(rows: Sequence[Row], python: str) -> str:
    notes: list[str] = []
    lines = [
        f"Run of {machine(python)}.",
        "",
        _row(["server", "version", *COLUMNS]),
        "|---" * (len(COLUMNS) + 2) + "|",
    ]
    lines += [_row([row.entry.name, *_cells(row, notes)]) for row in rows]
    if notes:
        lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    return "\n".join(lines)


def _cells(row: Row, notes: list[str]) -> Iterator[str]:
    if not row.version:
        yield f"not installed: `{row.entry.install}`"
        yield from [""] * len(COLUMNS)
        return
    yield row.version + _mark(row.entry.note, notes)
    for name in COLUMNS:
        cell = row.cells.get(name)
        if cell is None:
            yield "-"
        elif cell.good:
            yield cell.seen
        else:
            why = row.entry.no.get(name, "")
            yield f"**no**: {cell.seen}" if not why else "**no**" + _mark(why, notes)


def _mark(note: str, notes: list[str]) -> str:
    """A reference to a note that is told once."""
    if not note:
        return ""
    if note not in notes:
        notes.append(note)
    return f" ({notes.index(note) + 1})"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write_between_markers(path: Path, text: str) -> None:
    """Replaces what stands between the markers of a page."""
    page = path.read_text(encoding="utf-8")
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path}: no {BEGIN} ... {END} in it")
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")
