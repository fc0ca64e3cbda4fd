"""What happens while a command waits, in lines on stderr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rrdispatch.cli.errors import say, warn

TOLD = ("worker-ready", "worker-exited", "worker-parked", "spawn-failed", "reloading")


class Progress:
    """Of one app."""

    def __init__(self, name: str) -> None:
        self._name = name

    def event(self, event: Mapping[str, Any]) -> None:
        kind = event.get("event")
        if kind == "warning":
            warn(str(event.get("message", "")), str(event.get("hint") or ""))
        elif kind == "worker-ready":
            say(f"{self._name}:{event.get('slot')} ready, pid {event.get('pid')}")
        elif kind in TOLD and event.get("message"):
            say(f"{self._name}: {event['message']}")
