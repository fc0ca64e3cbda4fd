"""An embedded `rrdispatch.Cluster` over the probe app, for its stats and its reload."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrdispatch import Cluster
from tests.harness import processes
from tests.harness.journal import Journal
from tests.harness.processes import Process
from tests.harness.records import Record, Tally
from tests.harness.servers import APPS, wait_until


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
    left = processes.wait_gone(known, 60.0)
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


@dataclass(frozen=True)
class Proof:
    """Where each failed request was.

    A worker writes a take down a few microseconds after it, so one that was killed in between took
    a connection that no journal has: what was accepted and is in no journal says how many.
    """

    held: dict[int, int]  # number of the request: pid of the worker that wrote down that it had it
    unwritten: int  # connections that were accepted and taken, and that no journal has
    others: list[Record]  # failed, in no journal

    @property
    def complete(self) -> bool:
        return len(self.others) == self.unwritten

    def __str__(self) -> str:
        killed = f"{len(self.held)} inside a killed worker"
        return f"{killed}, {self.unwritten} taken in its last moment" if self.unwritten else killed


def prove(running: Cluster, journal: Journal, tally: Tally) -> Proof:
    """Account for every connection of a cluster that served only this load; all have ended."""
    # A dispatcher that has no core for a second tells its numbers later.
    wait_until(lambda: running.stats()["accepted"] >= len(tally.records), 60.0)
    stats = running.stats()
    assert stats["lost"] == 0
    assert stats["accepted"] == len(tally.records), (stats["accepted"], len(tally.records))
    held, others = journal.inside(tally.failed)
    return Proof(held, stats["accepted"] - journal.taken(), others)


def own_fds() -> int:
    """Descriptors of the test's own process."""
    return len(os.listdir("/proc/self/fd"))
