"""The logger: prefixes, last lines, readers that sleep or are gone."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rrdispatch.cluster import logsink, logsources
from rrdispatch.cluster.logger import Logger
from tests.harness.servers import wait_until

LIMIT = 60.0


class Rig:
    """A logger in a thread, its two outputs as pipes, and workers as pipes."""

    def __init__(self) -> None:
        self.control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(LIMIT)
        self.out, self._out = os.pipe()
        self.err, self._err = os.pipe()
        self.logger = Logger(far, self._out, self._err)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        self.ends: list[int] = []
        self.outputs: list[dict[str, Any]] = []

    def _run(self) -> None:
        self.logger.run()
        os.close(self._out)
        os.close(self._err)

    def worker(self, number: int, prefix: str) -> tuple[int, int]:
        """The writing ends of its stdout and stderr."""
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        name, _, slot = prefix.partition(".")
        self.tell(setup={"name": name})
        self.tell(begin=1)
        told = json.dumps({"add": number, "slot": int(slot)}).encode()
        socket.send_fds(self.control, [told], [out, err])
        os.close(out)
        os.close(err)
        return out_end, err_end

    def tell(self, **told: Any) -> None:
        self.control.send(json.dumps(told).encode())

    def hear(self) -> dict[str, Any]:
        """The next message that is not about its own outputs."""
        while "output" in (told := json.loads(self.control.recv(1 << 16))):
            self.outputs.append(told)
        found: dict[str, Any] = told
        return found

    def end(self) -> None:
        """Nobody will say anything more."""
        self.control.close()
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()

    def read(self, fd: int) -> bytes:
        """Everything; after ``end``."""
        with open(os.dup(fd), "rb") as stream:  # the fixture closes ours
            return stream.read()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(logsink, "END_PATIENCE", LIMIT)  # who reads here may wait for a core
    made = Rig()
    yield made
    if made.thread.is_alive():
        made.end()
    for fd in (made.out, made.err):
        if fd >= 0:  # one that was closed may be somebody else's by now
            os.close(fd)


def test_every_line_has_a_prefix_and_its_own_stream(rig: Rig) -> None:
    out, err = rig.worker(1, "shop.0")
    os.write(out, b"one\ntw")
    os.write(err, b"bad\n")
    os.write(out, b"o\n\nno newline")
    os.close(out)
    os.close(err)
    assert rig.hear() == {"ended": 1}
    rig.end()
    assert rig.read(rig.out) == b"".join(
        b"shop.0 | " + line + b"\n" for line in (b"one", b"two", b"", b"no newline")
    )
    assert rig.read(rig.err) == b"shop.0 | bad\n"


def test_the_tail_comes_after_the_end_of_the_output(rig: Rig) -> None:
    out, err = rig.worker(1, "shop.0")
    rig.tell(tail=1, wait=10.0)
    os.write(out, b"".join(b"%d\n" % n for n in range(100)))
    os.write(err, b"last words \xff\n")
    os.close(out)
    os.close(err)
    assert rig.hear() == {"ended": 1}
    tail = rig.hear()
    assert tail["tail"] == 1
    assert len(tail["lines"]) == logsources.KEPT
    assert "99" in tail["lines"]
    assert "last words \ufffd" in tail["lines"]


def test_the_tail_does_not_wait_for_ever(rig: Rig) -> None:
    out, err = rig.worker(1, "shop.0")
    os.write(out, b"still here\n")
    rig.tell(tail=1, wait=0.2)
    assert rig.hear() == {"tail": 1, "lines": ["still here"]}
    os.close(out)
    os.close(err)


def test_the_tail_of_a_worker_nobody_knows_is_empty(rig: Rig) -> None:
    rig.tell(tail=7, wait=0.0)
    assert rig.hear() == {"tail": 7, "lines": []}


def test_a_worker_is_forgotten_after_its_tail_was_told(rig: Rig) -> None:
    out, err = rig.worker(1, "shop.0")
    os.write(out, b"word\n")
    rig.tell(tail=1, wait=10.0)
    rig.tell(forget=1)
    os.close(out)
    os.close(err)
    assert [rig.hear(), rig.hear()] == [{"ended": 1}, {"tail": 1, "lines": ["word"]}]
    wait_until(lambda: not rig.logger.workers, LIMIT, "forgotten")


def test_a_line_without_end_is_cut(rig: Rig) -> None:
    out, err = rig.worker(1, "p.0")
    reader = threading.Thread(target=lambda: found.append(rig.read(rig.out)))
    found: list[bytes] = []
    reader.start()
    for _ in range(10):
        os.write(out, b"x" * 20000)
    os.close(out)
    os.close(err)
    rig.hear()
    rig.end()
    reader.join(LIMIT)
    lines = found[0].splitlines()
    assert len(lines) >= 2
    assert sum(line.count(b"x") for line in lines) == 200000
    assert lines[0].startswith(b"p.0 | ")
    assert all(line.startswith(b"p.0 + ") for line in lines[1:])


def test_a_reader_that_is_gone_stops_nobody(rig: Rig) -> None:
    os.close(rig.out)
    rig.out = -1
    out, err = rig.worker(1, "p.0")
    for number in range(1000):
        os.write(out, b"%d\n" % number * 100)
    os.close(out)
    os.write(err, b"still alive\n")
    os.close(err)
    rig.hear()
    rig.end()
    assert rig.read(rig.err) == b"p.0 | still alive\n"


def test_a_reader_that_sleeps_stops_the_workers_only_for_a_moment(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logsink, "HIGH", 1 << 16)
    monkeypatch.setattr(logsink, "PATIENCE", 0.1)
    out, err = rig.worker(1, "p.0")
    line = b"x" * 1023 + b"\n"
    for _ in range(2000):  # 2 MB: far more than pipes and buffer hold
        os.write(out, line)
    os.close(out)
    os.close(err)
    assert rig.hear() == {"ended": 1}
    assert rig.outputs == [{"output": "stdout", "error": "nobody reads it", "dropped": 1}]
    assert rig.logger.outputs.streams["out"].dropped > 0
    reader = threading.Thread(target=lambda: found.append(rig.read(rig.out)))
    found: list[bytes] = []
    reader.start()
    rig.end()
    reader.join(LIMIT)
    assert found[0].count(b"\n") + rig.logger.outputs.streams["out"].dropped >= 2000


def test_a_reader_that_wakes_up_is_told_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logsink, "HIGH", 100)
    monkeypatch.setattr(logsink, "PATIENCE", 0.0)
    reader, writer = os.pipe()
    told: list[dict[str, object]] = []
    sink = logsink.Sink(writer, "stdout", told.append)
    for number in range(20):
        sink.put(b"line %02d, of some length\n" % number)
    assert sink.dropped > 0
    missed = sink.dropped
    sink.write()
    sink.put(b"awake\n")
    sink.write()
    text = os.read(reader, 10000)
    assert b"rrdispatch: %d lines dropped" % missed in text
    assert text.endswith(b"awake\n")
    assert [(each["error"], each["dropped"]) for each in told] == [
        ("nobody reads it", 1),
        ("", missed),
    ]
    sink.close()
    os.close(reader)
    os.close(writer)
