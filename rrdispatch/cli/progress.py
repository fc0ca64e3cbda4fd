"""What happens while a command waits: a line per slot on a terminal, plain lines elsewhere; stderr.

An interrupt ends the command, and it is said what becomes of the operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rrdispatch.cli.errors import say

WORDS = {
    "spawned": "spawned", "worker-ready": "ready", "parked": "parked",
    "unparked": "serves again", "draining": "draining", "exited": "gone",
}  # fmt: skip


class Progress:
    """Of one app; ``with`` it, while the command waits."""

    def __init__(self, name: str, interrupted: str = "it goes on") -> None:
        """``interrupted``: what becomes of the operation when nobody waits any more."""
        from rrdispatch.cli import live
        from rrdispatch.cli.board import Board

        self._name = name
        self._interrupted = interrupted
        self._live = live.Live(Board(name)) if live.possible() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.close()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            say(f"interrupted: {self._name}: {self._interrupted}")

    def event(self, event: Mapping[str, Any]) -> None:
        kind = event.get("event")
        if kind in ("warning", "unseen"):
            hint = f"\nhint: {event['hint']}" if event.get("hint") else ""
            self._say(f"warning: {event.get('message', '')}{hint}")
        elif kind in ("spawn-failed", "errored") and event.get("message"):
            self._say(f"{self._name}: {event['message']}")
        if self._live is not None:
            self._live.event(event)
        elif kind in WORDS:
            self._say(f"{self._name}:{event.get('slot')} {_told(event)}, pid {event.get('pid')}")

    def _say(self, text: str) -> None:
        if self._live is not None:
            self._live.above(text)
        else:
            say(text)


def _told(event: Mapping[str, Any]) -> str:
    from rrdispatch.cli.board import draining

    if event.get("event") == "draining" and "inflight" in event:
        return draining(event["inflight"])
    how = f" ({event['how']})" if event.get("how") else ""
    return WORDS[str(event.get("event"))] + how
