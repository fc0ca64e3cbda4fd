"""``list`` for people: in a terminal, in a narrow one, without colour, and of many apps at once."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from rrdispatch.control import protocol, statedir
from rrdispatch.control.rows import WINDOW, cpu_seconds
from tests.cli.plane import Plane, finish
from tests.harness import screen
from tests.harness.servers import wait_until

SLEEP = ("--no-listen", "--no-heir", "--min-uptime", "0", "--", "sleep", "1000")


def in_a_terminal(plane: Plane, width: int, *arguments: str, **env: str) -> str:
    """What is seen in one of this width."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 40, width, 0, 0))
    command = subprocess.Popen(
        [sys.executable, "-m", "rrdispatch", *arguments],
        cwd=plane.here, env=plane.environment({"TERM": "xterm", **env}),
        stdin=its, stdout=its, stderr=its,
    )  # fmt: skip
    os.close(its)
    seen = screen.rest(ours)
    os.close(ours)
    assert command.wait(60) == 0, seen
    return seen.decode()


def until(look: Callable[[], str], word: str) -> str:
    """The first that has it."""
    seen: list[str] = []

    def has_it() -> bool:
        seen.append(look())
        return word in seen[-1]

    wait_until(has_it, 60.0, word)
    return seen[-1]


@pytest.mark.parametrize("width", [60, 80, 132])
def test_it_fits_the_terminal(plane: Plane, width: int) -> None:
    plane.ok("start", "--name", "a-name-of-some-length", "-i", "1", *SLEEP)
    # Who has no core for some seconds is "not answering".
    seen = until(lambda: in_a_terminal(plane, width, "list"), "online")
    assert "\x1b[32monline\x1b[0m" in seen
    plain = until(lambda: in_a_terminal(plane, width, "list", NO_COLOR="1"), "online")
    assert "\x1b" not in plain
    lines = plain.splitlines()
    assert len(lines) == 5
    assert max(len(line) for line in lines) <= width
    assert ("conn/s" in plain) == (width == 132)


def test_piped_it_has_all_columns_and_no_colour(plane: Plane) -> None:
    plane.ok("start", "--name", "job", "-i", "2", *SLEEP)
    said = plane.ok("ls")
    assert "\x1b" not in said
    assert "pending" in said
    assert "job:1" in until(lambda: plane.ok("ls", "--workers"), "online")
    assert "job:1" not in said


def test_an_app_that_nobody_defined(plane: Plane) -> None:
    """Of ``run --heir``: it has no id, and is found by its name."""
    run = plane.begin("run", "shop:app", "--heir", "--name", "fg", "-i", "1", "-b", "127.0.0.1:0")
    try:
        # It is not there yet, does not listen yet, or answers.
        assert plane.type("ping", "fg").code in (0, 2, 8)
        wait_until(lambda: _serves(plane) or run.poll() is not None, 60.0, "it serves, or ended")
        assert run.poll() is None
        row = plane.row("fg")
        assert (row["id"], row["status"], row["target"]) == (None, "online", "")
        assert plane.ok("stop", "fg") == "fg: stopped\n"
    finally:
        run.terminate()
        finish(run)
    assert plane.rows() == []


def _serves(plane: Plane) -> bool:
    return any(row["serving"] for row in plane.rows())


def test_ten_apps_of_four_workers_are_listed_within_four_tenths_of_a_second(plane: Plane) -> None:
    """By the CPU time that it takes, of the command and of all primaries one after the other: what
    others do on this machine does not count.
    """
    apps = [plane.begin("start", "--name", f"app{n}", "-i", "4", *SLEEP) for n in range(10)]
    assert [finish(app).code for app in apps] == [0] * 10
    assert len(plane.ok("pid").split()) == 40
    rows = plane.rows()
    assert sorted(row["id"] for row in rows) == list(range(10))
    assert {row["serving"] for row in rows} == {4}
    processes = [pid for row in rows for pid in (row["primary_pid"], dispatcher(plane, row))]
    best = min(took(plane, processes) for _ in range(8))
    assert best + WINDOW < 0.4, best


def dispatcher(plane: Plane, row: Mapping[str, Any]) -> int:
    with statedir.connect(row["name"], plane.home, 60.0) as control:
        control.sendall(protocol.request("stats", {}, 1))
        with control.makefile("rb") as lines:
            found: int = json.loads(lines.readline())["result"]["dispatcher_pid"]
    return found


def took(plane: Plane, others: Sequence[int]) -> float:
    before = sum(cpu_seconds(pid) for pid in others), os.times()
    plane.ok("list")
    after = sum(cpu_seconds(pid) for pid in others), os.times()
    ours = after[1].children_user + after[1].children_system
    ours -= before[1].children_user + before[1].children_system
    return after[0] - before[0] + ours


def test_numbers_are_those_of_the_processes(plane: Plane) -> None:
    busy = "while True: pass"
    options = ("--no-listen", "--no-heir", "-i", "1", "--name", "busy", "--min-uptime", "0")
    plane.ok("start", *options, "--", sys.executable, "-c", busy)
    wait_until(lambda: plane.row("busy")["cpu"] > 5, 60.0, "a tenth of a second in which it ran")
    assert 1 << 20 < plane.row("busy")["memory"] < 1 << 30
