"""A log file: appended to in whole lines, rotated by size, opened anew when it was moved.

One write is whole lines, so that nobody who reads, rotates or truncates finds half of one. Must not
know whose lines they are.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable

from rrdispatch.cluster.logplan import rotated
from rrdispatch.cluster.logsink import Note, Tell, plain

PAUSE = 1.0  # after an output failed
LOOK = 1.0  # so often a file that is written to is looked for under its name
MODE = 0o640


class LogFile:
    """One path, from the first line to the last. A disk that is full, or a folder that is gone,
    stops nobody: lines are dropped and counted until they can be written again.
    """

    def __init__(self, path: str, most: int, keep: int, tell: Tell, note: Note = plain) -> None:
        self.path = os.path.realpath(path)  # rotation is about the file, not about a link to it
        self.fd = -1
        self.dropped = 0
        self._inode = 0
        self._most = most
        self._keep = keep
        self._tell = tell
        self._line_of = note
        self._looked_at = 0.0
        self._failed_at: float | None = None
        self._trouble = ""
        self._begun = False

    def append(self, text: bytes, intend: Callable[[int, int], None] | None = None) -> None:
        """Now, or never: then its lines are counted. ``intend`` hears inode and offset before."""
        now = time.monotonic()
        if self._failed_at is not None and now - self._failed_at < PAUSE:
            self.dropped += text.count(b"\n")
            return
        try:
            self._be_open(now)
            self._rotate_for(len(text))
            self._note()
        except OSError as error:
            self._failed(error, text.count(b"\n"))
            return
        try:
            self._write(text, intend)
        except _CutError as error:
            self._failed(error.cause, error.lines)
            return
        self._recovered()

    def fits(self, size: int) -> bool:
        """In a file of its own."""
        return not self._most or size <= self._most

    def reopen(self) -> str:
        """Somebody has moved it; why it cannot be had again, if so."""
        self._let_go()
        self._failed_at = None
        try:
            self._be_open(time.monotonic())
        except OSError as error:
            self._failed(error, 0)
            return f"{self.path}: {error.strerror}"
        return ""

    def close(self) -> None:
        """What was dropped is said, if that is possible by now."""
        if self.dropped:
            self._failed_at = None
            self.append(b"")
        self._let_go()

    def finish(self, text: bytes, inode: int, offset: int) -> None:
        """A write of a logger before us: what is missing of it. It may be in a rotated file."""
        for path in (self.path, *rotated(self.path, self._keep)):
            try:
                fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                found = os.fstat(fd)
                if found.st_ino != inode:
                    continue
                have = os.pread(fd, len(text), offset)
                if have and text.startswith(have):
                    if have != text:
                        os.write(fd, text[len(have) :])
                    return
                break
            except OSError as error:
                self._failed(error, text.count(b"\n"))
                return
            finally:
                os.close(fd)
        self.append(text)

    def _let_go(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    # ---- steps ---------------------------------------------------------------------------------

    def _be_open(self, now: float) -> None:
        if self.fd >= 0 and now - self._looked_at >= LOOK:
            self._looked_at = now
            if inode_of(self.path) != self._inode:
                self._let_go()
        if self.fd < 0:
            self.fd = open_log(self.path)
            self._inode = os.fstat(self.fd).st_ino
            self._looked_at = now
        if not self._begun:
            self._begun = True
            end_line(self.fd)

    def _rotate_for(self, more: int) -> None:
        size = os.fstat(self.fd).st_size
        if not self._most or not size or size + more <= self._most:
            return
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # somebody else is rotating it: found out at the next look
        if inode_of(self.path) == self._inode:
            try:
                shift(self.path, self._keep)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    return  # a folder that we may not change: better too long than lost
        self._let_go()
        self._be_open(time.monotonic())

    def _note(self) -> None:
        """A line of ours, before the first that is written again."""
        if self.dropped:
            line = self._line_of(f"rrdispatch: {self.dropped} lines dropped: {self._trouble}")
            try:
                self._write(line, None)
            except _CutError as error:
                raise error.cause from None

    def _write(self, text: bytes, intend: Callable[[int, int], None] | None) -> None:
        offset = os.fstat(self.fd).st_size
        if intend is not None:
            intend(self._inode, offset)
        done = 0
        while done < len(text):
            try:
                done += os.write(self.fd, text[done:])
            except OSError as error:  # noqa: PERF203 (a short write is mostly followed by its reason)
                whole = text.rfind(b"\n", 0, done) + 1
                self._take_back(offset + done, offset + whole)
                raise _CutError(error, text.count(b"\n", whole)) from error

    def _take_back(self, end: int, whole: int) -> None:
        """The part of a line that was written; unless others have written or truncated since."""
        if whole < end == os.fstat(self.fd).st_size:
            os.ftruncate(self.fd, whole)

    def _failed(self, error: OSError, lines: int) -> None:
        self.dropped += lines
        self._failed_at = time.monotonic()
        why = error.strerror or str(error)
        if self._trouble != why:
            self._trouble = why
            self._tell({"output": self.path, "error": why, "dropped": self.dropped})

    def _recovered(self) -> None:
        self._failed_at = None
        if self._trouble:
            self._tell({"output": self.path, "error": "", "dropped": self.dropped})
            self._trouble = ""
        self.dropped = 0


class _CutError(Exception):
    """So many lines of a text were not written."""

    def __init__(self, cause: OSError, lines: int) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.lines = lines


def end_line(fd: int) -> None:
    """A line of our own that a logger was killed in, or another program's: it ends here."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        os.write(fd, b"\n")


def open_log(path: str) -> int:
    """For appending; its folder is made if need be. What is a FIFO by now makes nobody wait."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        return os.open(path, flags, MODE)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path) or ".", mode=0o750, exist_ok=True)
        return os.open(path, flags, MODE)


def is_device(path: str) -> bool:
    """/dev/null, a terminal, a pipe: there is nothing to rotate or to truncate."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def shift(path: str, keep: int) -> None:
    """FILE becomes FILE.1, FILE.1 FILE.2, the last one goes. Killed in between, it leaves a gap,
    which the next rotation fills. The oldest first: whoever follows relies on that.
    """
    names = [path, *rotated(path, keep)]
    free = next((n for n, name in enumerate(names) if n and inode_of(name) is None), keep)
    for number in range(free, 0, -1):
        os.rename(names[number - 1], names[number])


def inode_of(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None
