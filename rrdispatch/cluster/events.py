"""What the primary tells the outside: dictionaries with ``event`` and, for people, ``message``.

Owns the sending; must not decide what happens because of an event.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Event = dict[str, Any]
OnEvent = Callable[[Event], object]


class Events:
    """Gives every event to everybody who asked for them. A listener that raises stops nobody."""

    def __init__(self, on_event: OnEvent | None = None) -> None:
        self._listeners: list[OnEvent] = [on_event] if on_event else []

    def subscribe(self, listener: OnEvent) -> Callable[[], None]:
        """From now on; the result takes it back."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tell(self, event: str, message: str = "", **facts: Any) -> None:
        told: Event = {"event": event, "time": time.time(), **facts}
        if message:
            told["message"] = message
        for listener in list(self._listeners):
            try:
                listener(told)
            except Exception:  # noqa: PERF203 (one bad listener must not silence the others)
                complain()


def complain() -> None:
    """The exception of the moment on stderr, if there is still a stderr."""
    try:
        traceback.print_exc(file=sys.stderr)
    except OSError:
        return
