"""Would a second generation fit? What the cgroup still gives, and what a worker takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NO_LIMIT = 1 << 60  # cgroup v1 writes a huge number for "none"
RESERVE = 0.05  # of the limit, for everything else


@dataclass(frozen=True, slots=True)
class Memory:
    """One cgroup's limit and use, in bytes."""

    limit: int
    used: int

    @property
    def free(self) -> int:
        return max(0, int(self.limit * (1 - RESERVE)) - self.used)


def available(root: Path = Path("/")) -> Memory | None:
    """The tightest memory limit that this process is under; None if there is none."""
    found = [memory for memory in _limits(root) if memory is not None]
    return min(found, key=lambda memory: memory.free, default=None)


def _limits(root: Path) -> Iterable[Memory | None]:
    for line in content(root / "proc/self/cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            for top in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
                yield from _v2(root / top, path)
        elif "memory" in controllers.split(","):
            yield from _v1(root / "sys/fs/cgroup/memory", path)


def _v2(top: Path, path: str) -> Iterable[Memory | None]:
    for folder in upwards(top, path):
        limit = _number(folder / "memory.max")
        used = _number(folder / "memory.current")
        yield _memory(limit, used, counted(folder / "memory.stat", "inactive_file"))


def _v1(top: Path, path: str) -> Iterable[Memory | None]:
    for folder in upwards(top, path):
        limit = _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.usage_in_bytes")
        yield _memory(limit, used, counted(folder / "memory.stat", "total_inactive_file"))


def _memory(limit: int | None, used: int | None, cache: int) -> Memory | None:
    if limit is None or used is None or limit > NO_LIMIT:
        return None
    return Memory(limit, max(0, used - cache))  # the kernel gives that cache back when it is needed


def upwards(top: Path, path: str) -> Iterable[Path]:
    """The group's folder and those above it; only the top where a container shows no more."""
    folder = top.joinpath(*[part for part in path.split("/") if part not in ("", "..")])
    while folder != top and folder.is_dir():
        yield folder
        folder = folder.parent
    yield top


def would_not_fit(pids: Iterable[int], count: int) -> str:
    """Why ``count`` more workers like these would exceed the memory limit; empty if not."""
    found, each = available(), max(map(pss, pids), default=0)
    if found is None or each * count <= found.free:
        return ""
    need = f"{count} more workers need about {each * count >> 20} MiB"
    return f"{need}, and the memory limit leaves {found.free >> 20} MiB"


def pss(pid: int) -> int:
    """Bytes that a process takes, its shared pages divided among those who share them."""
    for line in content(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def counted(path: Path, key: str) -> int:
    """The number after ``key`` in a file of such lines."""
    for line in content(path).splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = content(path).strip()
    return int(text) if text.isdigit() else None


def content(path: Path) -> str:
    """Of a file of the kernel; nothing if it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
