"""What is on its way to another process of ours over a SEQPACKET socket, in order, fds and all.

Nothing is lost because the other one is slow, or because the kernel has no room for fds in flight.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

MOST_UNSENT = 4096
# ETOOMANYREFS: our user has too many fds in flight, perhaps in other sockets, so that no event
# tells when there is room again; nor is there one for memory.
NO_ROOM = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM)
AGAIN_AFTER = 0.05


class Outbox:
    """Of one socket, from construction to ``close``; the socket stays its owner's until then."""

    def __init__(self, sock: socket.socket, overrun: Callable[[], None]) -> None:
        """``overrun``: nothing more can be kept for one that does not read."""
        self._sock = sock
        self._overrun = overrun
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._again: asyncio.TimerHandle | None = None
        self._waiting = False  # for the socket to be writable
        self._ending = False

    def put(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """The fds stay the caller's."""
        if self._sock.fileno() < 0 or self._ending:
            return
        if not self._unsent and self._sent(data, fds):
            return
        if len(self._unsent) >= MOST_UNSENT:
            self._overrun()
            return
        try:
            self._unsent.append((data, _duplicates(fds)))
        except OSError:
            self._overrun()

    def _sent(self, data: bytes, fds: Sequence[int]) -> bool:
        """If not, it is known by then when to try again."""
        try:
            socket.send_fds(self._sock, [data], fds)
        except BlockingIOError:
            if not self._waiting:
                self._waiting = True
                self._loop.add_writer(self._sock, self._flush)
            return False
        except OSError as error:
            if error.errno not in NO_ROOM:
                return True  # it is gone: its pidfd tells
            self._stop_waiting()
            self._again = self._loop.call_later(AGAIN_AFTER, self._flush)
            return False
        return True

    def _flush(self) -> None:
        while self._unsent:
            data, fds = self._unsent[0]
            if not self._sent(data, fds):
                return
            self._unsent.popleft()
            _close_all(fds)
        self._stop_waiting()
        if self._ending:
            self.close()

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting = False
            self._loop.remove_writer(self._sock)

    def end(self) -> None:
        """Closes the socket when all is sent."""
        self._ending = True
        if not self._unsent:
            self.close()

    def close(self) -> None:
        """Now, and the socket with it."""
        self._ending = True
        if self._again is not None:
            self._again.cancel()
        if self._sock.fileno() >= 0:
            self._stop_waiting()
            self._loop.remove_reader(self._sock)
            self._sock.close()
        while self._unsent:
            _close_all(self._unsent.popleft()[1])


def _duplicates(fds: Sequence[int]) -> list[int]:
    made: list[int] = []
    try:
        for fd in fds:
            made.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))  # noqa: PERF401 (all or none)
    except OSError:
        _close_all(made)
        raise
    return made


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
