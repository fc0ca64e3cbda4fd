"""A bounded load run: starts the example app on all cores, lets locust ask, stops everything.

`make load` runs it; `--seconds`, `--users` and what follows `--` (for `rrdispatch run`) change it.
The exit code is 1 if a single request failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from service import ROOT, example

MAX_SECONDS = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("options", nargs="*", help="options of rrdispatch run, after --")
    asked = parser.parse_args()
    if not 1 <= asked.seconds <= MAX_SECONDS:
        parser.error(f"--seconds: 1 to {MAX_SECONDS}")
    with example(asked.options) as address:
        return load(f"http://{address}", asked.users, asked.seconds)


def load(host: str, users: int, seconds: int) -> int:
    """locust without its web page, against this host only."""
    scenario = str(ROOT / "loadtests" / "connection_per_request.py")
    command = [sys.executable, "-m", "locust", "-f", scenario, "--headless", "--host", host]
    command += ["--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds}s"]
    command += ["--only-summary", "--exit-code-on-error", "1"]
    return subprocess.run(command, check=False, timeout=seconds + 60).returncode


if __name__ == "__main__":
    sys.exit(main())
