"""Reads a log file that is written to and rotated meanwhile: back from its end, and on from there.

A file is known by its inode, not by its name: what was rotated is read to its end before what came
after it. Must not know what is done with the lines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rrdispatch.cluster.logformat import Line, parse
from rrdispatch.cluster.logplan import rotated

BLOCK = 64 * 1024
AT_ONCE = 16  # blocks of one file before the others have their turn
ATTEMPTS = 50

Wanted = Callable[[Line], bool]


@dataclass(frozen=True)
class LogRef:
    """One file, and what its name says of every line in it."""

    path: str
    kind: str
    keep: int
    known: Line

    def line(self, raw: bytes) -> Line:
        return parse(self.kind, raw, self.known)

    def names(self) -> list[str]:
        """The newest first."""
        path = os.path.realpath(self.path)
        return [path, *rotated(path, self.keep)]


class Reader:
    """One file and those that follow it under its name."""

    def __init__(self, ref: LogRef, fd: int = -1, offset: int = 0) -> None:
        """From this place of this file, which is ours to close; else from the newest's begin."""
        self.ref = ref
        self._fd, self._offset = fd, offset
        self._part = b""

    def read(self) -> Iterator[Line]:
        """What is there and was not read before; at most so much that others wait not too long."""
        for _ in range(AT_ONCE):
            if self._fd < 0 and not self._first():
                return
            data = os.pread(self._fd, BLOCK, self._offset)
            if data:
                self._offset += len(data)
                lines = (self._part + data).split(b"\n")
                self._part = lines.pop()
                yield from map(self.ref.line, lines)
            elif not self._was_truncated() and not self._next():
                return

    def _first(self) -> bool:
        try:
            self._fd = os.open(self.ref.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        return True

    def _was_truncated(self) -> bool:
        """What is written afterwards begins at the begin."""
        if os.fstat(self._fd).st_size >= self._offset:
            return False
        self._offset, self._part = 0, b""
        return True

    def _next(self) -> bool:
        """The file that came after this one; once more if something came to this one meanwhile."""
        following = neighbour(self.ref, self._fd, -1)
        if following < 0:
            return False
        if os.fstat(self._fd).st_size > self._offset:
            os.close(following)
            return True
        os.close(self._fd)
        self._fd, self._offset, self._part = following, 0, b""
        return True

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def neighbour(ref: LogRef, fd: int, step: int) -> int:
    """An fd of the file that came after this one (-1), or before it (1); -1 if there is none.

    A rotation renames the oldest first. So if this file has the same name before and after another
    one was opened by its name, that one was its neighbour.
    """
    names = ref.names()
    for _ in range(ATTEMPTS):
        at = _place(names, fd)
        if at is None:
            return _newer(names, fd) if step < 0 else -1
        others = names[at + 1 :] if step > 0 else names[:at][::-1]
        found = _open_first(others)
        if _place(names, fd) == at:
            return found
        if found >= 0:
            os.close(found)
    return -1


def _place(names: list[str], fd: int) -> int | None:
    """Which of the names is this file's."""
    ours = os.fstat(fd)
    for number, name in enumerate(names):
        try:
            if os.path.samestat(os.stat(name), ours):
                return number
        except OSError:  # noqa: PERF203 (a gap, or a rotation under way)
            continue
    return None


def _newer(names: list[str], fd: int) -> int:
    """Of a file that is gone, or has a name that is none of ours: the oldest that was written to
    after it. The newest is newer in any case, but as long as it is empty this one may be in use.
    """
    until = os.fstat(fd).st_mtime_ns
    for name in reversed(names):
        found = _open_first([name])
        if found < 0:
            continue
        told = os.fstat(found)
        if told.st_mtime_ns > until or (name == names[0] and told.st_size):
            return found
        os.close(found)
    return -1


def _open_first(names: list[str]) -> int:
    for name in names:
        try:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # noqa: PERF203
            continue
    return -1


def last(ref: LogRef, wanted: Wanted, count: int | None, since: str = "") -> Reader:
    """A reader that begins where so many wanted lines follow, none of them before ``since``."""
    fd = _open_first([ref.path])
    if fd < 0:
        return Reader(ref)
    end = os.fstat(fd).st_size
    newest = True
    while True:
        for offset, raw in backwards(fd, end):
            line = ref.line(raw)
            if (since and line.stamp and line.stamp < since) or (count == 0 and newest):
                return Reader(ref, fd, offset + len(raw) + 1)
            newest = False
            if count is not None and wanted(line):
                count -= 1
                if count <= 0:
                    return Reader(ref, fd, offset)
        older = neighbour(ref, fd, 1)
        if older < 0 or (count == 0 and newest):
            return Reader(ref, fd, 0)
        os.close(fd)
        fd, end = older, os.fstat(older).st_size


def backwards(fd: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of the whole lines before ``end``, the last one first."""
    waiting = b""
    whole = False  # the first newline from the end ends the last whole line
    while end > 0:
        begin = max(0, end - BLOCK)
        waiting = os.pread(fd, end - begin, begin) + waiting
        end = begin
        if not whole:
            cut = waiting.rfind(b"\n") + 1
            whole = bool(cut)
            waiting = waiting[:cut]
        first = 0 if begin == 0 else waiting.find(b"\n") + 1
        if not whole or (begin and not first):
            continue
        offset = begin + len(waiting)
        for line in reversed(waiting[first:-1].split(b"\n") if len(waiting) > first else []):
            offset -= len(line) + 1
            yield offset, line
        waiting = waiting[:first]
