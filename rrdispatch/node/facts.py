"""Facts on their way from where they happen to where the script's handlers run.

One thread at a time takes them: the one that is in ``run()``, or an event loop that was named.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from typing import Any

MANY = 4096  # facts that wait: then those who produce them are told to pause
FEW = 1024

Fact = tuple[Any, ...]


class Facts:
    """A queue that can wake a thread or a loop, and knows when it is too long."""

    def __init__(self, take: Callable[..., None], flow: Callable[[bool], None]) -> None:
        """``take`` is called with each fact's parts; ``flow(False)``: too many, ``True``: go on."""
        self._take, self._flow = take, flow
        self._queue: queue.SimpleQueue[Fact] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held = False
        self.failed: Callable[[BaseException], None] | None = None  # a handler, in that loop

    def put(self, *fact: Any) -> None:
        """From any thread, also from a signal handler."""
        self._queue.put(fact)
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._some)
        if not self._held and self._queue.qsize() > MANY:
            self._held = True
            self._flow(False)
            self._let_go()  # it may have become empty meanwhile, and nobody looks again

    def wait(self, timeout: float | None = None) -> bool:
        """Until one was there, and takes it; False if none came."""
        try:
            fact = self._queue.get(timeout=timeout)
        except queue.Empty:
            return False
        self._one(fact)
        return True

    @property
    def empty(self) -> bool:
        return self._queue.empty()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on they are taken in that loop."""
        if self._loop is not loop:
            self._loop = loop
            for _ in range(self._queue.qsize()):
                loop.call_soon_threadsafe(self._some)

    def _some(self) -> None:
        """One per call, as there is one call per fact: others have their turn in between."""
        try:
            fact = self._queue.get_nowait()
        except queue.Empty:
            return
        try:
            self._one(fact)
        except Exception as error:
            if self.failed is None:
                raise
            self.failed(error)

    def _one(self, fact: Fact) -> None:
        try:
            self._take(*fact)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._held and self._queue.qsize() < FEW:
            self._held = False
            self._flow(True)
