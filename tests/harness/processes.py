"""What ``/proc`` says about processes: who descends from whom, which fds they hold, their memory.

A process is known by pid *and* start time, so that a recycled pid is never taken for it. This
module only looks; the one thing it does to a process is `kill`, through a pidfd.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, order=True)
class Process:
    """One process in the life of the machine."""

    pid: int
    started: int

    def alive(self) -> bool:
        """Running or stopped: not ended, and not a zombie."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] not in "ZX"

    def present(self) -> bool:
        """Still in the process table, be it as a zombie."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.started


def _stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/PID/stat`` from the state on (the name may hold blanks)."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def process(pid: int) -> Process | None:
    """The process that has this pid now."""
    fields = _stat(pid)
    return None if fields is None else Process(pid, int(fields[19]))


def state(pid: int) -> str:
    """The kernel's letter for its state (R, S, T, Z...), or an empty string if it is gone."""
    fields = _stat(pid)
    return "" if fields is None else fields[0]


def descendants(root: int) -> list[Process]:
    """Every process below ``root``, itself not included."""
    children: dict[int, list[Process]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields is not None:
                found = Process(int(entry.name), int(fields[19]))
                children.setdefault(int(fields[1]), []).append(found)
    result: list[Process] = []
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), []):
            result.append(child)
            waiting.append(child.pid)
    return sorted(result)


def environment(pid: int) -> dict[str, str]:
    """What the process got at exec; empty if it is gone, a zombie, or not ours to read."""
    try:
        raw = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.partition("=") for entry in os.fsdecode(raw).split("\0") if "=" in entry)
    return {name: value for name, _, value in pairs}


def marked(name: str, value: str) -> list[Process]:
    """Every process on the machine that was started with this environment variable."""
    pids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    found = (process(pid) for pid in pids if environment(pid).get(name) == value)
    return sorted(each for each in found if each is not None)


def command(pid: int) -> list[str]:
    """The command line, empty for a zombie."""
    try:
        return os.fsdecode((PROC / str(pid) / "cmdline").read_bytes()).split("\0")[:-1]
    except OSError:
        return []


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    """Signal exactly this process; raises ProcessLookupError if it has ended."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signum)
    finally:
        os.close(pidfd)


def wait_gone(processes: Iterable[Process], timeout: float) -> list[Process]:
    """Wait until all have ended; the ones still alive after ``timeout``."""
    deadline = time.monotonic() + timeout
    for each in processes:
        if each.alive():
            _wait_end(each, deadline)
    return [each for each in processes if each.alive()]


def _wait_end(which: Process, deadline: float) -> None:
    try:
        pidfd = os.pidfd_open(which.pid)
    except ProcessLookupError:
        return
    try:
        if which.alive():
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            poller.poll(max(0.0, deadline - time.monotonic()) * 1000)
    finally:
        os.close(pidfd)


@dataclass(frozen=True)
class Memory:
    """Kilobytes. ``pss`` divides each shared page by the number of processes that map it."""

    rss: int
    pss: int
    private: int


def memory(pid: int) -> Memory:
    """The memory of one process, by ``smaps_rollup``."""
    sizes: Counter[str] = Counter()
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] += int(rest.split()[0])
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return Memory(rss=sizes["Rss"], pss=sizes["Pss"], private=private)
