"""How long after ``reload`` is typed the whole new generation serves: rrdispatch beside pm2.

    python -m loadtests.reload_time [--rounds 7] [--pm2 PROGRAM] [--json FILE]

Two workers of a small HTTP server each, one client that opens a connection for each request, one
after another. The end is the last answer of an old worker, or the first of the last new one,
whichever is later. Rounds are interleaved and shuffled; a request that fails is counted.
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import json
import os
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
LIMIT = 120.0  # seconds that anything may take

APP = """
import os

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""
SERVER = """
const server = require('http').createServer((_, answer) => answer.end(String(process.pid)));
server.listen(Number(process.env.SERVE_AT), '127.0.0.1');
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => server.close());
"""


@dataclass
class Contender:
    """One that is measured: what starts it, reloads it and ends it."""

    name: str
    start: Sequence[str]
    reload: Sequence[str]
    stop: Sequence[str]
    port: int
    env: Mapping[str, str]
    cwd: Path
    took: list[float] = field(default_factory=list)  # until all is new
    returned: list[float] = field(default_factory=list)  # the command
    asked: int = 0
    failed: int = 0

    def run(self, command: Sequence[str]) -> None:
        """To its end."""
        done = subprocess.run(
            command,
            cwd=self.cwd,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{self.name}: {' '.join(command)}: {done.stdout}{done.stderr}")

    def ask(self) -> int:
        """The pid of who answered; 0 for a failure."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        self.asked += 1
        try:
            client.request("GET", "/", headers={"Connection": "close"})
            return int(client.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            self.failed += 1
            return 0
        finally:
            client.close()

    def generation(self) -> set[int]:
        """Who serves, when all of them do and nobody else."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            found = {self.ask() for _ in range(8 * WORKERS)}
            if len(found) == WORKERS and 0 not in found:
                return found
        raise SystemExit(f"{self.name}: {WORKERS} workers did not come to serve")


def measure(contender: Contender) -> None:
    """One reload."""
    old = contender.generation()
    seen: dict[int, float] = {}
    last_old = began = time.monotonic()
    with subprocess.Popen(
        contender.reload, cwd=contender.cwd, env=contender.env,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as command:  # fmt: skip
        returned = 0.0
        while not returned or len(seen) < WORKERS:
            pid, now = contender.ask(), time.monotonic()
            if pid in old:
                last_old = now
            elif pid:
                seen.setdefault(pid, now)
            if not returned and command.poll() is not None:
                returned = now
                if command.returncode:
                    raise SystemExit(f"{contender.name}: exit code {command.returncode}")
            if now - began > LIMIT:
                raise SystemExit(f"{contender.name}: no new generation within {LIMIT:g} s")
    contender.took.append(max(last_old, *seen.values()) - began)
    contender.returned.append(returned - began)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found: int = listener.getsockname()[1]
    return found


def of_ours(
    name: str, folder: Path, target: Callable[[int], Sequence[str]], *options: str
) -> Contender:
    port, command = free_port(), [sys.executable, "-m", "rrdispatch"]
    env = {
        **os.environ, "PYTHONPATH": str(ROOT), "RRDISPATCH_HOME": str(folder / "rrdispatch"),
        "SERVE_AT": str(port),
    }  # fmt: skip
    app = name.replace(" ", "-").replace(",", "")
    start = [*command, "start", "--name", app, "-i", str(WORKERS), "--no-access-log", *target(port)]
    return Contender(
        name, start, [*command, "reload", app, *options], [*command, "delete", app],
        port, env, folder,
    )  # fmt: skip


def of_pm2(name: str, folder: Path, pm2: str) -> Contender:
    port = free_port()
    env = {**os.environ, "PM2_HOME": str(folder / "pm2"), "SERVE_AT": str(port)}
    start = [pm2, "start", "server.js", "-i", str(WORKERS), "--name", "web"]
    return Contender(name, start, [pm2, "reload", "web"], [pm2, "kill"], port, env, folder)


def contenders(folder: Path, pm2: str | None) -> list[Contender]:
    """Those that there are programs for."""
    (folder / "app.py").write_text(APP)
    (folder / "server.js").write_text(SERVER)
    found = [
        of_ours("rrdispatch ASGI", folder, lambda port: ["-b", f"127.0.0.1:{port}", "app:app"]),
        of_ours(
            "rrdispatch ASGI, --batch 2", folder,
            lambda port: ["-b", f"127.0.0.1:{port}", "app:app"], "--batch", "2",
        ),
    ]  # fmt: skip
    if shutil.which("node"):
        found.append(of_ours("rrdispatch Node", folder, lambda _: ["--", "node", "server.js"]))
        found.append(
            of_ours(
                "rrdispatch Node, --batch 2", folder, lambda _: ["--", "node", "server.js"],
                "--batch", "2",
            )
        )  # fmt: skip
    if pm2 is not None:
        found.append(of_pm2("pm2 Node", folder, pm2))
    return found


@contextmanager
def serving(contender: Contender) -> Iterator[None]:
    try:
        contender.run(contender.start)
        yield
    finally:
        contender.run(contender.stop)


def table(found: Sequence[Contender], rounds: int) -> str:
    when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    made = (
        f"Made {when} by `python -m loadtests.reload_time --rounds {rounds}`: {WORKERS} workers, "
        f"{os.cpu_count()} cores, Linux {platform.release()}, 1-minute load average "
        f"{os.getloadavg()[0]:.2f}. Seconds after the command was typed; median, least and most."
    )
    lines = [
        made,
        "",
        "| | until all is new | until the command returns | requests, failed |",
        "|---|---|---|---|",
    ]
    for each in found:
        failed = f"{each.asked:,}, {each.failed}"
        lines.append(f"| {each.name} | {shown(each.took)} | {shown(each.returned)} | {failed} |")
    return "\n".join(lines) + "\n"


def shown(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--pm2", default=shutil.which("pm2"), help="its program, if it is not on PATH"
    )
    parser.add_argument("--json", help="all figures into this file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reload-time-") as folder, ExitStack() as stack:
        found = contenders(Path(folder), asked.pm2)
        for each in found:
            stack.enter_context(serving(each))
        order = random.Random(1)
        for _ in range(asked.rounds):
            for each in order.sample(found, len(found)):
                measure(each)
        print(table(found, asked.rounds))
        if asked.json:
            told = {each.name: {"took": each.took, "returned": each.returned} for each in found}
            Path(asked.json).write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
