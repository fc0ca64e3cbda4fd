"""Small things that the shim's tests share."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.ports import free_port as free_port

from .primary import SHIM, FakePrimary, fake_primary
from .scripts import running

PROGRAMS = Path(__file__).parent / "programs"
CC = shutil.which("cc")
MUSL = shutil.which("musl-gcc")
WARNINGS = ["-std=gnu11", "-O1", "-g", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"]

# Nothing in them listens on a TCP port that it chose: the primary hears nothing.
UNTOUCHED = {
    ("sockets", "bound-twice"),
    ("kinds", "other-kinds"),
    ("kinds", "own-reuseport"),
}

shim_needed = pytest.mark.skipif(not SHIM.exists(), reason="the shim was not built")
compiler_needed = pytest.mark.skipif(CC is None, reason="no C compiler")


def scenarios() -> list[tuple[str, str]]:
    """(program, scenario) of all programs, read from the tables at their ends."""
    found = []
    for path in sorted(PROGRAMS.glob("*.c")):
        table = path.read_text().partition("scenarios[] = {")[2].partition("{NULL")[0]
        found += [(path.stem, name) for name in re.findall(r'{"([a-z0-9-]+)", \w+}', table)]
    return found


def compile_program(source: Path, target: Path, *options: str, compiler: str | None = CC) -> Path:
    """Raises with the compiler's words."""
    assert compiler is not None
    subprocess.run(
        [compiler, *WARNINGS, "-o", str(target), str(source), *options, "-pthread"],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return target


def ask(port: int, what: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(what)
        return client.recv(1)


@contextlib.contextmanager
def preloaded(folder: Path, body: str) -> Iterator[tuple[FakePrimary, subprocess.Popen[str]]]:
    """A script that runs under the shim, and the primary that it asks."""
    with (
        fake_primary(folder) as primary,
        running(body, free_port(), primary.preloaded) as process,
    ):
        yield primary, process


def play(program: Path, scenario: str, environment: dict[str, str] | None = None) -> str:
    """All that it says, and how it ends."""
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


def works(folder: Path, flag: str) -> bool:
    """The compiler and its libraries know the option."""
    source = folder / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    try:
        compile_program(source, folder / "empty", flag)
    except subprocess.CalledProcessError:
        return False
    return subprocess.run([folder / "empty"], check=False).returncode == 0
