"""The main job, shown: an example app on all cores, 400 connections, and who got how many.

`make demo` runs it. It starts `rrdispatch run`, opens one connection after another, prints the
split and stops everything it started.
"""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONNECTIONS = 400


def main() -> int:
    server = start(sys.argv[1:])
    try:
        address = wait_until_ready(server)
        if address is None:
            return server.wait() or 1
        split = Counter(ask(address) for _ in range(CONNECTIONS))
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(timeout=60)
    print(f"\n{CONNECTIONS} connections, one after another:")
    for worker, count in sorted(split.items()):
        print(f"  {worker:<10} {count:>4}  {'#' * round(40 * count / max(split.values()))}")
    return code or (0 if max(split.values()) - min(split.values()) <= 1 else 1)


def start(options: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rrdispatch", "run", "hello:app", "--cwd"]
    command += [str(ROOT / "examples"), "--bind", "127.0.0.1:0", "--no-access-log", *options]
    print("$ rrdispatch", *command[3:], flush=True)
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_until_ready(server: subprocess.Popen[str]) -> tuple[str, int] | None:
    """Its address once it serves; None if it ended before."""
    assert server.stderr is not None
    address: tuple[str, int] | None = None
    for line in server.stderr:
        print(line, end="", flush=True)
        if found := re.search(r"listening on http://([\d.]+):(\d+)", line):
            address = found[1], int(found[2])
        if address is not None and "ready after" in line:
            return address
    return None


def ask(address: tuple[str, int]) -> str:
    """One connection with one request; who answered it."""
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    found = re.search(r"worker \d+", text)
    return found[0] if found else text.strip()


if __name__ == "__main__":
    sys.exit(main())
