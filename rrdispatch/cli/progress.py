"""What happens while a command waits, in lines on stderr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rrdispatch.cli.errors import say, warn

WORDS = {
    "worker-ready": "ready", "parked": "parked", "unparked": "serves again",
    "draining": "draining", "exited": "gone",
}  # fmt: skip


class Progress:
    """Of one app."""

    def __init__(self, name: str) -> None:
        self._name = name

    def event(self, event: Mapping[str, Any]) -> None:
        kind = event.get("event")
        if kind == "warning":
            warn(str(event.get("message", "")), str(event.get("hint") or ""))
        elif kind in WORDS:
            how = f" ({event['how']})" if event.get("how") else ""
            say(f"{self._name}:{event.get('slot')} {WORDS[kind]}{how}, pid {event.get('pid')}")
        elif kind in ("spawn-failed", "errored") and event.get("message"):
            say(f"{self._name}: {event['message']}")
