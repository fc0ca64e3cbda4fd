"""How busy others kept the machine while something was measured on it. Linux only."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
MOST = 0.1  # of one core: what the rest of a quiet machine takes now and then


class Foreign:
    """CPU seconds of everybody but this process, its children and those that ``pids`` names."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._began = time.monotonic()
        self._before = self._others()

    def share(self) -> float:
        """Of one core, on the average since the beginning."""
        return (self._others() - self._before) / (time.monotonic() - self._began)

    def calm(self) -> bool:
        return self.share() <= MOST

    def _others(self) -> float:
        own = sum(os.times()[:4])
        return _busy() - own - sum(map(_used, self._pids()))


def _busy() -> float:
    """user, nice, system and steal; what interrupts take is mostly our own connections."""
    numbers = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    return sum(int(numbers[which]) for which in (0, 1, 2, 7)) / TICK


def _used(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    return sum(map(int, stat.rpartition(")")[2].split()[11:13])) / TICK
