"""The same C program on a real listener and under the shim: the same results, the same errnos."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from .kit import PROGRAMS, compiler_needed, free_port, scenarios, shim_needed
from .primary import fake_primary

# Nothing in them listens on a TCP port that it chose: the primary hears nothing.
UNTOUCHED = {
    ("sockets", "bound-twice"),
    ("sockets", "other-kinds"),
    ("sockets", "own-reuseport"),
}

pytestmark = [shim_needed, compiler_needed]


def output(program: Path, scenario: str, environment: dict[str, str] | None = None) -> str:
    process = subprocess.Popen(
        [program, scenario, str(free_port())],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        told, _ = process.communicate(timeout=90)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return f"{told}exit {process.returncode}\n"


@pytest.mark.parametrize(("name", "scenario"), scenarios())
def test_same(name: str, scenario: str, built: dict[str, Path], tmp_path: Path) -> None:
    expected = output(built[name], scenario)
    assert expected.endswith("exit 0\n"), expected
    with fake_primary(tmp_path) as primary:
        assert output(built[name], scenario, primary.preloaded) == expected
        assert bool(primary.requests) == ((name, scenario) not in UNTOUCHED)


def test_every_program_has_scenarios() -> None:
    assert {name for name, _ in scenarios()} == {path.stem for path in PROGRAMS.glob("*.c")}
