"""Small Python programs, run under the shim as they are: each knows only the standard library."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping

START = """
import os, select, signal, socket, sys, time
port = int(sys.argv[1])
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

def told(what):
    os.write(1, f"{what}\\n".encode())

def attempt(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return type(error).__name__ + " " + os.strerror(error.errno)
    return "fine"

"""


@contextlib.contextmanager
def running(
    body: str, port: int, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """The program; what is left of its group is ended afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", START + body, str(port)],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin, process.stdout:
            yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def go_on(process: subprocess.Popen[str]) -> None:
    """To one that waits for a line."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def run(body: str, port: int, environment: Mapping[str, str]) -> str:
    """All that it said; it has to end by itself, with 0."""
    with running(body, port, environment) as process:
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 0, told
    return told
