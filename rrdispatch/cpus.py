"""How many cores this process may really use, and how many workers that makes.

Four facts are read: logical cores, physical cores, this process' affinity, the CPU quota of its
cgroup (v1 and v2). ``max`` is the least of affinity, quota (rounded up) and logical. Files are
read below a root that the caller may choose, so that a tree of files can stand for a machine.
Nothing here knows what a worker is or does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rrdispatch.checks import MOST_WORKERS, check_instances
from rrdispatch.errors import ConfigError
from rrdispatch.options import Wrong


@dataclass(frozen=True)
class Cpus:
    """The facts. ``physical`` and ``quota`` (cores, maybe 1.5) are None where nothing is said."""

    logical: int
    physical: int | None
    affinity: int
    quota: float | None

    @property
    def usable(self) -> int:
        """What ``max`` means."""
        limit = math.ceil(self.quota) if self.quota is not None else self.logical
        return max(1, min(self.logical, self.affinity, limit))

    @property
    def limit(self) -> str:
        """Which of the facts makes ``usable`` smaller than logical; empty if none does."""
        if self.usable >= self.logical:
            return ""
        if self.quota is not None and math.ceil(self.quota) < self.affinity:
            return f"cgroup quota of {self.quota:g}"
        return "affinity"

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "max": self.usable, "limit": self.limit or None}


@dataclass(frozen=True)
class Count:
    """A number of workers and the reason for it, for people."""

    workers: int
    why: str

    def __str__(self) -> str:
        plural = "worker" if self.workers == 1 else "workers"
        return f"{self.workers} {plural}: {self.why}"


def detect(root: Path = Path("/")) -> Cpus:
    """The facts about this process on this machine."""
    import psutil

    logical = psutil.cpu_count(logical=True) or os.cpu_count() or 1
    return Cpus(
        logical=logical,
        physical=psutil.cpu_count(logical=False),
        affinity=len(os.sched_getaffinity(0)),
        quota=quota(root),
    )


def count(instances: str, cpus: Cpus, source: str = "") -> Count:
    """The workers that ``N``, ``max``, ``physical`` or ``-K`` stands for on these cores."""
    try:
        wanted = check_instances(instances)
    except Wrong as wrong:
        raise ConfigError(f"{source or 'instances'}: {wrong}", hint=wrong.hint) from None
    said = f" ({source})" if source else ""
    if wanted == "max":
        return _capped(cpus.usable, _reason(cpus) + said)
    if wanted == "physical":
        return _capped(*_physical(cpus, said))
    number = int(wanted)
    if number < 0:
        fewer = cpus.usable + number
        least = ", but at least 1" if fewer < 1 else ""
        return _capped(max(1, fewer), f"{-number} fewer than max ({_reason(cpus)}){least}{said}")
    return Count(number, f"as asked{said}; max is {cpus.usable} ({_reason(cpus)})")


def _physical(cpus: Cpus, said: str) -> tuple[int, str]:
    if cpus.physical is None:
        return cpus.usable, f"physical cores are not known here, so max: {_reason(cpus)}{said}"
    if cpus.physical > cpus.usable:
        return cpus.usable, f"{cpus.physical} physical cores, but {_reason(cpus)}{said}"
    if cpus.physical == cpus.logical:
        return cpus.physical, f"every core is a physical one{said}"
    return cpus.physical, f"physical cores, with {cpus.logical} hardware threads{said}"


def _capped(workers: int, why: str) -> Count:
    if workers > MOST_WORKERS:
        return Count(MOST_WORKERS, f"the most there can be; {why}")
    return Count(workers, why)


def _reason(cpus: Cpus) -> str:
    if not cpus.limit:
        return f"all {cpus.logical} cores" if cpus.logical > 1 else "the one core"
    return f"{cpus.usable} of {cpus.logical} cores by {cpus.limit}"


def quota(root: Path = Path("/")) -> float | None:
    """The smallest CPU quota, in cores, of this process' cgroup and those above it."""
    found = [*_quotas_v2(root), *_quotas_v1(root)]
    return min(found) if found else None


@dataclass(frozen=True)
class _Mount:
    """A cgroup file system: which part of the hierarchy it shows, and where."""

    shown: str
    point: str


def _quotas_v2(root: Path) -> Iterator[float]:
    path = _own_path(root, controller="")
    for mount in _mounts(root, "cgroup2", controller=""):
        for folder in _upwards(root, mount, path):
            words = _words(folder / "cpu.max")
            if len(words) == 2:
                yield from _ratio(words[0], words[1])


def _quotas_v1(root: Path) -> Iterator[float]:
    path = _own_path(root, controller="cpu")
    for mount in _mounts(root, "cgroup", controller="cpu"):
        for folder in _upwards(root, mount, path):
            limit, period = (
                _words(folder / "cpu.cfs_quota_us"),
                _words(folder / "cpu.cfs_period_us"),
            )
            if len(limit) == len(period) == 1:
                yield from _ratio(limit[0], period[0])


def _ratio(limit: str, period: str) -> Iterator[float]:
    """``150000 100000`` is 1.5 cores; ``max`` and -1 are no limit."""
    if limit.isdigit() and period.isdigit() and int(limit) > 0 and int(period) > 0:
        yield int(limit) / int(period)


def _own_path(root: Path, controller: str) -> str | None:
    """Where in the hierarchy this process is: ``hierarchy:controllers:path`` lines."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(",") if controller else number == "0":
            return path
    return None


def _mounts(root: Path, kind: str, controller: str) -> Iterator[_Mount]:
    """``36 35 0:31 /shown /point options - kind source super,options`` lines."""
    for line in _lines(root / "proc/self/mountinfo"):
        left, dash, right = line.partition(" - ")
        fields, end = left.split(" "), right.split(" ")
        if not dash or len(fields) < 5 or len(end) < 3 or end[0] != kind:
            continue
        if not controller or controller in end[2].split(","):
            yield _Mount(_unescape(fields[3]), _unescape(fields[4]))


def _upwards(root: Path, mount: _Mount, path: str | None) -> Iterator[Path]:
    """The folders from this process' cgroup up to the top of what the mount shows.

    Inside a container the path may lie outside of what is shown (`/../..`, or the host's path
    without a cgroup namespace): then the mount's top is the best that can be read.
    """
    top = root / mount.point.lstrip("/")
    below = _below(path or "/", mount.shown)
    folder = top.joinpath(*below)
    if ".." in below or not folder.is_dir():
        yield top
        return
    yield folder
    for _ in below:
        folder = folder.parent
        yield folder


def _below(path: str, shown: str) -> list[str]:
    own = [part for part in path.split("/") if part]
    above = [part for part in shown.split("/") if part]
    return own[len(above) :] if own[: len(above)] == above else own


def _unescape(text: str) -> str:
    """mountinfo writes blanks and backslashes as octal."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []  # no /proc, or no cgroups: nothing is limited that we could know of


def _words(path: Path) -> list[str]:
    lines = _lines(path)
    return lines[0].split() if lines else []
