"""When a worker has served enough."""

from __future__ import annotations

from collections.abc import Callable

from rrdispatch.worker.counts import Counts


class RequestLimit:
    """Asks for a successor once, when this worker has had ``most`` requests; 0: never."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.call: Callable[[], object] | None = None

    def look(self, counts: Counts) -> None:
        if self._most and self.call is not None and counts.requests >= self._most:
            call, self.call = self.call, None
            call()
