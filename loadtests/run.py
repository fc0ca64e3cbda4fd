"""A bounded load run: starts the example app on all cores, lets locust ask, stops everything.

`make load` runs it; `--seconds`, `--users` and what follows `--` (for `rrdispatch run`) change it.
The exit code is 1 if a single request failed.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_SECONDS = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10, choices=range(1, MAX_SECONDS + 1))
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("options", nargs="*", help="options of rrdispatch run, after --")
    asked = parser.parse_args()
    command = [sys.executable, "-m", "rrdispatch", "run", "hello:app", "--no-access-log"]
    command += ["--cwd", str(ROOT / "examples"), "--bind", "127.0.0.1:0", *asked.options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        host = wait_until_ready(server)
        failed = bool(host and load(host, asked.users, asked.seconds))
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(timeout=60)
    return code or int(failed)


def wait_until_ready(server: subprocess.Popen[str]) -> str | None:
    """The base address once the service is ready; None if it ended before."""
    assert server.stderr is not None
    host: str | None = None
    for line in server.stderr:
        print(line, end="", flush=True)
        if found := re.search(r"listening on (http://\S+)", line):
            host = found[1]
        if host and "ready after" in line:
            return host
    return None


def load(host: str, users: int, seconds: int) -> int:
    """locust without its web page, against this host only."""
    scenario = str(ROOT / "loadtests" / "connection_per_request.py")
    command = [sys.executable, "-m", "locust", "-f", scenario, "--headless", "--host", host]
    command += ["--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds}s"]
    command += ["--only-summary", "--exit-code-on-error", "1"]
    return subprocess.run(command, check=False, timeout=seconds + 60).returncode


if __name__ == "__main__":
    sys.exit(main())
