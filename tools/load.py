"""A bounded locust run: starts the example app on all cores, lets locust ask, stops everything.

    python tools/load.py [--scenario keep_alive] [--seconds 10] [--users 20] [-- run's options]

The exit code is 1 if a single request failed. `make load` compares with other servers instead.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from service import ROOT, example

MAX_SECONDS = 300
SCENARIOS = ("connection_per_request", "keep_alive", "sticky")  # what the example can be asked


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--scenario", choices=SCENARIOS, default=SCENARIOS[0])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("options", nargs="*", help="options of rrdispatch run, after --")
    asked = parser.parse_args()
    if not 1 <= asked.seconds <= MAX_SECONDS:
        parser.error(f"--seconds: 1 to {MAX_SECONDS}")
    with example(asked.options) as address:
        return load(asked.scenario, f"http://{address}", asked.users, asked.seconds)


def load(scenario: str, host: str, users: int, seconds: int) -> int:
    """locust without its web page, against this host only."""
    path = str(ROOT / "loadtests" / f"{scenario}.py")
    command = [sys.executable, "-m", "locust", "-f", path, "--headless", "--host", host]
    command += ["--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds}s"]
    command += ["--only-summary", "--exit-code-on-error", "1"]
    return subprocess.run(command, check=False, timeout=seconds + 60).returncode


if __name__ == "__main__":
    sys.exit(main())
