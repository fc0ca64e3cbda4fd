"""What is wrong with the text of a file, and where its keys stand."""

from __future__ import annotations

from collections.abc import Mapping

Lines = Mapping[tuple[str, ...], int]  # by way of which keys (and numbers in lists): which line


class Problem(ValueError):
    """``str`` of it begins with the place."""

    def __init__(self, what: str, line: int | None = None, column: int | None = None) -> None:
        place = "" if line is None else f"line {line}"
        place += "" if column is None else f", column {column}"
        super().__init__(f"{place}: {what}" if place else what)
