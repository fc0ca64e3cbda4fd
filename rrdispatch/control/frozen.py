"""A primary that answers nobody: stopped, held by a debugger, or wedged. Who it is, its lock tells.

Owns nothing. The lock is held by the primary and its dispatcher, never by a worker (statedir.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from rrdispatch.control import statedir
from rrdispatch.net.listeners import DISPATCHERS

PROC = Path("/proc")
STOPPED = ("T", "t")  # by a signal, by a debugger: proc(5)


def wake(name: str) -> None:
    """Whoever was stopped goes on, and does what it was asked to."""
    for pid in holders(name):
        _signal(pid, signal.SIGCONT)


def end(name: str) -> None:
    """Kills the primary. Its dispatcher starts an heir, which is asked instead; where no dispatcher
    could, the workers are its children, and nobody would be left to end those that hang.
    """
    found = holders(name)
    primaries = [pid for pid in found if not _is_dispatcher(pid)]
    alone = primaries == found
    children = [child for pid in primaries for child in _children(pid)] if alone else []
    workers = [pid for pid in children if _leads(pid) and not _is_dispatcher(pid)]
    for pid in primaries:
        _signal(pid, signal.SIGKILL)
    for pid in workers:
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


def remedies(name: str) -> Iterator[None]:
    """For one that does not answer: each step does more. Who is held will not answer later either;
    who is slow may.
    """
    if not any(_state(pid) in STOPPED for pid in holders(name)):
        wake(name)
        yield
    end(name)
    yield


def holders(name: str) -> list[int]:
    """Processes that hold the app's lock, as far as we may look."""
    try:
        lock = os.stat(statedir.home() / name / statedir.LOCK)
    except OSError:
        return []
    mine = [entry for entry in PROC.iterdir() if entry.name.isdigit()]
    return sorted(int(entry.name) for entry in mine if _holds(entry, lock))


def _holds(process: Path, lock: os.stat_result) -> bool:
    """By the very description that is locked: who waits for the lock has the file open, too."""
    try:
        fds = list((process / "fd").iterdir())
    except OSError:
        return False  # gone, or somebody else's
    return any(_is_locked(process, fd, lock) for fd in fds)


def _is_locked(process: Path, fd: Path, lock: os.stat_result) -> bool:
    try:
        if not os.path.samestat(os.stat(fd), lock):
            return False
        return "\nlock:" in (process / "fdinfo" / fd.name).read_text()
    except OSError:
        return False


def _is_dispatcher(pid: int) -> bool:
    try:
        told = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False
    return os.fsdecode(told).rstrip("\0").endswith(DISPATCHERS)


def _state(pid: int) -> str:
    try:
        return (PROC / str(pid) / "stat").read_bytes().rpartition(b") ")[2][:1].decode()
    except OSError:
        return ""


def _children(pid: int) -> Iterator[int]:
    for task in (PROC / str(pid) / "task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, task.read_text().split())


def _leads(pid: int) -> bool:
    """Its group; False if it is gone."""
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def _signal(pid: int, signum: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signum)
