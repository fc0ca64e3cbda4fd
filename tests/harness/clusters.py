"""An embedded `rrdispatch.Cluster` over the probe app, for its stats and its reload."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rrdispatch import Cluster
from tests.harness import processes
from tests.harness.processes import Process
from tests.harness.servers import APPS


@contextmanager
def cluster(target: str, *, cwd: Path = APPS, **settings: Any) -> Iterator[Cluster]:
    """A started cluster on a free port; afterwards no process of it is left."""
    settings.setdefault("bind", "127.0.0.1:0")
    settings.setdefault("workers", 4)
    with Cluster(target, cwd=str(cwd), **settings) as running:
        try:
            yield running
        finally:
            known = family(running)
    left = processes.wait_gone(known, 5.0)
    assert not left, f"left behind: {[processes.command(each.pid) for each in left]}"


def family(running: Cluster) -> list[Process]:
    """The primary and every process below it."""
    root = processes.process(running.stats()["primary_pid"])
    return [] if root is None else [root, *processes.descendants(root.pid)]


def address(running: Cluster, index: int = 0) -> str:
    """Where a listener of it listens, as a load plan wants it."""
    return str(running.stats()["listeners"][index]["address"])


def worker_pids(running: Cluster) -> dict[int, int]:
    """Pids of its serving workers by slot."""
    rows = running.stats()["workers"]
    return {row["slot"]: row["pid"] for row in rows if row["state"] == "ready"}


def own_fds() -> int:
    """Descriptors of the test's own process."""
    return len(os.listdir("/proc/self/fd"))
