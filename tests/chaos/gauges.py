"""What a process uses while a scenario runs: CPU time, memory, descriptors. Only looks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness import processes
from tests.harness.records import quantile


def cpu_seconds(pid: int) -> float:
    """CPU time so far, to the nanosecond, of its main thread (our processes have no others)."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def lowest_free(pid: int) -> int:
    """As RLIMIT_NOFILE, it leaves the process what it has and not one descriptor more."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return next(number for number in range(len(used) + 1) if number not in used)


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def grown(values: list[float]) -> float:
    """By how much the median of the last third is above that of the first."""
    third = max(1, len(values) // 3)
    return quantile(values[-third:], 0.5) - quantile(values[:third], 0.5)


class Usage:
    """CPU use of a process since a moment, as a share of one core."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.began = time.monotonic()
        self.before = cpu_seconds(pid)

    def share(self) -> float:
        return (cpu_seconds(self.pid) - self.before) / (time.monotonic() - self.began)


@dataclass
class Samples:
    """What was seen of a process, in the order of time."""

    rss: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # share of a core, since the last look
    seen: list[float] = field(default_factory=list)  # of what the scenario measures itself


@contextmanager
def watching(
    pid: int, measure: Callable[[], float] | None = None, every: float = 0.1
) -> Iterator[Samples]:
    """Looks at a process in a thread for as long as the block runs."""
    samples = Samples()
    over = threading.Event()

    def look() -> None:
        usage = Usage(pid)
        while not over.wait(every):
            samples.rss.append(processes.memory(pid).rss)
            samples.cpu.append(usage.share())
            usage = Usage(pid)
            if measure is not None:
                samples.seen.append(measure())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()
