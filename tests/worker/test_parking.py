"""Functions that are called when a worker is parked and when it serves again."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import rrdispatch
from rrdispatch.worker.parking import Parking

WITHIN = 60.0


class Heard:
    """A worker's Parking, the primary's end of its socket, and what was called."""

    def __init__(self) -> None:
        kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
        self.primary, self.worker = socket.socketpair(socket.AF_UNIX, kind)
        self.parking = Parking(self.worker.fileno())
        self.calls: queue.SimpleQueue[str] = queue.SimpleQueue()

    def say(self, *lines: str) -> None:
        for line in lines:
            self.primary.send(line.encode())

    def on(self, parked: bool, name: str) -> None:
        self.parking.add(parked, lambda: self.calls.put(name))

    def next(self, count: int) -> list[str]:
        return [self.calls.get(timeout=WITHIN) for _ in range(count)]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """No thread and no descriptor of it is left."""
    before = set(os.listdir("/proc/self/fd"))
    one = Heard()
    assert threads() == []
    yield one
    one.primary.close()
    for thread in threads():
        thread.join(WITHIN)
    one.worker.close()
    assert threads() == []
    assert one.calls.empty()
    assert set(os.listdir("/proc/self/fd")) <= before


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rrdispatch"]


def test_they_are_called_in_order_and_once_for_each_change(heard: Heard) -> None:
    heard.on(True, "first")
    heard.on(True, "second")
    heard.on(False, "third")
    heard.on(False, "fourth")
    heard.say("PARK=1")
    assert heard.next(2) == ["first", "second"]
    heard.say("PARK=1", "SOMETHING=1\n=\n", "RESUME=1", "RESUME=1", "PARK=1", "X=1\nRESUME=1")
    assert heard.next(6) == ["third", "fourth", "first", "second", "third", "fourth"]


def test_one_that_comes_while_the_worker_is_parked_is_called_at_once(heard: Heard) -> None:
    heard.say("PARK=1", "RESUME=1", "PARK=1")
    heard.on(False, "resumed")
    heard.on(True, "parked")
    assert heard.next(1) == ["parked"]
    heard.on(True, "parked as well")
    assert heard.next(1) == ["parked as well"]
    heard.say("RESUME=1", "PARK=1")
    assert heard.next(3) == ["resumed", "parked", "parked as well"]


def test_never_two_at_once_and_an_exception_changes_nothing(
    heard: Heard, capfd: pytest.CaptureFixture[str]
) -> None:
    release = threading.Event()

    def slow() -> None:
        heard.calls.put("begun")
        release.wait(WITHIN)
        raise SystemExit("no luck")

    heard.parking.add(True, slow)
    heard.on(False, "resumed")
    heard.say("PARK=1")
    assert heard.next(1) == ["begun"]
    heard.on(True, "late")
    heard.say("RESUME=1")
    assert len(threads()) == 1
    release.set()
    assert heard.next(2) == ["late", "resumed"]
    error = capfd.readouterr().err
    assert error.startswith("rrdispatch: on_park: ")
    assert "slow failed\nTraceback" in error
    assert "SystemExit: no luck" in error


def test_a_primary_that_goes_without_reading_ends_it(heard: Heard) -> None:
    heard.worker.send(b"STATUS=nobody reads it")
    heard.on(True, "parked")
    heard.say("PARK=1")
    assert heard.next(1) == ["parked"]


PROGRAM = """
import threading
import rrdispatch

@rrdispatch.on_park
def function():
    raise SystemExit("called")

assert rrdispatch.on_resume(function) is function
assert threading.active_count() == 1
"""


def test_outside_of_a_worker_nothing_happens() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


async def never_awaited() -> None:
    """An app's mistake."""


@pytest.mark.parametrize("function", [never_awaited, 7])
def test_what_cannot_be_called_there_is_refused(function: object) -> None:
    with pytest.raises(TypeError, match="on_resume.. takes a plain function"):
        rrdispatch.on_resume(function)  # type: ignore[type-var]
