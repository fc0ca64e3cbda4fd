"""Reading back from the end, and on from there while files are rotated, truncated, removed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rrdispatch.cluster.logfiles import LogFile
from rrdispatch.cluster.logformat import Line
from rrdispatch.control import logread
from rrdispatch.control.logread import LogRef, Reader, backwards
from tests.harness.servers import wait_until

OPENED: list[LogFile | Reader] = []


@pytest.fixture(autouse=True)
def all_closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def ref(path: Path, keep: int = 5, kind: str = "raw") -> LogRef:
    return LogRef(str(path), kind, keep, Line(b"", "web"))


def everything(_: Line) -> bool:
    return True


def read(reader: Reader) -> list[bytes]:
    found: list[bytes] = []
    while lines := [line.message for line in reader.read()]:
        found += lines
    return found


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 16])
@pytest.mark.parametrize(
    "text", [b"", b"\n", b"one", b"one\n", b"one\ntwo", b"\n\none\n\ntwo\n\n", b"long" * 9 + b"\n"]
)
def test_backwards(
    tmp_path: Path, text: bytes, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logread, "BLOCK", block)
    (tmp_path / "log").write_bytes(text)
    with (tmp_path / "log").open("rb") as file:
        found = list(backwards(file.fileno(), len(text)))
    assert [line for _, line in reversed(found)] == text.split(b"\n")[:-1]
    for offset, line in found:
        assert text[offset : offset + len(line) + 1] == line + b"\n"


def rotating(path: Path, most: int = 100, keep: int = 5) -> LogFile:
    log = LogFile(str(path), most, keep, lambda _: None)
    OPENED.append(log)
    return log


def last(*arguments: Any) -> Reader:
    reader = logread.last(*arguments)
    OPENED.append(reader)
    return reader


def write(log: LogFile, lines: list[bytes]) -> None:
    for line in lines:
        log.append(line + b"\n")


@pytest.mark.parametrize("count", [0, 1, 15, 60, 1000, None])
def test_the_last_lines_over_rotated_files(tmp_path: Path, count: int | None) -> None:
    log = rotating(tmp_path / "log", keep=20)
    write(log, numbered(200))
    found = read(last(ref(tmp_path / "log", 20), everything, count))
    assert found == numbered(200)[200 - min(200, 200 if count is None else count) :]


def test_the_last_lines_that_are_wanted(tmp_path: Path) -> None:
    log = rotating(tmp_path / "log", keep=20)
    write(log, numbered(200))
    reader = last(ref(tmp_path / "log", 20), lambda line: line.message.endswith(b"7"), 3)
    assert read(reader)[0] == b"177"


def test_since(tmp_path: Path) -> None:
    stamps = [f"2026-01-01T00:00:{second:02}.000Z" for second in range(60)]
    log = rotating(tmp_path / "log", 300, 50)
    write(log, [f"{stamp} web.0 out | line".encode() for stamp in stamps])
    found = last(ref(tmp_path / "log", 50, "text"), everything, None, stamps[42])
    assert [line.stamp for line in found.read()] == stamps[42:]


def test_it_follows_over_rotations_that_it_was_too_slow_for(tmp_path: Path) -> None:
    log = rotating(tmp_path / "log", 100, 1000)
    write(log, numbered(10))
    reader = last(ref(tmp_path / "log", 1000), everything, 3)
    write(log, [b"more %d" % number for number in range(500)])
    assert read(reader) == [*numbered(10)[7:], *[b"more %d" % number for number in range(500)]]
    assert read(reader) == []
    write(log, [b"last"])
    assert read(reader) == [b"last"]


def test_it_follows_while_somebody_writes_and_rotates(tmp_path: Path) -> None:
    log = rotating(tmp_path / "log", 2000, 1000)
    write(log, numbered(1))
    reader = Reader(ref(tmp_path / "log", 1000))
    OPENED.append(reader)
    found = read(reader)
    writer = threading.Thread(target=write, args=(log, numbered(20_000)[1:]))
    writer.start()
    while writer.is_alive():
        found += read(reader)
    found += read(reader)
    assert found == numbered(20_000)
    assert len(os.listdir(tmp_path)) > 20


def next_tick(path: Path) -> None:
    """Until what is written has a later time: a file system's clock moves some 100 times a second,
    and what was written in one tick it cannot tell apart.
    """
    path.touch()
    before = path.stat().st_mtime_ns

    def later() -> bool:
        path.touch()
        return path.stat().st_mtime_ns > before

    wait_until(later, 60.0)


def test_what_was_rotated_away_is_gone_but_nothing_comes_twice(tmp_path: Path) -> None:
    log = rotating(tmp_path / "log", 100, 2)
    write(log, numbered(3))
    reader = last(ref(tmp_path / "log", 2), everything, 3)
    assert read(reader) == numbered(3)
    write(log, numbered(60)[3:])
    next_tick(tmp_path / "clock")
    write(log, numbered(300)[60:])
    found = [int(line) for line in read(reader)]
    gap = next(at for at, number in enumerate(found) if number != 3 + at)
    assert gap > 10, "the file that it was in, it read to the end, though that had no name any more"
    assert found[gap:] == list(range(found[gap], 300))
    assert 200 < found[gap] < 270


@pytest.mark.parametrize("how", ["truncate", "remove", "move"])
def test_it_follows_what_takes_the_place(tmp_path: Path, how: str) -> None:
    path = tmp_path / "log"
    log = rotating(path, 0)
    write(log, numbered(5))
    reader = last(ref(path), everything, 2)
    assert read(reader) == numbered(5)[3:]
    if how == "truncate":
        os.truncate(path, 0)
    elif how == "remove":
        path.unlink()
    else:
        path.rename(tmp_path / "log-of-monday")
    log.reopen()
    assert read(reader) == []
    write(log, [b"new"])
    assert read(reader) == [b"new"]


def test_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    reader = last(ref(tmp_path / "log"), everything, 15)
    assert read(reader) == []
    write(rotating(tmp_path / "log"), [b"first"])
    assert read(reader) == [b"first"]
    reader.close()
