"""Was a SIGKILL the kernel's, for lack of memory? By the count of such kills in a cgroup.

The kernel raises ``oom_kill`` before it sends the signal: when an end is seen the count has risen.
Nothing else tells it: the signal of an OOM kill is like any other SIGKILL.
"""

from __future__ import annotations

from pathlib import Path

from rrdispatch.cluster.memory import content, counted, upwards

KILLED = "killed by SIGKILL"
VICTIM = f"{KILLED} (out of memory)"
KEY, V1 = "oom_kill", "memory.oom_control"
FILES = {  # of a hierarchy: where it is mounted, and the file that counts
    "v2": [("sys/fs/cgroup", "memory.events"), ("sys/fs/cgroup/unified", "memory.events")],
    "memory": [("sys/fs/cgroup/memory", V1)],
}


class OomKills:
    """Counts per cgroup; each kill that was counted explains one death: of the next to be asked."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._machine = root / "proc/vmstat"
        self._explained = {self._machine: counted(self._machine, KEY)}
        self._known: dict[int, Path] = {}

    def watch(self, pid: int) -> None:
        """A process begins: kills before this moment are not its end."""
        self.place(pid)
        path = self._known[pid]
        self._explained[path] = counted(path, KEY)

    def place(self, pid: int) -> None:
        """Where it is now: it may have moved, and version 1 shows no place of a zombie."""
        path = self._known[pid] = self._file(pid) or self._known.get(pid, self._machine)
        self._explained.setdefault(path, counted(path, KEY))

    def named(self, pid: int, how: str) -> str:
        """``how`` it ended, in the right words; asked once, before it is reaped."""
        known = self._known.pop(pid, self._machine)
        if how != KILLED:
            return how
        path = self._file(pid)
        if path is None or path.name == V1:
            path = known
        explained = self._explained.setdefault(path, 0)  # a group of its own since it began
        if counted(path, KEY) <= explained:
            return how
        self._explained[path] = explained + 1
        return VICTIM

    def _file(self, pid: int) -> Path | None:
        """Where its cgroup counts; a group without the controller is counted by those above."""
        for line in content(self._root / f"proc/{pid}/cgroup").splitlines():
            number, controllers, path = [*line.split(":", 2), "", ""][:3]
            for top, name in FILES.get("v2" if number == "0" else controllers, ()):
                for folder in upwards(self._root / top, path):
                    if f"{KEY} " in content(folder / name):
                        return folder / name
        return None
