"""What a worker says to its primary: ready, recycle, status, stopping, error.

Owns the format of ``sd_notify(3)`` datagrams on the notify socket. Nothing that is said may hurt
the app: a primary that is gone or busy is not heard, and the worker serves on.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from typing import Any

MOST = 64 * 1024
_MOST_TRACEBACK = 40 * 1024


class Notifier:
    """Says each thing once. The descriptor stays the place's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def ready(self, *, kind: str = "", capacity: int = 0, batch: int = 1) -> bool:
        """Connections may come. Only the first call says it; False means it was said before."""
        lines = ["READY=1"]
        if kind:
            lines.append(f"KIND={kind}")
        if capacity > 0:
            lines.append(f"CAPACITY={capacity}")
        if batch > 1:
            lines.append(f"BATCH={batch}")
        return self._once("ready", lines)

    def loaded(self) -> bool:
        """The app is imported, and is called now."""
        return self._once("loaded", ["LOADED=1"])

    def has_said(self, word: str) -> bool:
        return word in self._said

    def recycle(self) -> bool:
        """Ask for a successor; this worker serves until it is told to drain."""
        return self._once("recycle", ["RECYCLE=1"])

    def stopping(self) -> bool:
        return self._once("stopping", ["STOPPING=1"])

    def status(self, text: str) -> None:
        self._send(["STATUS=" + " ".join(text.split())[:1000]])

    def error(
        self, code: str, message: str, *, hint: str | None = None, traceback: str = ""
    ) -> None:
        """Why this worker is about to exit. The end of a long traceback says most."""
        told = {
            "code": code,
            "message": message[:4000],
            "hint": hint,
            "traceback": traceback[-_MOST_TRACEBACK:],
        }
        text = json.dumps(told, ensure_ascii=False)
        if len(text.encode(errors="replace")) > MOST - 16:
            told["traceback"] = traceback[-4000:]
            text = json.dumps(told)
        self._send(["ERROR=" + text])

    def _once(self, word: str, lines: list[str]) -> bool:
        with self._lock:
            if word in self._said:
                return False
            self._said.add(word)
        self._send(lines)
        return True

    def _send(self, lines: list[str]) -> None:
        data = "\n".join(lines).encode(errors="replace")
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=os.dup(self._fd))
            with sock:
                sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            # The primary is gone or does not read: headless, the worker serves on.
            return


def ready(capacity: int = 0, batch: int = 1) -> bool:
    """Say that connections may come; for apps run with ``wait_ready``.

    ``capacity``: connections this worker works on at once (0: not known). ``batch``: up to 16
    connections handed over at once, for code that starts all of them. Outside of a worker nothing
    happens, and the answer is False.
    """
    from .runtime import current

    runtime: Any = current()
    if runtime is None:
        return False
    return bool(runtime.ready(capacity=capacity, batch=batch))
