"""The one object of a worker that joins its place, its counts, its voice and its listeners."""

from __future__ import annotations

import os

from rrdispatch import ledger
from rrdispatch._core.layout import LedgerRole

from .counts import Counts
from .listener import Listener
from .notify import Notifier
from .parking import Parking
from .place import Place


class Runtime:
    """A worker at run time. ``kind`` and ``capacity`` are what its READY says by default."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.counts = Counts(place.scoreboard)
        self.notifier = Notifier(place.notify)
        self.parking = Parking(place.notify)
        self.kind = ""
        self.capacity = 0
        self.wait_ready = bool(place.app.get("wait_ready", False))
        self._listeners: list[Listener] | None = None

    @property
    def listeners(self) -> list[Listener]:
        """One per bound address, the same objects at every call."""
        if self._listeners is None:
            self._listeners = [
                Listener(bound, self.counts, self.listening) for bound in self.place.listeners
            ]
        return self._listeners

    def ready(self, *, capacity: int = 0, batch: int = 1) -> bool:
        """Said by the app, or by our runners once the app has started."""
        return self.notifier.ready(kind=self.kind, capacity=capacity or self.capacity, batch=batch)

    def listening(self) -> None:
        """The app waits for connections: it is ready, unless it wants to say so itself."""
        if not self.wait_ready:
            self.ready()

    def drain(self) -> None:
        """Take what waits now and nothing after it; accept() says when that is done."""
        self.notifier.stopping()
        for listener in self.listeners:
            listener.drain()


_current: Runtime | None = None


def current() -> Runtime | None:
    """This process' runtime, made at the first call; None outside of a worker."""
    if _current is None and "RRDISPATCH_LISTENERS" in os.environ:
        enter(Place.from_environment())
    return _current


def enter(place: Place) -> Runtime:
    """Make ``place`` this process' own. Called once, before the app is loaded."""
    global _current  # noqa: PLW0603 (a process is one worker)
    place.keep_from_children()
    ledger.join(LedgerRole.WORKER, place.slot, place.generation)
    _current = Runtime(place)
    return _current
