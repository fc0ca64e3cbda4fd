"""``help``, and what a Tab offers, asked by a real shell."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rrdispatch.cli.completion import VARIABLE
from rrdispatch.cli.group import COMMANDS, run
from tests.harness.servers import ROOT
from tests.test_light_imports import loaded


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home with two apps, and a program ``rrdispatch`` on PATH."""
    program = tmp_path / "bin" / "rrdispatch"
    program.parent.mkdir()
    words = shlex.join([sys.executable, "-m", "rrdispatch"])
    program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    program.chmod(0o755)
    home = tmp_path / "home"
    for name in ("web", "worker"):
        (home / name).mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    path = f"{program.parent}:{os.environ['PATH']}"
    ours = {"PATH": path, "RRDISPATCH_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return {**os.environ, **ours}


def tab(environment: dict[str, str], *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed: its completion is not tried")
    script = (
        'eval "$(rrdispatch completion bash)"; '
        f"COMP_WORDS=({shlex.join(['rrdispatch', *words])}); COMP_CWORD={len(words)}; "
        '_rrdispatch_completion rrdispatch; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    # compopt works inside of a completion only.
    said = [line for line in done.stderr.splitlines() if "compopt" not in line]
    assert said == [], done
    return [line for line in done.stdout.splitlines() if line]


def test_what_a_tab_offers(environment: dict[str, str]) -> None:
    assert tab(environment, "rel") == ["reload"]
    assert tab(environment, "stop", "") == ["web", "worker"]
    assert tab(environment, "reload", "web", "wo") == ["worker"]
    assert tab(environment, "reload", "--st") == ["--stop-first"]
    assert tab(environment, "start", "app:app", "--policy", "r") == ["round-robin"]
    assert tab(environment, "start", "w") == ["web", "worker"]
    assert tab(environment, "help", "unst") == ["unstartup"]
    assert tab(environment, "completion", "") == ["bash", "zsh", "fish"]
    assert tab(environment, "signal", "HU") == ["HUP"]
    assert tab(environment, "nonsense", "li") == ["list"]  # no error


def test_a_tab_is_no_place_for_errors(environment: dict[str, str], tmp_path: Path) -> None:
    environment["RRDISPATCH_HOME"] = str(tmp_path / "bin" / "rrdispatch")
    assert tab(environment, "stop", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert VARIABLE in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: its script is printed, but not read by it")
    subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=60)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err


def test_a_tab_for_commands_loads_none_of_them() -> None:
    asked = {VARIABLE: "bash_complete", "COMP_WORDS": "rrdispatch re", "COMP_CWORD": "1"}
    found = loaded(
        "import contextlib, io, os\n"
        f"os.environ.update({asked!r})\n"
        "from rrdispatch.cli.group import run\n"
        "out = io.TextIOWrapper(io.BytesIO())\n"
        "with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):\n"
        "    run([])\n"
        "assert b'plain,reload' in out.buffer.getvalue()"
    )
    assert not found & {f"rrdispatch.cli.{name}" for name in COMMANDS}


@pytest.mark.parametrize("name", [*sorted(COMMANDS), "ls"])
def test_help_is_what_help_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", name]) == 0
    said = capsys.readouterr().out
    assert run([name, "--help"]) == 0
    assert capsys.readouterr().out == said
    assert said.startswith(f"Usage: rrdispatch {name}")


def test_help_of_all_and_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help"]) == 0
    said = capsys.readouterr().out
    assert run(["--help"]) == 0
    assert capsys.readouterr().out == said
    assert run(["help", "relaod"]) == 2
    assert "did you mean reload?" in capsys.readouterr().err
