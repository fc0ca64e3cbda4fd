"""A worker's pipes as the logger reads them: into a file by way of a journal, or into a stream."""

from __future__ import annotations

import collections
import os
import time
from typing import Protocol

from rrdispatch.cluster.journal import CHUNK, Intent, Journal
from rrdispatch.cluster.logfiles import LogFile
from rrdispatch.cluster.logformat import Format, Who
from rrdispatch.cluster.logsink import Sink

KEPT = 50  # lines per worker
MOST_KEPT = 4096  # bytes of a line
MOST_LINE = 64 * 1024  # a longer one is written in pieces of about that
MOST_TAIL = 24 * 1024


class Worker:
    """What is known of one worker's output."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.last: collections.deque[bytes] = collections.deque(maxlen=KEPT)
        self.open = 0
        self.tail_by: float | None = None
        self.forgotten = False  # nobody will ask again

    def keep(self, body: bytes) -> None:
        """The last lines, for error reports."""
        self.last.extend(line[:MOST_KEPT] for line in body.rsplit(b"\n", KEPT)[-KEPT:])

    def tail(self) -> list[str]:
        """The last lines, the oldest ones left out first if they are too long."""
        lines: list[str] = []
        room = MOST_TAIL
        for line in reversed(self.last):
            room -= len(line)
            if room < 0:
                break
            lines.append(line.decode(errors="replace"))
        return lines[::-1]


class Source(Protocol):
    """One pipe of one worker."""

    fd: int
    worker: Worker

    @property
    def waits(self) -> bool:
        """Its output takes nothing at present."""
        ...

    def begin(self) -> None:
        """Before the first read: what a logger before us had read."""
        ...

    def read(self) -> bool:
        """Takes what is there; False at the end."""
        ...

    def close(self) -> None: ...


class StreamSource:
    """Into a stream; what the stream has not taken is in memory."""

    def __init__(self, fd: int, worker: Worker, who: Who, form: Format, sink: Sink) -> None:
        self.fd = fd
        self.worker = worker
        self._who, self._form, self._sink = who, form, sink
        self._part = b""
        self._continues = False

    @property
    def waits(self) -> bool:
        return self._sink.full and not self._sink.stuck

    def begin(self) -> None:
        return

    def read(self) -> bool:
        try:
            data = os.read(self.fd, CHUNK)
        except InterruptedError:
            return True
        self._part += data
        while cut := cut_of(self._part, not data):
            body, ended = body_of(self._part[:cut])
            self._part = self._part[cut:]
            self.worker.keep(body)
            text = self._form.text(self._who, body, now(), self._continues)
            for line in lines_of(text):
                self._sink.put(line)
            self._continues = not ended
        return bool(data)

    def close(self) -> None:
        os.close(self.fd)


class FileSource:
    """Into a file; at every moment each byte is in the pipe, in the journal or in the file."""

    def __init__(
        self, fd: int, worker: Worker, who: Who, form: Format, file: LogFile, journal: Journal
    ) -> None:
        self.fd = fd
        self.worker = worker
        self._who, self._form, self._file, self._journal = who, form, file, journal
        intent = journal.intent()
        if intent is not None:
            self._finish(intent)

    @property
    def waits(self) -> bool:
        return False

    def begin(self) -> None:
        self._write(False)

    def read(self) -> bool:
        try:
            count = self._journal.read(self.fd)
        except InterruptedError:
            return True
        self._write(not count)
        return bool(count)

    def _write(self, last: bool) -> None:
        """The whole lines that wait; at the end what is no whole line as well."""
        while cut := cut_of(self._journal.waiting(), last):
            stamp = now()
            text, ended, cut = self._text(cut, stamp)

            def intend(inode: int, offset: int, cut: int = cut, stamp: int = stamp) -> None:
                self._journal.intend(Intent(cut, inode, offset, stamp))

            self._file.append(text, intend)
            self._journal.done(cut, not ended)

    def _text(self, cut: int, stamp: int, fit: bool = True) -> tuple[bytes, bool, int]:
        """What the first ``cut`` bytes become; of fewer lines if that is too long for a file."""
        data = self._journal.waiting()
        while True:
            body, ended = body_of(data[:cut])
            text = self._form.text(self._who, body, stamp, self._journal.continues)
            half = (data.rfind(b"\n", 0, cut // 2) + 1) or (data.find(b"\n", 0, cut) + 1)
            if not fit or half in (0, cut) or self._file.fits(len(text)):
                self.worker.keep(body)
                return text, ended, cut
            cut = half

    def _finish(self, intent: Intent) -> None:
        text, ended, cut = self._text(intent.cut, intent.stamp, fit=False)
        self._file.finish(text, intent.inode, intent.offset)
        self._journal.done(cut, not ended)

    def close(self) -> None:
        os.close(self.fd)
        self._journal.close()


def cut_of(data: bytes, last: bool) -> int:
    """How much of it is whole lines; of a line that is too long, or the last: all that is there."""
    cut = data.rfind(b"\n") + 1
    if cut:
        return cut
    if len(data) >= MOST_LINE:
        return len(data) - _split_character(data)
    return len(data) if last else 0


def body_of(data: bytes) -> tuple[bytes, bool]:
    """Without its last newline, and whether there was one."""
    ended = data.endswith(b"\n")
    return data[:-1] if ended else data, ended


def now() -> int:
    """The clock, in milliseconds."""
    return time.time_ns() // 1_000_000


def _split_character(data: bytes) -> int:
    """How many bytes at its end begin a character of UTF-8 that goes on behind it."""
    for back in range(1, 4):
        byte = data[-back]
        if byte >= 0xC0:
            return back if back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else 0
        if byte < 0x80:
            return 0
    return 0


def lines_of(text: bytes) -> list[bytes]:
    """Each with its newline, which is the only one that counts."""
    return [line + b"\n" for line in text[:-1].split(b"\n")]
