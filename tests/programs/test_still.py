"""When a program is told to stop: at a moment when it has nothing under way."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from rrdispatch.cluster import quiet
from rrdispatch.cluster.quiet import (
    HURRY,
    IDLE_AFTER,
    PAUSE,
    SHORTEST,
    Connection,
    Watch,
    again,
    catches,
    connections,
    enough,
)
from tests.harness.servers import wait_until
from tests.programs.program import Program, free_port
from tests.programs.test_run import _alive


class Pair:
    """A connection as this process serves it."""

    def __init__(self, stack: ExitStack, family: int = socket.AF_INET) -> None:
        host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        listener = stack.enter_context(socket.create_server((host, 0), family=family))
        self.port: int = listener.getsockname()[1]
        self.client = stack.enter_context(socket.create_connection(listener.getsockname()[:2]))
        self.server = stack.enter_context(listener.accept()[0])

    def seen(self) -> Connection:
        inode = os.fstat(self.server.fileno()).st_ino
        (found,) = [one for one in connections(self.port) if one.inode == inode]
        return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as kept:
        yield kept


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_who_owes_an_answer(stack: ExitStack, family: int) -> None:
    pair = Pair(stack, family)
    assert not pair.seen().owes, "nothing was asked"
    pair.client.sendall(b"question")
    wait_until(lambda: pair.seen().owes, 20.0, "it waits to be read")
    assert pair.server.recv(100) == b"question"
    assert pair.seen().owes, "read, and nothing was sent ever"
    pair.server.sendall(b"early hint")
    wait_until(lambda: not pair.seen().owes, 20.0)
    wait_until(lambda: pair.seen().silent > 0.05, 20.0)
    pair.client.sendall(b"question")
    assert pair.server.recv(100) == b"question"
    assert pair.seen().owes, "read, and not answered"
    pair.server.sendall(b"answer")
    wait_until(lambda: not pair.seen().owes, 20.0, "answered")


def test_who_has_hung_up_is_owed_nothing_more(stack: ExitStack) -> None:
    pair = Pair(stack)
    pair.client.shutdown(socket.SHUT_WR)
    assert pair.server.recv(1) == b""
    assert not pair.seen().owes


def test_what_the_client_does_not_read_is_unsent(stack: ExitStack) -> None:
    pair = Pair(stack)
    pair.server.setblocking(False)

    def is_unsent() -> bool:
        """What was only late on its way makes room for more."""
        with suppress(BlockingIOError):
            for _ in range(1000):
                pair.server.send(bytes(1 << 16))
        return pair.seen().unsent

    wait_until(is_unsent, 20.0)
    assert not pair.seen().is_idle(0.0, True)


@pytest.mark.parametrize(
    ("silent", "owes", "pause", "answers_later", "idle"),
    [
        (0.0, False, 3.0, True, False),
        (3.0, False, 3.0, True, True),
        (0.02, False, 0.01, True, True),
        (0.02, False, 0.03, True, False),
        (0.02, True, 0.01, True, False),
        (3.0, True, 3.0, True, True),
        (300.0, True, 0.01, False, False),
    ],
)
def test_idle(silent: float, owes: bool, pause: float, answers_later: bool, idle: bool) -> None:
    assert Connection(2, b"", 1, silent, owes, unsent=False).is_idle(pause, answers_later) == idle


def test_a_shorter_pause_is_enough_in_the_end() -> None:
    pauses = [enough(number / 100) for number in range(-10, 120)]
    assert pauses == sorted(pauses, reverse=True)
    assert pauses[0] == enough(HURRY - 0.01) == IDLE_AFTER
    assert enough(HURRY) == PAUSE
    assert pauses[-1] == enough(1.0) == pytest.approx(SHORTEST)


def test_a_connection_is_asked_for_by_its_name(stack: ExitStack) -> None:
    """Not by all of the kernel's table; and one that was closed is no other one."""
    pairs = [Pair(stack, family) for family in (socket.AF_INET, socket.AF_INET6)]
    known = [pair.seen() for pair in pairs]
    pairs[0].client.sendall(b"question")
    wait_until(lambda: [one.owes for one in again(known)] == [True, False], 20.0)
    assert [one.inode for one in again(known)] == [one.inode for one in known]
    pairs[0].server.close()
    assert [one.inode for one in again(known)] == [known[1].inode]


