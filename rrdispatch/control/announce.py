"""What a primary tells whoever started it, as sd_notify(3) has it: ready, reloading, stopping, and
who is the main process when an heir follows.

Owns the datagrams; must not know what they are told for. Without NOTIFY_SOCKET it says nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

from rrdispatch.cluster.events import Event, OnEvent

MOST = 1000  # characters of a status


class Announcer:
    """One service's, from the events of its Supervisor."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")

    def event(self, event: Event) -> None:
        if not self._address:
            return
        text = str(event.get("message") or "").partition("\n")[0][:MOST]
        lines = _lines(event)
        if lines:
            self._send("\n".join([*lines, f"STATUS={text}"] if text else lines))

    def _send(self, text: str) -> None:
        """Never waits. Who does not read the first words of all has more to worry about."""
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.sendto(text.encode(errors="replace"), socket.MSG_DONTWAIT, address)
            except OSError:
                return  # it is gone, or its queue is full


def _lines(event: Event) -> list[str]:
    kind = event.get("event")
    if kind == "inherited":
        # The process that was known as the main one is gone. What was under way goes on: the next
        # of the words below is said at its end.
        return [f"MAINPID={event['pid']}"]
    if kind == "reloading":
        return ["RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"]
    if kind == "ready":
        return ["READY=1", f"MAINPID={os.getpid()}", "STATUS=serving"]
    if kind in ("reloaded", "reload-failed"):
        return ["READY=1"]
    if kind in ("stopping", "killing"):
        return ["STOPPING=1"]
    return []


def both(one: OnEvent, other: OnEvent) -> OnEvent:
    """Two who hear the same."""

    def hear(event: Event) -> None:
        one(event)
        other(event)

    return hear
