"""``rrdispatch monit``, as it is typed."""

from __future__ import annotations

import pytest

from tests.cli.plane import Plane
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
    import pty
    import subprocess
    import sys

    ours, its = pty.openpty()
    program = NO_TEXTUAL + "from rrdispatch.cli import main\nmain(['monit'])"
    with open(ours, "rb"), open(its, "r+b", buffering=0) as terminal:
        run = subprocess.run(
            [sys.executable, "-c", program], stdin=terminal, stdout=terminal,
            stderr=subprocess.PIPE, text=True, env=plane.environment(), timeout=60, check=False,
        )  # fmt: skip
    assert run.returncode == 4, run.stderr
    assert f'{sys.executable} -m pip install "rrdispatch[monit]"' in run.stderr


def test_plain(plane: Plane) -> None:
    assert plane.ok("monit", "--plain").startswith("0 apps, 0 online")
    plane.start("shop:app")
    plane.ok("start", "--name", "mailer", "-i", "1", "--no-listen", "--no-heir",
             "--min-uptime", "0", "--", "sleep", "1000")  # fmt: skip
    plane.ok("stop", "mailer")
    said = plane.ok("monit", "--plain", env={"COLUMNS": "100"})
    lines = said.splitlines()
    assert lines[0].startswith("2 apps, 1 online   2 workers")
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
