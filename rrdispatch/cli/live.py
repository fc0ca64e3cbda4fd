"""A block of lines at the foot of a terminal, drawn anew as things change; other lines go above it.

Owns stderr while it is open. A thread draws, so that a command that waits for an answer need not.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from rrdispatch.cli.board import Board
from rrdispatch.control.ask import ask
from rrdispatch.errors import Error

REDRAWN, ASKED = 0.2, 0.6  # seconds


def possible() -> bool:
    """Somebody looks, with a terminal that can move its cursor."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Live:
    """From construction to ``close``."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._colour = not os.environ.get("NO_COLOR")
        self._lock = threading.Lock()
        self._drawn = 0
        self._over = threading.Event()
        self._asked = time.monotonic() - ASKED
        self._thread = threading.Thread(target=self._draw_on, daemon=True)
        self._thread.start()

    def event(self, event: Mapping[str, Any]) -> None:
        with self._lock:
            if self._board.event(event, time.monotonic()):
                self._write("")

    def above(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._write(text + "\n")

    def close(self) -> None:
        """What was drawn last stays."""
        with self._lock:
            self._write("")
            self._over.set()
        self._thread.join()

    def _draw_on(self) -> None:
        while not self._over.wait(REDRAWN):
            self._look()
            with self._lock:
                self._write("")

    def _look(self) -> None:
        """Connections of those that drain are not announced."""
        now = time.monotonic()
        if now - self._asked < ASKED or (self._board.slots and not self._board.drains):
            return
        self._asked = now
        try:
            stats = ask(self._board.name, "stats", 1.0)
        except Error:
            return  # not there yet, or not any more: the events say it
        with self._lock:
            self._board.stats(stats, time.monotonic())

    def _write(self, text: str) -> None:
        """One write: nothing flickers."""
        if self._over.is_set():
            return
        size = shutil.get_terminal_size((80, 24))
        colour, most = self._colour, max(1, size.lines - 2)
        lines = self._board.lines(time.monotonic(), most, max(1, size.columns - 1), colour)
        back = f"\r\033[{self._drawn}A" if self._drawn else "\r"
        block = "".join(f"{line}\033[K\n" for line in lines)
        self._drawn = len(lines)
        try:
            sys.stderr.write(f"{back}\033[J{text}{block}")
            sys.stderr.flush()
        except OSError:
            self._over.set()  # the terminal is gone; the operation is not
