"""The last lines of an app or of one worker, and what comes. Files are read in a thread.

Who prints faster than anybody reads is not followed line by line: the newest lines are shown.
"""

from __future__ import annotations

import asyncio
import threading
from heapq import merge

from rrdispatch.cluster.logformat import Line
from rrdispatch.control.definitions import Definition
from rrdispatch.control.logplaces import AppLogs, logs_of
from rrdispatch.control.logread import LogRef, Reader, last

COUNT = 200  # lines from before
SEARCHED = 20_000  # lines that are looked at for so many of one worker
AT_ONCE = 4_000  # lines of one file in one look: beyond that it goes on from the end


class Tail:
    """Of one app, or of one slot."""

    def __init__(self, definition: Definition, slot: int | None) -> None:
        self._definition = definition
        self._slot = slot
        self._logs: AppLogs | None = None
        self._readers: dict[str, Reader] = {}
        self._lock = threading.Lock()  # of whoever opens, reads or closes
        self._closed = False

    async def more(self) -> list[Line]:
        """What came since the last call, in the order of time; ConfigError if it has no files."""
        return await asyncio.to_thread(self._more)

    def _more(self) -> list[Line]:
        try:
            with self._lock:
                return [] if self._closed else self._read()
        finally:
            self._sweep()

    def _read(self) -> list[Line]:
        if self._logs is None:
            some = None if self._slot is None else frozenset((self._slot,))
            self._logs = logs_of(self._definition, some)
        found = [self._of(ref) for ref in self._logs.refs()]
        return list(merge(*found, key=lambda line: line.stamp))

    def _of(self, ref: LogRef) -> list[Line]:
        reader = self._readers.get(ref.path)
        lines = list(reader.read()) if reader is not None else []
        if reader is None or len(lines) > AT_ONCE:
            lines = self._newest(ref)
        return [line for line in lines if self._wanted(line)]

    def _newest(self, ref: LogRef) -> list[Line]:
        """The last lines, from a place that is looked for anew."""
        if ref.path in self._readers:
            self._readers.pop(ref.path).close()
        reader, lines = self._opened(ref), list[Line]()
        while len(lines) < SEARCHED and (more := list(reader.read())):
            lines += more
        return lines

    def _opened(self, ref: LogRef) -> Reader:
        left = SEARCHED

        def counted(line: Line) -> bool:
            """Whatever it is after so many, lest years of others' lines are read."""
            nonlocal left
            left -= 1
            return left < 0 or self._wanted(line)

        reader = last(ref, counted, COUNT)
        self._readers[ref.path] = reader
        return reader

    def _wanted(self, line: Line) -> bool:
        return self._slot is None or line.slot in (self._slot, None)

    async def close(self) -> None:
        """A thread reads on when nobody awaits it any more: then the files are its to close."""
        self._closed = True
        self._sweep()

    def _sweep(self) -> None:
        if not self._closed or not self._lock.acquire(blocking=False):
            return  # whoever has the lock comes here after it
        try:
            while self._readers:
                self._readers.popitem()[1].close()
        finally:
            self._lock.release()
