"""One shape for every error: `error:` and `hint:` on stderr, nothing on stdout, the class' code."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from rrdispatch import errors
from rrdispatch.cli.errors import guarded, say
from rrdispatch.cli.group import COMMANDS, run
from tests.harness import screen
from tests.harness.servers import ROOT


def failing(error: BaseException) -> int:
    def action() -> object:
        raise error

    return guarded(action)


@pytest.mark.parametrize(
    "kind",
    [
        errors.Error, errors.ConfigError, errors.BindError, errors.TargetError,
        errors.MissingExtraError, errors.StartError, errors.ReloadError, errors.DispatcherError,
        errors.ControlError,
    ],
)  # fmt: skip
def test_each_error(kind: type[errors.Error], capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(kind("it broke", hint="mend it")) == kind.exit_code
    assert capsys.readouterr() == ("", "error: it broke\nhint: mend it\n")


def test_an_error_without_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    failing(errors.Error("it broke"))
    assert capsys.readouterr().err == "error: it broke\n"


def test_evidence_comes_before_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    failing(errors.TargetError("no app", traceback="Traceback: here\n"))
    text = capsys.readouterr().err
    assert text.startswith("Traceback: here\nerror: no app\nhint: this comes from the app's own")
    failing(errors.ReloadError("withdrawn", output="last words\n"))
    text = capsys.readouterr().err
    assert text.startswith("last words\nerror: withdrawn\nhint: the old workers serve on")


def test_a_terminal_breaks_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 24, 40, 0, 0))
    path = "/srv/" + 60 * "x"
    with open(ours, "rb", buffering=0) as terminal:
        with open(its, "w") as stderr:
            monkeypatch.setattr(sys, "stderr", stderr)
            failing(errors.Error("short"))
            failing(errors.Error(f"this one has more words than fit: {path}", hint="a " * 30))
        text = screen.rest(terminal.fileno()).decode().replace("\r\n", "\n")
    assert text == (
        "error: short\nerror: this one has more words than fit:\n"
        f"  {path}\nhint: {'a ' * 16}a\n  {'a ' * 12}a\n"
    )


def test_interrupted() -> None:
    assert failing(KeyboardInterrupt()) == 130


def test_a_defect_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        ([], "missing command", "try 'rrdispatch --help'"),
        (["rnu"], "there is no command 'rnu'", "did you mean run?"),
        (["zzz"], "there is no command 'zzz'", "try 'rrdispatch --help'"),
        (["--vresion"], "there is no option --vresion", "did you mean --version?"),
        (["run", "--instnces", "3"], "there is no option --instnces", "did you mean --instances?"),
        (["run", "--workers", "3"], "there is no option --workers", "did you mean --instances?"),
        (["run", "-w", "3"], "there is no option -w", "did you mean --instances?"),
        (["run", "--port", "80"], "there is no option --port", "did you mean --bind?"),
        (["run", "--no-accesslog"], "there is no option --no-accesslog", "--no-access-log?"),
        (["run", "a:b", "c:d"], "a:b is an app, which takes no arguments: c:d", "a program"),
        (["run", "sh", "-b", ":8"], "--bind: sh listens by itself, where it likes", "--listen"),
        (["run", "a:b", "-i"], "option '-i' requires an argument", "try 'rrdispatch"),
        (["run"], "TARGET is missing: there is nothing to run", "rrdispatch init app:app"),
        (["run", "a:b", "-i", "abc"], "--instances: 'abc' is not a number of workers", "physical"),
        (["run", "a:b", "-i", ""], "--instances: '' is not a number of workers", "physical"),
        (["run", "a:b", "--env", "A"], "--env: 'A' is not KEY=VALUE", "--env KEY=VALUE"),
        (["run", "a:b", "--band", "-1"], "--band: -1 is out of range", "1 to"),
        (["run", "a:b", "--config", ""], "--config: the path is empty", "name a file"),
        (["run", "a:b", "--cwd", "/no/where"], "--cwd: /no/where does not exist", "check"),
        (["run", "a:b", "--cwd", "/dev/null"], "--cwd: /dev/null is not a folder", "check"),
        (["run", "a:b", "--ssl-certfile", "/"], "--ssl-certfile: / is not a file", "check"),
        (["cpus", "all"], "got unexpected extra argument (all)", "try 'rrdispatch cpus --help'"),
    ],
)  # fmt: skip
def test_what_is_typed_wrong(
    arguments: list[str], error: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert out == ""
    assert first == f"error: {error}"
    assert second.startswith("hint: ")
    assert hint in second


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["run", "--help"], ["cpus", "-h"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: rrdispatch")
    assert err == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "rrdispatch 0.1.0\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_help_that_the_group_shows(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--help"]) == 0
    assert COMMANDS[name] in capsys.readouterr().out


def test_stderr_that_is_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    say("nobody hears this")
    say("nor this")
    sys.stderr.close()


@pytest.mark.parametrize("typed", ["list", "cpus", "jlist"])
def test_a_stdout_without_room_is_said(typed: str, tmp_path: Path) -> None:
    """Once: neither Python's own flush nor a traceback follows."""
    with open("/dev/full", "w") as full:
        told = subprocess.run(
            [sys.executable, "-m", "rrdispatch", typed],
            env={**os.environ, "RRDISPATCH_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert (told.returncode, told.stderr) == (
        1, "error: stdout cannot be written to: No space left on device\n"
    )  # fmt: skip
