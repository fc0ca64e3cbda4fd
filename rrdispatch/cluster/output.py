"""The primary's own stderr: a reader that is asleep, or a full disk, must not stop the loop.

Owns ``sys.stderr`` from ``unblock`` on; descriptor 2 itself stays as it was, for our children.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Any, TextIO

from rrdispatch.cluster.logsink import own_description, write_now

PIECE = 4096  # PIPE_BUF: all or nothing
MOST = 1 << 20  # bytes of a file that is ours to keep small
PATIENCE = 50  # milliseconds for a reader that is only slow; not spent again until it has read


class Unblocked(io.RawIOBase):
    """Writes what is taken at once. The rest is dropped, and the lines of it are counted."""

    def __init__(self, fd: int) -> None:
        self._fd = own_description(fd)
        self._dropped = 0
        self.small: str | None = None  # the path of our output, if it is to stay small

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: Any) -> int:
        text = bytes(data)
        if self._dropped and self._all(b"rrdispatch: %d lines dropped\n" % self._dropped):
            self._dropped = 0
        if self._dropped or not self._all(text):
            self._dropped += text.count(b"\n")
        if self.small is not None:
            begin_anew(self._fd, self.small)
        return len(text)

    def _all(self, data: bytes) -> bool:
        starts = range(0, len(data), PIECE)
        return all(self._piece(data[start : start + PIECE]) for start in starts)

    def _piece(self, data: bytes) -> bool:
        """False too for EPIPE, EIO, ENOSPC: there is nobody to tell."""
        room = select.poll()
        room.register(self._fd, select.POLLOUT)
        try:
            room.poll(0 if self._dropped else PATIENCE)
            return write_now(self._fd, data) == len(data)
        except OSError:
            return False


def begin_anew(fd: int, path: str) -> None:
    """A file that became too long becomes PATH.1, by copying: others have it open as we do, for
    appending. One that has not this path is not ours.
    """
    try:
        found = os.fstat(fd)
        if found.st_size <= MOST or not os.path.samestat(found, os.lstat(path)):
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(path, "rb") as old, open(os.open(f"{path}.1", flags, 0o600), "wb") as new:
            old.seek(max(0, found.st_size - 2 * MOST))
            new.write(old.read())
        os.ftruncate(fd, 0)
    except OSError:
        return  # a full disk: it cannot grow either


def keep_small(path: str | os.PathLike[str]) -> None:
    """From now on, if that is where our stderr goes."""
    raw = getattr(getattr(sys.stderr, "buffer", None), "raw", None)
    if isinstance(raw, Unblocked):
        raw.small = os.fspath(path)


def unblock() -> None:
    """From now on; nothing where there is no stderr."""
    found: TextIO | None = sys.__stderr__
    if found is not None and sys.stderr is found:
        raw = io.BufferedWriter(Unblocked(2), 16 * PIECE)
        sys.stderr = io.TextIOWrapper(raw, found.encoding, found.errors, line_buffering=True)