def test_in_the_last_quarter_a_pause_is_enough(
    stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an answer, however often there was one; not over a request."""
    monkeypatch.setattr(quiet, "IDLE_AFTER", 600.0)
    pair = Pair(stack)
    begun = time.monotonic()
    early = Watch(os.getsid(0), {pair.port}, signal.SIGTERM, begun + 1000)
    late = Watch(os.getsid(0), {pair.port}, signal.SIGTERM, begun)
    for _ in range(3):
        pair.client.sendall(b"question")
        wait_until(lambda: pair.seen().owes, 20.0)
        assert early.at_work() == late.at_work() == 1
        wait_until(lambda: pair.seen().silent > PAUSE, 20.0)
        assert early.at_work() == late.at_work() == 1
        pair.server.sendall(pair.server.recv(100))
        pair.client.recv(100)
        wait_until(lambda: pair.seen().silent > PAUSE, 20.0)
        assert (early.at_work(), late.at_work()) == (1, 0)


HANDLES = "import signal; signal.signal(signal.SIGTERM, print); print(flush=True); input()"


def test_catches() -> None:
    for code, caught in ((HANDLES, True), (HANDLES.replace("print)", "signal.SIG_DFL)"), False)):
        with subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert catches(process.pid, signal.SIGTERM) == caught
            process.communicate(b"\n")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_kernel_that_cannot_be_asked(
    stack: ExitStack, family: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is open is at work: late, but nothing is cut that need not be."""

    def missing(*_: object) -> socket.socket:
        raise OSError(errno.EPROTONOSUPPORT, "no")

    pair = Pair(stack, family)
    monkeypatch.setattr(quiet, "_diag", missing)
    watch = Watch(os.getsid(0), {pair.port}, signal.SIGTERM, 0.0)
    assert watch.at_work() == watch.at_work() == 1
    pair.server.close()
    wait_until(lambda: watch.at_work() == 0, 20.0)


def test_without_a_descriptor_to_look_with_it_is_at_work(stack: ExitStack) -> None:
    pair = Pair(stack)
    watch = Watch(os.getsid(0), {pair.port}, signal.SIGTERM, 0.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    pair.client.sendall(b"question")
    spare = os.dup(pair.client.fileno())
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        found = watch.at_work()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found == 1


def test_an_unknown_family_of_sockets_is_an_error() -> None:
    """As where the kernel has the family, and nobody in it who answers."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, quiet.SOCK_DIAG) as diag:
        quiet._ask(diag, 40, b"", quiet.DUMP)
        assert quiet.ERROR in [kind for kind, _ in quiet._read(diag)]


def test_only_what_the_worker_holds(stack: ExitStack) -> None:
    """Not a connection to its port that somebody else has."""
    pair = Pair(stack)
    pair.client.sendall(b"question")
    wait_until(lambda: pair.seen().owes, 20.0)
    mine, other = (
        Watch(leader, {pair.port}, signal.SIGTERM, 0.0) for leader in (os.getsid(0), os.getpid())
    )
    assert mine.at_work() == 1
    if os.getsid(0) != os.getpid():
        assert other.at_work() == 0


def test_what_has_no_handler_is_left_until_it_has_answered() -> None:
    """It would die over the answer: however long it says nothing, within the time there is."""
    port = free_port()
    options = ("-i", "1", "--probation", "0.2", "--drain-timeout", "20")
    with Program("hello.py", "--", str(port), port=port, options=options) as program:
        (old,) = program.workers().values()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(b"GET /sleep/5000 HTTP/1.0\r\n\r\n")
            wait_until(lambda: any(one.owes for one in connections(port)), 20.0)
            program.send_signal(signal.SIGHUP)
            with client.makefile("rb") as answer:
                assert f"pid {old} ".encode() in answer.read()
        program.output.wait(r": reloaded in", 60.0)
        wait_until(lambda: not _alive(old), 30.0, "the old one is gone")
