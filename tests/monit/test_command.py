"""``rrdispatch monit``, as it is typed."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from rrdispatch.monit import commands
from rrdispatch.monit.commands import Command
from tests.cli.plane import Plane
from tests.harness.readable import readable
from tests.harness.servers import wait_until
from tests.test_light_imports import cli, loaded

NO_TEXTUAL = "import sys\nsys.modules['textual'] = None\n"


def test_without_a_terminal(plane: Plane) -> None:
    told = plane.type("monit")
    assert told.code == 2
    assert told.err == "error: monit needs a terminal\nhint: rrdispatch monit --plain\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nobody"], "'nobody' matches no app"),
        (["--interval", "1ms"], "--interval: 1ms is too short"),
        (["--interval", "soon"], "--interval: "),
    ],
)
def test_what_is_typed_wrongly(plane: Plane, arguments: list[str], error: str) -> None:
    told = plane.type("monit", *arguments)
    assert told.code == 2
    assert told.err.startswith(f"error: {error}")


def test_without_the_extra(plane: Plane) -> None:
    ours, its = pty.openpty()
    program = NO_TEXTUAL + "from rrdispatch.cli import main\nmain(['monit'])"
    with open(ours, "rb"), open(its, "r+b", buffering=0) as terminal:
        run = subprocess.run(
            [sys.executable, "-c", program], stdin=terminal, stdout=terminal,
            stderr=subprocess.PIPE, text=True, env=plane.environment(), timeout=60, check=False,
        )  # fmt: skip
    assert run.returncode == 4, run.stderr
    assert f'{sys.executable} -m pip install "rrdispatch[monit]"' in run.stderr


def plain(plane: Plane, begins: str) -> str:
    """Once with all answers: a primary without a core for 3 s is shown as one that has none."""
    said = ""

    def told() -> bool:
        nonlocal said
        said = plane.ok("monit", "--plain", env={"COLUMNS": "100"})
        return said.startswith(begins)

    wait_until(told, 60.0, f"it begins with {begins}")
    return said


def test_plain(plane: Plane) -> None:
    assert plane.ok("monit", "--plain").startswith("0 apps, 0 online")
    plane.start("shop:app")
    plane.ok("start", "--name", "mailer", "-i", "1", "--no-listen", "--no-heir",
             "--min-uptime", "0", "--", "sleep", "1000")  # fmt: skip
    plane.ok("stop", "mailer")
    said = plain(plane, "2 apps, 1 online   2 workers")
    lines = said.splitlines()
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in said
    assert [line.split()[0] for line in lines if "● ready" in line] == ["0", "1"]
    assert "○ stopped" in said
    assert "mailer" not in plane.ok("monit", "--plain", "web")


def test_plain_needs_no_textual() -> None:
    found = loaded(cli("monit", "--plain"))
    assert not found & {"textual", "rich"}


def test_help_needs_none_either() -> None:
    found = loaded(cli("monit", "--help"))
    assert not found & {"textual", "rich", "asyncio", "rrdispatch.control"}


def shown(plane: Plane, keys: list[tuple[str, str]], **env: str) -> str:
    """All that a terminal of 80 by 24 got; each key is pressed when its text is on it."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with open(ours, "r+b", buffering=0) as terminal:
        monit = subprocess.Popen(
            [sys.executable, "-m", "rrdispatch", "monit"],
            env=plane.environment({"TERM": "xterm", **env}), stdin=its, stdout=its, stderr=its,
        )  # fmt: skip
        os.close(its)
        seen = ""
        try:
            for text, key in keys:
                while text not in seen.rpartition("\0")[2]:
                    seen += read(terminal)
                seen += "\0"
                terminal.write(key.encode())
            while more := read(terminal):
                seen += more
            assert monit.wait(60) == 0, seen
        finally:
            monit.kill()
            monit.wait()
    return seen


def read(terminal: io.FileIO) -> str:
    """Nothing at its end, which is EIO on a terminal."""
    ready = readable(terminal, 60)
    assert ready, "nothing came for a minute"
    try:
        return (terminal.read(65536) or b"").decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize("colours", [True, False])
def test_in_a_terminal(plane: Plane, colours: bool) -> None:
    """The whole program: it draws, obeys keys, and leaves the terminal as it was."""
    env = {} if colours else {"NO_COLOR": "1"}
    keys = [("no apps: rrdispatch start TARGET", "h"), ("this help", "q"), ("TARGET", "q")]
    seen = shown(plane, keys, **env)
    assert seen.count("\x1b[?1049h") == seen.count("\x1b[?1049l") == 1  # xterm's other screen
    assert "\x1b[?1000h" not in seen  # the mouse is the terminal's
    # Of colours only the sixteen: no 38;2 or 38;5, and none at all where none is wanted.
    numbers = {n for found in re.findall("\x1b\\[([0-9;]+)m", seen) for n in found.split(";")}
    assert not numbers & {"38", "48"}
    assert bool(numbers & set(map(str, range(30, 38)))) == colours


def test_a_command_goes_on_when_nobody_waits(plane: Plane, monkeypatch) -> None:
    """A reload or stop is not left half done because a connection broke."""
    plane.start("shop:app", "--no-heir")
    for key, value in plane.environment().items():
        monkeypatch.setenv(key, value)

    async def leave_at_once() -> None:
        waits = asyncio.create_task(Command(("stop", "web")).done())
        await asyncio.sleep(0)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits

    asyncio.run(leave_at_once())
    wait_until(lambda: plane.row()["status"] == "stopped", 90.0, "it is stopped")
    wait_until(commands.reap, 30.0, "it is no zombie")
