"""A memfd that holds one text, whole at every moment: its writer may be killed in the midst.

Two headers take turns; each names a place of the file that the other one does not use. Readers
take the header with the highest number whose text has the right checksum. Read by ``pread``: who
shares the file cannot make a reader fault. It must not know what the text means.
"""

from __future__ import annotations

import os
import struct
import zlib

HEADER = struct.Struct("=8sQQQII")  # magic, number, offset, length, checksum of text, of this
MAGIC = b"RRVAULT1"
ROOM = 64  # bytes from one header to the next
TEXTS = 4096
LEAST = 64 * 1024


class VaultError(ValueError):
    """There is no whole text in it."""


class Vault:
    """The writer's side; owns the memfd."""

    def __init__(self, fd: int | None = None) -> None:
        """A new one, or one that somebody else wrote until now."""
        self._number = 0
        self._room = LEAST
        self._base = TEXTS
        if fd is None:
            self.fd = os.memfd_create("rrdispatch-state", os.MFD_CLOEXEC)
            return
        self.fd = fd
        newest = _newest(fd)
        if newest is not None:
            self._number = newest[0]
            self._base = -(-os.fstat(fd).st_size // TEXTS) * TEXTS

    def write(self, text: bytes) -> None:
        """Replaces the text. OSError leaves the old one."""
        if len(text) > self._room:
            # Both places anew, behind all that is in use: the last text lies in one of the old.
            self._base = max(self._base + 2 * self._room, os.fstat(self.fd).st_size)
            self._room = 2 * len(text)
        number = self._number + 1
        offset = self._base + (number % 2) * self._room
        _write(self.fd, text, offset)
        head = HEADER.pack(MAGIC, number, offset, len(text), zlib.crc32(text), 0)[:-4]
        os.pwrite(self.fd, head + struct.pack("=I", zlib.crc32(head)), (number % 2) * ROOM)
        self._number = number

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def read(fd: int) -> bytes:
    """The newest whole text; VaultError if there is none."""
    newest = _newest(fd)
    if newest is None:
        raise VaultError("the state of the primary before was never written, or is torn")
    return newest[1]


def _newest(fd: int) -> tuple[int, bytes] | None:
    found = [_half(fd, half) for half in (0, 1)]
    return max((one for one in found if one is not None), default=None)


def _half(fd: int, half: int) -> tuple[int, bytes] | None:
    head = os.pread(fd, HEADER.size, half * ROOM)
    if len(head) != HEADER.size:
        return None
    magic, number, offset, length, checksum, own = HEADER.unpack(head)
    if magic != MAGIC or zlib.crc32(head[:-4]) != own:
        return None
    size = os.fstat(fd).st_size
    if not TEXTS <= offset <= size or length > size - offset:
        return None
    text = os.pread(fd, length, offset)
    return (number, text) if zlib.crc32(text) == checksum else None


def _write(fd: int, text: bytes, offset: int) -> None:
    view = memoryview(text)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done
