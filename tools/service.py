"""The example app as a running service, for the scripts beside this file."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def example(options: Sequence[str]) -> Iterator[str]:
    """`rrdispatch run hello:app` while the block runs; gives HOST:PORT. Its own words are shown."""
    arguments = ["run", "hello:app", "--cwd", str(ROOT / "examples"), "--bind", "127.0.0.1:0"]
    arguments += ["--no-access-log", *options]
    print("$ rrdispatch", *arguments, flush=True)
    command = [sys.executable, "-m", "rrdispatch", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            yield until_ready(server)
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(timeout=60)
    if code:
        raise SystemExit(f"rrdispatch run ended with {code}")


def until_ready(server: subprocess.Popen[str]) -> str:
    """Its address once it serves; leaves with its exit code if it ended before."""
    assert server.stderr is not None
    address = ""
    for line in server.stderr:
        print(line, end="", flush=True)
        if found := re.search(r"listening on http://(\S+)", line):
            address = found[1]
        if address and "ready after" in line:
            return address
    raise SystemExit(server.wait() or 1)
