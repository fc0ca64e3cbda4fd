"""A logger may die between any two steps: the next one loses and doubles nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rrdispatch.cluster import journal, logfiles
from rrdispatch.cluster.journal import Journal
from rrdispatch.cluster.logfiles import LogFile
from rrdispatch.cluster.logformat import Format, Who
from rrdispatch.cluster.logsources import FileSource, Worker
from tests.logs.kit import content


class Killed(BaseException):
    """Nothing in the logger catches it."""


class Steps:
    """Whatever changes the world, one after the other; the end comes at number ``last``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.last = 0, -1
        monkeypatch.setattr(journal, "_WORD", Words(self))
        monkeypatch.setattr(journal.os, "readv", self.around(os.readv))
        monkeypatch.setattr(logfiles.os, "rename", self.around(os.rename))
        self._write = os.write
        monkeypatch.setattr(logfiles.os, "write", self.write)

    def step(self) -> None:
        self.count += 1
        if self.count == self.last:
            raise Killed

    def around(self, action: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any) -> Any:
            self.step()
            done = action(*arguments)
            self.step()
            return done

        return stepped

    def write(self, fd: int, data: bytes) -> int:
        """In two pieces, as a kill may leave it."""
        self.step()
        half = self._write(fd, data[: len(data) // 2])
        self.step()
        done = half + self._write(fd, data[len(data) // 2 :])
        self.step()
        return done


class Words:
    """struct.Struct, of which each store is a step."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._struct = journal._WORD
        self.unpack_from = self._struct.unpack_from

    def pack_into(self, *arguments: Any) -> None:
        self._steps.step()
        self._struct.pack_into(*arguments)
        self._steps.step()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def pieces() -> Iterator[bytes]:
    """Lines, halves of lines, equal lines, one that is too long, and an end without newline."""
    yield b"one\ntw"
    yield b"o\n\nsame\nsame\nsame\n"
    yield b"same\n" * 3
    yield b"same\n" * 4
    yield b"x" * 50_000
    yield b"x" * 50_000 + b"\ny"
    for number in range(4):
        yield b"%d " % number * 10_000 + b"\n"
    yield b"the end"


def run(folder: Path) -> bytes:
    """One pipe's whole life, with a new logger after each that was killed."""
    log = folder / "log"
    reader, writer = os.pipe()
    memory = journal.create()
    source: FileSource | None = None
    files: list[LogFile] = []
    waiting = [*pieces()]
    while True:
        try:
            if source is None:
                file = LogFile(str(log), 60_000, 20, lambda _: None)
                files.append(file)
                who = Who("web", 0, "out")
                form, part = Format("text", False, True), Journal(memory, 1)
                source = FileSource(reader, Worker(1), who, form, file, part)
                source.begin()
            if waiting:
                os.set_blocking(writer, False)
                waiting[0] = waiting[0][posix_write(writer, waiting[0]) :]
                waiting = waiting if waiting[0] else waiting[1:]
            elif writer >= 0:
                os.close(writer)
                writer = -1
            if not source.read():
                break
        except Killed:
            source = None
    for file in files:
        file.close()
    os.close(reader)
    os.close(memory)
    return content(log)


def printed(log: bytes) -> list[bytes]:
    """The lines of a log as the worker printed them: pieces of a long one put together."""
    found: list[bytes] = []
    for line in log.splitlines():
        head, message = line[: len("web.0 out | ")], line[len("web.0 out | ") :]
        if head == b"web.0 out + ":
            found[-1] += message
        else:
            assert head == b"web.0 out | ", line[:100]
            found.append(message)
    return found


posix_write = os.write  # the pipe's writer is not killed


def test_killed_at_every_step(tmp_path: Path, steps: Steps) -> None:
    body = b"".join(pieces()).split(b"\n")
    (tmp_path / "0").mkdir()
    assert printed(run(tmp_path / "0")) == body
    total = steps.count
    assert total > 100
    for last in range(1, total + 1):
        steps.count, steps.last = 0, last
        folder = tmp_path / str(last)
        folder.mkdir()
        assert printed(run(folder)) == body, f"killed at step {last} of {total}"


def test_a_journal_of_zeros_waits_for_nothing() -> None:
    memory = journal.create()
    part = Journal(memory, 0)
    assert part.waiting() == b""
    assert part.intent() is None
    assert not part.continues
    part.close()
    os.close(memory)


def test_without_a_journal_it_is_memory_of_its_own(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    file = LogFile(str(tmp_path / "log"), 0, 1, lambda _: None)
    form = Format("raw", True, True)
    source = FileSource(reader, Worker(1), Who("a", 0, "out"), form, file, Journal(-1, 0))
    os.write(writer, b"one\ntwo")
    os.close(writer)
    assert source.read()
    assert not source.read()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"
    source.close()
    file.close()
