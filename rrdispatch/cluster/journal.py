"""What the logger has read of a pipe and not yet written: kept in memory that outlives the logger.

A memfd per worker, held by the primary, mapped by one logger after the other; a part for each of
its two pipes. Its words are changed in such an order that a SIGKILL at any instruction leaves
either the state before or the one after. Must not know files, lines or workers.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass

CHUNK = 64 * 1024
ROOM = 4 * CHUNK
HEAD = 4096
PART = HEAD + ROOM
SIZE = 2 * PART

_WORD = struct.Struct("@Q")  # eight aligned bytes: stored by one instruction
_FACTS = struct.Struct("@QQQ")
_BOUNDS, _VALID, _INTENT = 0, 8, 16  # where in the head
_READING, _CONTINUES = 1 << 62, 1 << 61
_MASK = (1 << 24) - 1
_ZEROS = bytes(CHUNK)


@dataclass(frozen=True, slots=True)
class Intent:
    """A write that may have been done: the first ``cut`` bytes, at this place of this file."""

    cut: int
    inode: int
    offset: int
    stamp: int


def create() -> int:
    """A memfd for one worker; of zeros, which is: nothing was read."""
    fd = os.memfd_create("rrdispatch-log", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, SIZE)
    except OSError:
        os.close(fd)
        raise
    return fd


class Journal:
    """One pipe's part."""

    def __init__(self, fd: int, part: int) -> None:
        """``fd`` -1: memory of our own, which ends with us. It stays the caller's."""
        whole = mmap.mmap(fd, SIZE) if fd >= 0 else mmap.mmap(-1, SIZE)
        self._map = memoryview(whole)[part * PART : (part + 1) * PART]
        bounds = _WORD.unpack_from(self._map, _BOUNDS)[0]
        self._start, self._end = bounds & _MASK, bounds >> 24 & _MASK
        self._continues = bool(bounds & _CONTINUES)
        if bounds & _READING:
            # It had zeroed the room, and may have read: what is there now was read.
            room = bytes(self._map[HEAD + self._end : HEAD + self._end + CHUNK])
            self._end += len(room.rstrip(b"\0"))
            self._store()

    @property
    def continues(self) -> bool:
        """What waits begins within a line, whose beginning was written before."""
        return self._continues

    def waiting(self) -> bytes:
        return bytes(self._map[HEAD + self._start : HEAD + self._end])

    def read(self, fd: int) -> int:
        """Takes a chunk of the pipe; 0 at its end. What waits must be less than a chunk."""
        if self._end + CHUNK > ROOM:
            self._to_front()
        place = self._map[HEAD + self._end : HEAD + self._end + CHUNK]
        place[:] = _ZEROS
        self._store(_READING)
        try:
            count = os.readv(fd, [place])
        except OSError:
            self._store()
            raise
        self._end += count
        self._store()
        return count

    def intend(self, intent: Intent) -> None:
        """Before a write."""
        _WORD.pack_into(self._map, _VALID, 0)
        _FACTS.pack_into(self._map, _INTENT, intent.inode, intent.offset, intent.stamp)
        _WORD.pack_into(self._map, _VALID, self._start + intent.cut)

    def intent(self) -> Intent | None:
        """Of a logger before us that was killed in the midst of a write, or just after it."""
        end = _WORD.unpack_from(self._map, _VALID)[0]
        if not self._start < end <= self._end:
            return None
        inode, offset, stamp = _FACTS.unpack_from(self._map, _INTENT)
        return Intent(end - self._start, inode, offset, stamp)

    def done(self, cut: int, continues: bool) -> None:
        """So much was written, or given up."""
        self._start += cut
        self._continues = continues
        self._store()
        if self._start == self._end:
            self._to_front()

    def _to_front(self) -> None:
        """What waits moves into room that nothing waits in. An intent that is over would seem to
        be of what comes there next.
        """
        rest = self.waiting()
        assert len(rest) <= self._start or not rest, "what waits is too long to be moved"
        _WORD.pack_into(self._map, _VALID, 0)
        self._map[HEAD : HEAD + len(rest)] = rest
        self._start, self._end = 0, len(rest)
        self._store()

    def _store(self, flags: int = 0) -> None:
        flags |= _CONTINUES if self._continues else 0
        _WORD.pack_into(self._map, _BOUNDS, self._start | self._end << 24 | flags)

    def close(self) -> None:
        whole = self._map.obj
        self._map.release()
        assert isinstance(whole, mmap.mmap)
        whole.close()
