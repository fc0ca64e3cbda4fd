"""Signals that mean drain, and leaving without waiting for threads that don't end.

Not by ``loop.add_signal_handler``: a loop that closes takes its handlers away, and Python does so
with its own at its end. A stop that comes then would kill what ended well, whichever of its threads
it comes to. So they are Python's handlers, and what follows them is SIG_IGN, which Python leaves.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # a WSGI worker has no loop
    import asyncio


def handled_signals(stop_signal: str) -> set[signal.Signals]:
    """SIGTERM always; SIGINT for a terminal; and the one that the settings name."""
    return {signal.SIGTERM, signal.SIGINT, signal.Signals[f"SIG{stop_signal}"]}


def ignore_stops(stop_signal: str) -> None:
    """Whoever has drained need not be asked again."""
    for number in handled_signals(stop_signal):
        signal.signal(number, signal.SIG_IGN)


class Stops:
    """The signals that mean drain, heard in the loop of the main thread until they are ignored."""

    def __init__(self, stop_signal: str, asked: Callable[[], object]) -> None:
        self._signal = stop_signal
        self._asked = asked

    def hear(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on ``asked`` is called in this loop. The kernel may give a signal to another
        thread, whose C handler wakes nobody: so it writes to a socket that the loop watches.
        """
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        loop.add_reader(self._near, self._near.recv, 4096)
        signal.set_wakeup_fd(self._far.fileno(), warn_on_full_buffer=False)
        for number in handled_signals(self._signal):
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._asked))

    def ignore(self, loop: asyncio.AbstractEventLoop) -> None:
        """Before the loop is closed."""
        ignore_stops(self._signal)
        loop.remove_reader(self._near)
        signal.set_wakeup_fd(-1)
        self._near.close()
        self._far.close()


def exit_now(code: int) -> NoReturn:
    """Without the interpreter's end, which waits for every thread that is no daemon."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # noqa: PERF203 (nobody reads it any more)
            continue
    os._exit(code)
