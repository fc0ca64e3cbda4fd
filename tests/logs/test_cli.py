"""``rrdispatch logs`` and ``flush``, as typed."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.plane import Plane
from tests.harness import processes, screen
from tests.harness.servers import wait_until
from tests.logs.kit import APPS, content, loggers, numbers_of


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path)
    (made.here / "talker.py").write_text((APPS / "talker.py").read_text())
    try:
        yield made
    finally:
        made.close()


class App:
    """A talker in the background."""

    def __init__(self, plane: Plane, name: str = "web", *options: str) -> None:
        self.plane, self.name = plane, name
        self.log = plane.home / "logs" / f"{name}.log"
        bind = ("-b", "127.0.0.1:0", "--name", name)
        plane.ok("start", "talker:serve", *bind, *(options or ("-i", "1")))

    @property
    def row(self) -> dict[str, Any]:
        return next(row for row in self.plane.rows() if row["name"] == self.name)

    def ask(self, said: str) -> tuple[int, int, int]:
        host, _, port = self.row["listeners"][0].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(f"{said}\n".encode())
            slot, pid, printed = connection.makefile().read().split()
        return int(slot), int(pid), int(printed)

    def print(self, text: str) -> None:
        """A line to each stream; they are in the file afterwards."""
        self.ask(f"both {text}")
        wait_until(lambda: content(self.log).count(f" {text}\n".encode()) >= 2, 60.0)


def test_the_last_lines_of_an_app(plane: Plane) -> None:
    app = App(plane)
    for number in range(19):
        app.ask(f"both {number}")
    wait_until(lambda: content(app.log).count(b"\n") == 38, 60.0)
    app.print("19")  # behind all of them: a logger may read much of one stream at once
    shown = plane.ok("logs", "web", "--no-follow").splitlines()
    assert len(shown) == 15
    assert "web.0 out | to stdout 19" in shown
    assert plane.ok("logs", "--no-follow", "--lines", "0") == ""
    shown = plane.ok("logs", "web:0", "--nostream", "--err", "--lines", "3").splitlines()
    assert shown == [f"web.0 err | to stderr {number}" for number in (17, 18, 19)]
    assert plane.ok("logs", "0", "--no-follow", "--grep", "stdout 1[23]$", "--raw") == (
        "to stdout 12\nto stdout 13\n"
    )
    told = [json.loads(line) for line in plane.ok("logs", "--no-follow", "--json").splitlines()]
    assert len(told) == 15
    assert set(told[0]) == {"timestamp", "app_name", "slot", "type", "message"}
    assert len(plane.ok("logs", "--no-follow", "--since", "1h").splitlines()) == 40
    assert plane.ok("logs", "--no-follow", "--since", "2999-01-01") == ""
    stamped = plane.ok("logs", "--no-follow", "--time", "--lines", "1")
    assert stamped.split()[0] == told[-1]["timestamp"]
    app.log.rename(f"{app.log}.1")  # as logrotate does it, with kill -USR1 afterwards
    os.kill(app.row["primary_pid"], signal.SIGUSR1)
    wait_until(app.log.exists, 60.0)
    app.print("anew")
    assert b"anew" not in Path(f"{app.log}.1").read_bytes()
    plane.ok("stop", "web")
    assert "to stdout 19" in plane.ok("logs", "web", "--no-follow", "--lines", "50")


def test_what_was_typed_wrong(plane: Plane) -> None:
    app = App(plane)
    app.print("x")
    for arguments, said in {
        ("nope",): "'nope' matches no app",
        ("wev",): "did you mean web?",
        ("web", "--grep", "("): "is no regular expression",
        ("web", "--since", "yesterday"): "is no time",
        ("web", "--lines", "x"): "--lines: 'x' is not a valid integer\n",
    }.items():
        told = plane.type("logs", *arguments, "--no-follow")
        assert told.code == 2, told
        assert said in told.err
    told = plane.type("flush", "nope")
    assert (told.code, told.out) == (2, "")


def test_several_apps_are_told_apart_and_in_the_order_of_time(plane: Plane) -> None:
    first, second = App(plane, "one"), App(plane, "two")
    for number in range(3):
        first.print(str(number))
        second.print(str(number))
    shown = plane.ok("logs", "--no-follow", "--out").splitlines()
    assert shown == [f"{name}.0 out | to stdout {n}" for n in range(3) for name in ("one", "two")]


def test_out_and_err_in_files_of_their_own_and_a_file_per_slot(plane: Plane) -> None:
    options = ("-i", "2", "--no-merge-logs", "-o", "my-out.log", "--log-type", "raw")
    options += ("--stall-timeout", "60")  # each has its turn, however busy the machine is
    app = App(plane, "web", *options)
    for _ in range(2):
        app.ask("both x")
    wait_until(lambda: len(plane.ok("logs", "--no-follow").splitlines()) == 4, 60.0)
    assert sorted(plane.ok("logs", "--no-follow").splitlines()) == [
        "web.0 err | to stderr x", "web.0 out | to stdout x",
        "web.1 err | to stderr x", "web.1 out | to stdout x",
    ]  # fmt: skip
    assert plane.ok("logs", "web:1", "--no-follow", "--out") == "web.1 out | to stdout x\n"
    assert (plane.here / "my-out-1.log").read_text() == "to stdout x\n"


class Following:
    """``logs`` as it goes on."""

    def __init__(self, plane: Plane, *arguments: str) -> None:
        self.popen = plane.begin("logs", *arguments)
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        self.lines.extend(iter(self.popen.stdout.readline, ""))

    def until(self, text: str) -> None:
        wait_until(lambda: any(text in line for line in self.lines), 60.0, text)

    def interrupt(self) -> int:
        self.popen.send_signal(signal.SIGINT)
        code = self.popen.wait(60)
        self._thread.join()
        for stream in (self.popen.stdout, self.popen.stderr):
            assert stream is not None
            stream.close()
        return code


def test_follow_over_rotations_reload_restart_of_workers_and_loggers(plane: Plane) -> None:
    app = App(plane, "web", "-i", "2", "--log-size", "100K", "--log-keep", "200")
    app.print("begin")
    following = Following(plane, "web", "--lines", "1", "--raw", "--grep", "^[0-9]|stdout begin")
    following.until("stdout begin")  # from here on it sees everything
    expected: dict[int, int] = {}

    def talk() -> None:
        for _ in range(4):
            _, pid, printed = app.ask("lines 1000 100")
            expected[pid] = printed

    talk()
    primary = app.row["primary_pid"]
    os.kill(primary, signal.SIGHUP)
    old = set(expected)
    wait_until(lambda: not old & {worker["pid"] for worker in app.row["workers"]}, 60.0)
    talk()
    (logger,) = loggers(primary)
    processes.kill(logger)
    talk()
    victim = app.row["workers"][0]["pid"]
    processes.kill(victim)

    def replaced() -> bool:
        row = app.row
        return row["serving"] == 2 and victim not in [each["pid"] for each in row["workers"]]

    wait_until(replaced, 60.0)
    talk()
    app.print("end")
    wait_until(lambda: len(following.lines) > sum(expected.values()), 60.0)
    assert following.interrupt() == 130
    found = numbers_of(b"web.0 out | " + line.rstrip("\n").encode() for line in following.lines[1:])
    assert found == {pid: list(range(count)) for pid, count in expected.items()}
    assert len(list(app.log.parent.iterdir())) > 10


def test_follow_over_a_flush(plane: Plane) -> None:
    app = App(plane)
    app.print("before")
    following = Following(plane, "web")
    following.until("stdout before")
    assert plane.ok("flush", "web").startswith("web: ")
    assert content(app.log) == b""
    app.print("after")
    following.until("stdout after")
    assert following.interrupt() == 130
    assert sum("before" in line for line in following.lines) == 2


def test_a_reader_that_leaves_ends_it(plane: Plane) -> None:
    App(plane).print("x")
    following = plane.begin("logs")
    assert following.stdout is not None
    assert following.stderr is not None
    following.stdout.readline()
    following.stdout.close()
    assert following.wait(60) == 1
    assert following.stderr.read() == ""
    following.stderr.close()


def test_escapes_are_harmless_on_a_terminal_and_untouched_elsewhere(plane: Plane) -> None:
    app = App(plane)
    evil = b"\x1b]0;title\x07\x1b[32mgreen\x1b[0m\xff end\n"
    app.ask(f"raw {evil.hex()}")
    wait_until(lambda: evil in content(app.log), 60.0)
    assert evil[:-1] in app.log.read_bytes()
    command = ["logs", "web", "--no-follow"]
    with (plane.here / "copy").open("wb") as copy:
        run(plane, command, copy.fileno())
    assert (plane.here / "copy").read_bytes() == b"web.0 out | " + evil
    shown = b"\\x1b]0;title\\x07\x1b[32mgreen\x1b[0m\\xff end\x1b[0m\r\n"
    assert on_terminal(plane, command).endswith(b"web.0 out | \x1b[0m" + shown)
    plain = on_terminal(plane, command, NO_COLOR="1")
    assert plain == b"web.0 out | \\x1b]0;title\\x07green\\xff end\r\n"


def run(plane: Plane, arguments: list[str], out: int, **env: str) -> None:
    import sys

    subprocess.run(
        [sys.executable, "-m", "rrdispatch", *arguments], cwd=plane.here, stdout=out,
        env=plane.environment(env), check=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def on_terminal(plane: Plane, arguments: list[str], **env: str) -> bytes:
    far, near = pty.openpty()
    try:
        with open(near, "wb"):
            run(plane, arguments, near, **env)
        return screen.rest(far)
    finally:
        os.close(far)


def test_an_app_that_cannot_be_imported_leaves_its_traceback(plane: Plane) -> None:
    (plane.here / "broken.py").write_text("import nowhere_to_be_found\n")
    told = plane.type("start", "broken:serve", "-b", "127.0.0.1:0", "-i", "1")
    assert told.code != 0
    log = plane.home / "logs" / "broken.log"
    wait_until(lambda: b"No module named 'nowhere_to_be_found'" in content(log), 60.0)
