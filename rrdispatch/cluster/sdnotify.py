"""What programs say in the way of sd_notify(3), to a socket that each worker has for itself.

Owns the socket and who may speak there. What is said means what a worker's own lines mean
(docs/protocol.md 2); WATCHDOG=1 is a sign of life.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import struct
import sys
from collections.abc import Callable

from rrdispatch.cluster.door import is_known

SIZE = 65536
LATE = 0.25  # a timer that rings so late: the machine slept, or we were stopped
PEER = struct.Struct("=iII")  # struct ucred
# Of the service that we may be ourselves.
OF_SYSTEMD = frozenset(("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))


def open_socket() -> socket.socket | None:
    """Named without a path; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        sock.bind(f"\0rrdispatch-notify-{secrets.token_hex(16)}")
    except OSError:
        sock.close()
        return None
    return sock


def variables(sock: socket.socket | None, silence: float) -> dict[str, str]:
    """For a program that may be silent for so many seconds; 0: for ever."""
    if sock is None:
        return {}
    told = {"NOTIFY_SOCKET": "@" + sock.getsockname()[1:].decode()}
    if silence > 0:
        told["WATCHDOG_USEC"] = str(int(silence * 1e6))
    return told


def receive(sock: socket.socket, worker: int) -> str | None:
    """One datagram of that process or who else may speak; empty for another's. None: none waits."""
    room = socket.CMSG_SPACE(PEER.size) + socket.CMSG_SPACE(4)
    try:
        data, rest, _, _ = sock.recvmsg(SIZE, room, socket.MSG_CMSG_CLOEXEC)
    except OSError:
        return None
    known = False
    for level, kind, content in rest:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid, uid, _ = PEER.unpack(content[: PEER.size])
            known = is_known(pid, uid, worker.__eq__)
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            _close(content)  # BARRIER=1: the sender waits until nobody holds it
    return data.decode(errors="replace") if known else ""


def _close(content: bytes) -> None:
    for (fd,) in struct.iter_unpack("=i", content[: len(content) // 4 * 4]):
        with contextlib.suppress(OSError):
            os.close(fd)


class Watchdog:
    """From the first sign of life to ``close``."""

    def __init__(self, silence: float, look: Callable[[], None], over: Callable[[], None]) -> None:
        """``look`` for signs that wait to be heard; ``over``: there was none for so long."""
        self._silence, self._look, self._over = silence, look, over
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def sign(self) -> None:
        self._due = self._loop.time() + self._silence
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        assert self._timer is not None
        self._look()
        now = self._loop.time()
        if now > self._timer.when() + LATE:
            self._due = now + self._silence
        elif now >= self._due:
            self._over()
            return
        self._timer = self._loop.call_at(self._due, self._ring)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
