"""Other servers of the same app: how each is started, what it needs, how it is told to reload.

``PEERS_PYTHON`` names an interpreter that has them, if ours has not.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.harness.load import run_load
from tests.harness.ports import free_port
from tests.harness.records import Plan
from tests.harness.servers import Server, rrdispatch_command, wait_until

PYTHON = os.environ.get("PEERS_PYTHON", sys.executable)
APP = "deployed:asgi"
WORKERS = 4
SCRIPT = Path(__file__).with_name("apps") / "peer.js"


@dataclass(frozen=True)
class Peer:
    """``command`` gets a port. ``needs``: modules, or a program."""

    name: str
    command: Callable[[int], list[str]]
    needs: tuple[str, ...] = ()
    program: str = ""
    get: str = ""

    @property
    def missing(self) -> str:
        """How to get it, if it is not here."""
        if self.program and shutil.which(self.program) is None:
            return self.get
        if self.needs and not _has(self.needs):
            return self.get
        return ""


def _has(modules: tuple[str, ...]) -> bool:
    trial = [PYTHON, "-c", f"import {', '.join(modules)}"]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


def _ours(port: int) -> list[str]:
    options = ["--bind", f"127.0.0.1:{port}", "-i", str(WORKERS), "--no-access-log"]
    return rrdispatch_command("run", APP, *options, "--probation", "0.2", "--max-restarts", "0")


def _gunicorn(kind: str) -> Callable[[int], list[str]]:
    def command(port: int) -> list[str]:
        options = ["-k", kind, "--workers", str(WORKERS), "--bind", f"127.0.0.1:{port}"]
        return [PYTHON, "-m", "gunicorn", APP, *options, "--log-level", "warning"]

    return command


def _uvicorn(port: int) -> list[str]:
    options = ["--workers", str(WORKERS), "--port", str(port), "--log-level", "warning"]
    return [PYTHON, "-m", "uvicorn", APP, *options, "--no-access-log"]


def _granian(port: int) -> list[str]:
    options = ["--interface", "asgi", "--workers", str(WORKERS), "--port", str(port)]
    return [PYTHON, "-m", "granian", APP, *options, "--respawn-failed-workers"]


def _node(port: int) -> list[str]:
    return ["node", str(SCRIPT), str(port), str(WORKERS)]


PEERS = (
    Peer("rrdispatch", _ours),
    Peer(
        "gunicorn asgi", _gunicorn("asgi"), ("gunicorn.workers.gasgi",), "",
        "pip install gunicorn (25 or later)",
    ),
    Peer(
        "gunicorn + uvicorn-worker", _gunicorn("uvicorn_worker.UvicornWorker"),
        ("gunicorn", "uvicorn_worker"), "", "pip install uvicorn-worker",
    ),
    Peer("uvicorn --workers", _uvicorn, ("uvicorn",), "", "pip install uvicorn"),
    Peer("granian", _granian, ("granian",), "", "pip install granian"),
    Peer("Node cluster", _node, (), "node", "install Node.js 18 or later"),
)  # fmt: skip


class Running(Server):
    """One of them, answering; whatever state it gets into, its end is ours."""

    def __init__(self, peer: Peer, directory: Path) -> None:
        port = free_port()  # not all of them tell which one they got for port 0
        self.address = f"127.0.0.1:{port}"
        self._seen: set[int] = set()  # pids of workers
        super().__init__(peer.command(port), cwd=directory)
        try:
            wait_until(self._listens, 60.0, f"{peer.name} listens")
            wait_until(self._all_answer, 60.0, f"all workers of {peer.name} answer")
        except BaseException:
            self.close()
            raise

    def _listens(self) -> bool:
        if self.popen.poll() is not None:
            raise RuntimeError(f"it ended:\n{self.output.text()}")
        host, _, port = self.address.rpartition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def _all_answer(self) -> bool:
        tally = run_load(Plan(self.address, count=100, path="/sleep/10", timeout=5.0))
        self._seen |= {record.pid for record in tally.ok}
        return len(self._seen) >= WORKERS

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.processes()
        if self.popen.poll() is None:
            self.send_signal(signal.SIGTERM)
            try:
                self.wait(10.0)
            except TimeoutError:
                pass  # it is killed now
        self.close()
