"""Takes connections into an asyncio loop: one message per wake-up, so that a crash loses little.

Owns the loop's reader on each channel. It starts nothing itself: ``start`` is called for every
connection and may not wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from .connection import Connection
from .listener import LONGEST_PAUSE, NO_ROOM, SHORTEST_PAUSE, Listener, ListenerClosed

logger = logging.getLogger("rrdispatch")


class Intake:
    """Watches listeners in the running loop (asyncio's or uvloop)."""

    def __init__(self, listeners: Iterable[Listener], start: Callable[[Connection], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._listeners = list(listeners)
        self._start = start
        self._pauses: dict[Listener, float] = {}
        self._timers: dict[Listener, asyncio.TimerHandle] = {}
        self._watched: set[Listener] = set()

    def open(self) -> None:
        """Watch: connections come from now on."""
        for listener in self._listeners:
            self._watch(listener)

    def close(self) -> None:
        """Take nothing more; what is queued stays queued."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for listener in list(self._watched):
            self._unwatch(listener)

    def drain(self) -> None:
        """Take what waits now, then stop. The listeners were told before."""
        for listener in list(self._listeners):
            while listener in self._watched:
                self._take(listener)

    def _watch(self, listener: Listener) -> None:
        self._timers.pop(listener, None)
        self._watched.add(listener)
        self._loop.add_reader(listener.channel, self._take, listener)

    def _unwatch(self, listener: Listener) -> None:
        self._watched.discard(listener)
        self._loop.remove_reader(listener.channel)

    def _take(self, listener: Listener) -> None:
        try:
            connections = listener.take()
        except ListenerClosed:
            self._unwatch(listener)
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self._pause(listener, error)
        else:
            self._pauses.pop(listener, None)
            for connection in connections:
                connection.setblocking(False)
                self._start(connection)

    def _pause(self, listener: Listener, error: OSError) -> None:
        """It is still queued. asyncio would wait for a second; room comes with the next close."""
        if error.errno not in NO_ROOM:
            logger.error("taking connections of %s failed: %s", listener, error)
        self._unwatch(listener)
        pause = self._pauses.get(listener, SHORTEST_PAUSE)
        self._pauses[listener] = min(2 * pause, LONGEST_PAUSE)
        self._timers[listener] = self._loop.call_later(pause, self._watch, listener)
