"""Who is compared: how each is started, what it needs, how it is told to reload.

Each as its own documentation recommends, with what would hamper one of them removed for all: no
access log, no Nagle, the same event loop and HTTP parser where one can choose. ``PEERS_PYTHON``
names an interpreter that has the other servers, if ours has not.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PYTHON = os.environ.get("PEERS_PYTHON", sys.executable)
ASGI, WSGI = "contender:asgi", "contender:wsgi"
VERSIONS = "from importlib.metadata import version as v; import sys; print(*map(v, sys.argv[1:]))"


@dataclass(frozen=True)
class Place:
    """Where one runs: the directory has the app, the port is free."""

    port: int
    workers: int
    directory: Path


@dataclass(frozen=True)
class Contender:
    """One row of the tables. ``get``: how to install what ``needs`` and ``program`` name."""

    name: str
    command: Callable[[Place], list[str]]
    needs: tuple[str, ...] = ()  # distributions, in the peers' Python
    program: str = ""
    get: str = ""
    reload: str = "HUP"  # a signal, "pm2", or "" for one that cannot
    ours: bool = False
    quick: bool = False
    blocks: bool = False  # one request per worker at a time: slow clients, idle ones and WebSockets
    environment: dict[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def missing(self) -> str:
        """How to get it, if it is not here."""
        if self.program and shutil.which(self.program) is None:
            return self.get
        return self.get if self.needs and not versions(PYTHON, self.needs) else ""

    @property
    def version(self) -> str:
        said = [] if self.missing else [f"{name} {number}" for name, number in self._numbers()]
        return ", ".join(said)

    def _numbers(self) -> list[tuple[str, str]]:
        found = list(zip(self.needs, versions(PYTHON, self.needs).split(), strict=False))
        if self.ours:
            found.insert(0, ("rrdispatch", versions(sys.executable, ("rrdispatch",))))
        if self.program:
            found.append((self.program, program_version(self.program)))
        return found


@cache
def versions(python: str, names: tuple[str, ...]) -> str:
    """With blanks between; nothing if one of them is not installed there."""
    done = _output([python, "-c", VERSIONS, *names])
    return done.stdout.strip() if done.returncode == 0 else ""


def _output(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@cache
def program_version(program: str) -> str:
    done = _output([program, "--version"])
    return (done.stdout.split() or ["?"])[-1].lstrip("v")


def ours(*options: str, app: str = ASGI) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        fixed = ["-b", f"127.0.0.1:{place.port}", "-i", str(place.workers), "--no-access-log"]
        fixed += ["--max-restarts", "0", "--log-level", "warning"]
        return [sys.executable, "-m", "rrdispatch", "run", app, *fixed, *options]

    return command


def over(*program: str) -> Callable[[Place], list[str]]:
    """rrdispatch over a program that knows nothing of it; PORT stands for the port."""

    def command(place: Place) -> list[str]:
        fixed = ["-i", str(place.workers), "--max-restarts", "0", "--log-level", "warning"]
        words = [word.replace("PORT", str(place.port)) for word in program]
        return [sys.executable, "-m", "rrdispatch", "run", *fixed, "--", *words]

    return command


def peer(*program: str) -> Callable[[Place], list[str]]:
    """PORT and WORKERS stand for theirs."""

    def command(place: Place) -> list[str]:
        return [
            word.replace("PORT", str(place.port)).replace("WORKERS", str(place.workers))
            for word in program
        ]

    return command


def gunicorn(kind: str, app: str, *options: str) -> tuple[str, ...]:
    bind = ("--bind", "127.0.0.1:PORT", "--log-level", "warning", "--no-control-socket")
    return (PYTHON, "-m", "gunicorn", app, "-k", kind, *bind, *options)


UVICORN = ("--port", "PORT", "--log-level", "warning", "--no-access-log")
GRANIAN = ("granian", ASGI, "--interface", "asgi", "--port", "PORT", "--log-level", "warning")
ALL_UVICORN, ALL_GUNICORN = ("uvicorn", "uvloop", "httptools"), ("gunicorn",)
GET_UVICORN = "pip install 'uvicorn[standard]'"
GET_NODE = "install Node.js 18 or later"

CONTENDERS = (
    Contender("rrdispatch", ours(), ours=True, quick=True),
    Contender("rrdispatch, Python dispatcher", ours("--dispatcher", "python"), ours=True),
    Contender("rrdispatch, strict", ours("--policy", "strict"), ours=True),
    Contender(
        "rrdispatch, least-connections", ours("--policy", "least-connections"), ours=True
    ),
    Contender("rrdispatch, WSGI", ours(app=WSGI), ours=True),
    Contender(
        "rrdispatch over uvicorn", over(PYTHON, "-m", "uvicorn", ASGI, *UVICORN), ALL_UVICORN,
        get=GET_UVICORN, ours=True, quick=True,
    ),
    Contender(
        "rrdispatch over gunicorn sync", over(*gunicorn("sync", WSGI, "--workers", "1")),
        ALL_GUNICORN, get="pip install gunicorn", ours=True, blocks=True,
    ),
    Contender(
        "rrdispatch over granian", over(PYTHON, "-m", *GRANIAN, "--workers", "1"), ("granian",),
        get="pip install granian", ours=True,
    ),
    Contender(
        "rrdispatch over node", over("node", "contender.js", "PORT"), program="node",
        get=GET_NODE, ours=True,
    ),
    Contender(
        "uvicorn --workers",
        peer(PYTHON, "uvicorn_nodelay.py", ASGI, "--workers", "WORKERS", *UVICORN), ALL_UVICORN,
        get=GET_UVICORN, quick=True,
        note="with TCP_NODELAY set on its shared socket, which it leaves unset itself",
    ),
    Contender(
        "gunicorn sync", peer(*gunicorn("sync", WSGI, "--workers", "WORKERS")), ALL_GUNICORN,
        get="pip install gunicorn", blocks=True,
    ),
    Contender(
        "gunicorn gthread",
        peer(*gunicorn("gthread", WSGI, "--workers", "WORKERS", "--threads", "4",
                       "--worker-connections", "5000")),
        ALL_GUNICORN, get="pip install gunicorn",
        note="may hold 5000 connections per worker: it stops at 1000 by default",
    ),
    Contender(
        "gunicorn asgi", peer(*gunicorn("asgi", ASGI, "--workers", "WORKERS")), ALL_GUNICORN,
        get="pip install 'gunicorn>=25'", quick=True,
    ),
    Contender(
        "gunicorn + uvicorn-worker",
        peer(*gunicorn("uvicorn_worker.UvicornWorker", ASGI, "--workers", "WORKERS")),
        ("gunicorn", "uvicorn_worker", *ALL_UVICORN), get="pip install uvicorn-worker",
    ),
    Contender(
        "granian",
        peer(PYTHON, "-m", *GRANIAN, "--workers", "WORKERS", "--respawn-failed-workers",
             "--backlog", "4096", "--backpressure", "5000"),
        ("granian",), get="pip install granian", quick=True,
        note="may hold 5000 connections per worker: it stops at backlog by workers by default",
    ),
    Contender(
        "hypercorn",
        peer(PYTHON, "-m", "hypercorn", ASGI, "--workers", "WORKERS", "--bind", "127.0.0.1:PORT",
             "--worker-class", "uvloop"),
        ("hypercorn", "uvloop"), get="pip install hypercorn uvloop", reload="",
    ),
    Contender(
        "uvicorn, shared listener", peer(PYTHON, "baseline.py", "shared", "PORT", "WORKERS"),
        ALL_UVICORN, get=GET_UVICORN, reload="",
        note="processes that accept from one socket: apps/baseline.py",
    ),
    Contender(
        "uvicorn, SO_REUSEPORT", peer(PYTHON, "baseline.py", "reuseport", "PORT", "WORKERS"),
        ALL_UVICORN, get=GET_UVICORN, reload="", quick=True,
        note="processes with a listening socket each: apps/baseline.py",
    ),
    Contender(
        "uvicorn, naive turns", peer(PYTHON, "naive.py", "PORT", "WORKERS"), ALL_UVICORN,
        get=GET_UVICORN, reload="",
        note="accept, send_fds to the next, close, in Python: apps/naive.py",
    ),
    Contender(
        "Node cluster", peer("node", "contender.js", "PORT", "WORKERS"), program="node",
        get=GET_NODE, quick=True, note="the reload is ours, as pm2 does it",
    ),
    Contender(
        "pm2 -i", peer("pm2-runtime", "start", "contender.js", "-i", "WORKERS"),
        program="pm2-runtime", get="npm install -g pm2", reload="pm2",
    ),
)  # fmt: skip


def chosen(only: list[str], quick: bool) -> list[Contender]:
    """By parts of their names; else all, or those of the quick run."""
    if only:
        exact = [each for each in CONTENDERS if each.name in only]
        rest = [part for part in only if part not in {each.name for each in exact}]
        found = [c for c in CONTENDERS if c in exact or any(part in c.name for part in rest)]
        if not found:
            raise LookupError(f"no contender's name has {' or '.join(only)}")
        return found
    return [each for each in CONTENDERS if each.quick or not quick]
