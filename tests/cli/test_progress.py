"""Commands that wait, in a terminal: what is seen meanwhile, and what an interrupt does."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

from tests.cli.plane import Plane, finish
from tests.harness.servers import wait_until


class Terminal:
    """A command in one of its own."""

    def __init__(self, plane: Plane, *arguments: str, **env: str) -> None:
        self._ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
        self.command = subprocess.Popen(
            [sys.executable, "-m", "rrdispatch", *arguments],
            cwd=plane.here, env=plane.environment({"TERM": "xterm", **env}),
            stdin=its, stdout=its, stderr=its,
        )  # fmt: skip
        os.close(its)
        self.seen = ""

    def until(self, pattern: str) -> None:
        while not re.search(pattern, self.seen):
            assert self._read(), self.seen

    def _read(self) -> bool:
        try:
            piece = os.read(self._ours, 65536)
        except OSError:  # EIO: nobody has the other end any more
            return False
        self.seen += piece.decode(errors="replace")
        return bool(piece)

    def end(self) -> int:
        while self._read():
            pass
        return self.command.wait(60)

    def close(self) -> None:
        os.close(self._ours)
        if self.command.poll() is None:
            self.command.kill()
            self.command.wait()


@pytest.fixture
def terminals(plane: Plane) -> Iterator[list[Terminal]]:
    found: list[Terminal] = []
    yield found
    for terminal in found:
        terminal.close()


def open_terminal(found: list[Terminal], plane: Plane, *arguments: str, **env: str) -> Terminal:
    terminal = Terminal(plane, *arguments, **env)
    found.append(terminal)
    return terminal


def last_block(seen: str) -> str:
    return seen.rpartition("\033[J")[2]


def test_a_line_per_slot_from_start_to_scale(plane: Plane, terminals: list[Terminal]) -> None:
    common = ("--name", "web", "-i", "2", "-b", "127.0.0.1:0", "--no-access-log")
    start = open_terminal(terminals, plane, "start", "shop:app", *common)
    assert start.end() == 0
    assert "waiting for ready" in start.seen
    assert re.search(r"web:0  .*ready, pid \d+.*\r\nweb:1  .*ready, pid", last_block(start.seen))
    reload = open_terminal(terminals, plane, "reload", "web", "--probation", "0.2")
    assert reload.end() == 0
    for word in ("waiting for ready", "parked", "draining 0 connections"):
        assert word in reload.seen, word
    assert "\033[32mready" in reload.seen
    assert "web: reloaded in" in reload.seen.splitlines()[-1]
    less = open_terminal(terminals, plane, "scale", "web", "1", NO_COLOR="1")
    assert less.end() == 0
    assert re.search(r"web:1  gone \(exit code 0\), pid", less.seen)
    assert not re.search(r"\033\[\d*m", less.seen)


def test_nothing_moves_where_nothing_can(plane: Plane, terminals: list[Terminal]) -> None:
    plane.start()
    dumb = open_terminal(terminals, plane, "reload", "web", "--probation", "0", TERM="dumb")
    assert dumb.end() == 0
    assert "\033" not in dumb.seen
    assert "web:0 spawned, pid" in dumb.seen
    told = plane.type("scale", "web", "1")
    assert (told.code, told.out) == (0, "web: 1 worker\n")
    assert "web:1 draining 0 connections, pid" in told.err


def test_an_interrupt_leaves_a_reload_alone(plane: Plane, terminals: list[Terminal]) -> None:
    plane.start()
    reload = open_terminal(terminals, plane, "reload", "web", "--probation", "5")
    reload.until("parked")
    reload.command.send_signal(signal.SIGINT)
    assert reload.end() == 130
    assert "the reload goes on" in reload.seen
    assert "Traceback" not in reload.seen
    wait_until(lambda: plane.row()["generation"] == 2, 60.0)
    assert plane.row()["serving"] == 2


def test_an_interrupt_takes_a_start_back_and_says_so(
    plane: Plane, terminals: list[Terminal]
) -> None:
    script = ("--name", "job", "-i", "1", "--wait-ready", "--no-listen", "--", "sleep", "1000")
    start = open_terminal(terminals, plane, "start", *script)
    start.until(r"job:0  .*waiting for ready")
    start.command.send_signal(signal.SIGINT)
    assert start.end() == 130
    assert "job: the start is taken back" in start.seen
    assert plane.rows() == []


def test_an_interrupted_command_without_a_terminal_says_it_too(plane: Plane) -> None:
    plane.start()
    reload = plane.begin("reload", "web", "--probation", "300")
    assert reload.stderr is not None
    while "parked" not in reload.stderr.readline():
        assert reload.poll() is None
    reload.send_signal(signal.SIGINT)
    told = finish(reload)
    assert told.code == 130
    assert "interrupted: web: the reload goes on: rrdispatch show web\n" in told.err
    plane.ok("stop", "web", "--now")
