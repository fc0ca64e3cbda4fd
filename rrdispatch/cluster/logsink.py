"""An output that is a stream: stdout, stderr, a terminal, a pipe. It is never waited for.

A reader that is gone or asleep stops no worker. Must not know whose lines they are.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable

PIECE = 4096  # PIPE_BUF: a pipe that polls writable takes so much without blocking
HIGH = 1 << 20  # bytes waiting for a slow reader before the pipes are left alone
PATIENCE = 1.0  # then so long without progress before lines are dropped
END_PATIENCE = 2.0  # with a reader who reads nothing, when all else is over
PAUSE = 1.0  # after an output failed

Tell = Callable[[dict[str, object]], None]
Note = Callable[[str], bytes]  # a line of our own, as this log has its lines


def plain(message: str) -> bytes:
    return f"{message}\n".encode()


class Sink:
    """One of our own outputs. A reader that is gone or asleep, or a full disk, stops no worker:
    lines are dropped and counted until it takes some again.
    """

    def __init__(self, fd: int, name: str, tell: Tell, note: Note = plain) -> None:
        self.fd = own_description(fd)
        self._given = fd
        self._name = name
        self._tell = tell
        self._line_of = note
        self.waiting = bytearray()
        self.dropped = 0
        self.progress = time.monotonic()
        self._failed_at: float | None = None
        self._trouble = ""  # as it was told
        self._noted = 0  # dropped lines that a line in ``waiting`` tells of
        self._cut = False  # an error came in the middle of a line

    def put(self, line: bytes) -> None:
        if self._failing or (self.full and self.stuck):
            self.dropped += 1
            if not self._failing:
                self._in_trouble("nobody reads it")
            return
        if not self.waiting:
            self.progress = time.monotonic()
        if self.dropped and not self.full:
            self.waiting += b"\n" if self._cut else b""
            self.waiting += self._line_of(
                f"rrdispatch: {self.dropped} lines dropped: {self._trouble}"
            )
            self._noted, self.dropped, self._cut = self.dropped, 0, False
        self.waiting += line

    @property
    def full(self) -> bool:
        return len(self.waiting) >= HIGH

    @property
    def stuck(self) -> bool:
        return time.monotonic() - self.progress > PATIENCE

    @property
    def hopeful(self) -> bool:
        """Something waits for a reader that took some not long ago: the end waits for him too."""
        return bool(self.waiting) and time.monotonic() - self.progress < END_PATIENCE

    @property
    def _failing(self) -> bool:
        return self._failed_at is not None and time.monotonic() - self._failed_at < PAUSE

    def write(self) -> None:
        """One piece, of whole lines if it can be; called when the output polls writable."""
        piece = bytes(self.waiting[: self.waiting.rfind(b"\n", 0, PIECE) + 1 or PIECE])
        try:
            done = write_now(self.fd, piece)
        except BlockingIOError:
            return
        except OSError as error:  # EPIPE, EIO, ENOSPC, EFBIG: tried again after a pause
            self._failed(error)
            return
        self._cut = not piece[:done].endswith(b"\n")
        del self.waiting[:done]
        self.progress = time.monotonic()
        self._failed_at = None
        if self._trouble and not self.dropped and len(self.waiting) < PIECE:
            self._tell({"output": self._name, "error": "", "dropped": self._noted})
            self._trouble, self._noted = "", 0

    def _failed(self, error: OSError) -> None:
        lines = self.waiting.count(b"\n")
        self.dropped += lines - 1 + self._noted if self._noted else lines
        self._noted = 0
        self.waiting.clear()
        self._failed_at = time.monotonic()
        self._in_trouble(error.strerror or str(error))

    def _in_trouble(self, why: str) -> None:
        if self._trouble != why:
            self._trouble = why
            self._tell({"output": self._name, "error": why, "dropped": self.dropped})

    def close(self) -> None:
        """Our own description of it, if we have one."""
        if self.fd != self._given:
            os.close(self.fd)


def own_description(fd: int) -> int:
    """Of a pipe or a terminal, not to be blocked by it: O_NONBLOCK on the one that we were given
    would be everybody's who shares it, and others who write to it make POLLOUT a lie.
    """
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):
            return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        # Closed, another user's, or no /proc: the given one has to do.
        return fd
    return fd


def write_now(fd: int, data: bytes) -> int:
    """write(2) that does not wait; a socket cannot be opened anew, but has a flag for it."""
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        with socket.socket(fileno=os.dup(fd)) as output:
            return output.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    return os.write(fd, data)
