"""What a worker writes down so that a test can prove where a request was when the worker died.

One ``write(2)`` per entry to a file opened with O_APPEND: what was written survives SIGKILL. Taking
is seen by standing in for ``_core.take``, the one function by which every runner takes.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Any

_DIRECTORY = os.environ.get("PROBE_JOURNAL")
_FD = -1


def write(kind: str, what: object) -> None:
    """Append one entry, if a journal was asked for."""
    global _FD
    if _DIRECTORY is None:
        return
    if _FD < 0:
        path = os.path.join(_DIRECTORY, str(os.getpid()))
        _FD = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    os.write(_FD, f"{kind} {what} {time.monotonic_ns()}\n".encode())


def watch_taking() -> None:
    """From now on write ``T port`` for each connection that this worker takes (port 0: not TCP)."""
    try:
        from rrdispatch import _core
    except ImportError:  # another server runs this app
        return
    take = _core.take

    def taking(channel: int) -> Any:
        taken = take(channel)
        if taken is not None:
            write("T", _port(taken.peer))
        return taken

    _core.take = taking


def _port(peer: bytes) -> int:
    tcp = int.from_bytes(peer[:2], sys.byteorder) in (socket.AF_INET, socket.AF_INET6)
    return int.from_bytes(peer[2:4], "big") if tcp else 0


if _DIRECTORY is not None:
    watch_taking()
