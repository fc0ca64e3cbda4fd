"""Does this process run? A frozen cgroup, SIGSTOP, or a machine without a core stop it while
the clock goes on; what it then finds overdue is nobody's fault.
"""

from __future__ import annotations

import asyncio

EVERY = 0.25  # seconds between two signs of our own life
LATE = 1.0  # so long between two: we did not run


class Pulse:
    """Counts the time that was missed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._last = loop.time()
        self._missed = 0.0
        self._timer = loop.call_later(EVERY, self._beat)

    def _beat(self) -> None:
        self._timer = self._loop.call_later(EVERY, self._beat)
        self._look()

    def _look(self) -> None:
        now = self._loop.time()
        if now - self._last > LATE:
            self._missed += now - self._last - EVERY
        self._last = now

    def slept(self) -> float:
        """Seconds missed since it was asked last."""
        self._look()
        missed, self._missed = self._missed, 0.0
        return missed

    def close(self) -> None:
        self._timer.cancel()
