"""What a worker writes on its scoreboard: connections taken and closed, requests at work.

Owns the mapping of the worker's own page. Adds are atomic, so no lock: they come from event
loops, threads and finalizers alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from rrdispatch import _core
from rrdispatch._core.layout import Field


class Counts:
    """This worker's numbers. ``on_closed`` is called after each close, in the closing thread."""

    def __init__(self, scoreboard: int) -> None:
        self._board = _core.Scoreboard(scoreboard, writable=True)
        self.on_closed: Callable[[], None] | None = None
        # For every connection and request, so without a line of Python each.
        self.received_one = self._board.adder(Field.RECEIVED)
        self._closed_one = self._board.adder(Field.CLOSED)
        self.request_begins = self._board.adder(Field.BUSY)
        self._idle_again = self._board.adder(Field.BUSY, -1)
        self._requested = self._board.adder(Field.REQUESTS)

    @property
    def open(self) -> int:
        """Connections taken and not closed yet."""
        return self._board.load(Field.RECEIVED) - self._board.load(Field.CLOSED)

    @property
    def busy(self) -> int:
        return self._board.load(Field.BUSY)

    @property
    def requests(self) -> int:
        return self._board.load(Field.REQUESTS)

    def received(self, count: int = 1) -> None:
        self._board.add(Field.RECEIVED, count)

    def closed(self) -> None:
        self._closed_one()
        if self.on_closed is not None:
            self.on_closed()

    def lost(self) -> None:
        self._board.add(Field.LOST, 1)

    def request_ends(self) -> None:
        self._idle_again()
        self._requested()

    def heartbeat(self) -> None:
        self._board.store(Field.HEARTBEAT, _core.now_ns())


class Tally:
    """One connection on the scoreboard: taken now, closed once, by whichever way it ends."""

    __slots__ = ("_counts", "_pid")

    def __init__(self, counts: Counts) -> None:
        self._counts: Counts | None = counts
        # A forked child has a copy of this object: only the process that took it counts.
        self._pid = os.getpid()

    def answers(self) -> None:
        """A first byte was given to the kernel: nothing to count."""

    def close(self) -> None:
        """Say that it is closed; to be called before close(2). A second call says nothing."""
        counts, self._counts = self._counts, None
        if counts is not None and self._pid == os.getpid():
            counts.closed()
