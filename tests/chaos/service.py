"""A cluster under load that a scenario may ill-treat, and what became of every connection.

Shared by the scenarios about workers and dispatchers. Owns the cluster, its events and journal;
judges only what every scenario demands: nothing that waited is lost, and no client hangs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrdispatch import Cluster
from tests.chaos.kit import Result, Run
from tests.harness import processes
from tests.harness.clusters import address, cluster, worker_pids
from tests.harness.journal import Journal
from tests.harness.records import TIMEOUT, Record, Tally, quantile
from tests.harness.servers import wait_until

QUEUED = "0 lost that nobody had taken"
HANGS = "0 clients hang"
HANG = 10.0  # seconds until a request counts as hanging
SERVED_WITHIN = 30.0


@dataclass
class Target:
    """A running cluster, its journal, and what it told."""

    running: Cluster
    journal: Journal
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return address(self.running)

    def serving(self) -> dict[int, int]:
        """Pids of ready workers by slot."""
        return worker_pids(self.running)

    def told(self, name: str) -> list[dict[str, Any]]:
        return [event for event in list(self.events) if event["event"] == name]

    def pids(self, state: str) -> list[int]:
        """Of the workers in a state."""
        rows = self.running.stats()["workers"]
        return [int(row["pid"]) for row in rows if row["state"] == state]

    def kill(self, pids: list[int]) -> int:
        """SIGKILL all of them in one go; how many were still there."""
        there = 0
        for pid in pids:
            with suppress(ProcessLookupError):
                processes.kill(pid)
                there += 1
        return there

    def wait_serving(self, number: int, but: Collection[int] = ()) -> list[int]:
        """Until so many workers serve, none of ``but``; their pids."""

        def there() -> list[int]:
            return [pid for pid in self.serving().values() if pid not in but]

        wait_until(lambda: len(there()) >= number, SERVED_WITHIN, f"{number} workers serve")
        return there()

    def rescued(self) -> int:
        """Connections that waited at a worker when it died, and were given to others."""
        return sum(int(event["rescued"]) for event in self.told("removed"))


@contextmanager
def target(run: Run, app: str, **settings: Any) -> Iterator[Target]:
    """Started with what the chaos tests need; afterwards no process of it is left."""
    directory = Path(run.tmp) / "journal"
    directory.mkdir(exist_ok=True)
    journal = Journal(directory)
    events: list[dict[str, Any]] = []
    wanted = {"threads": 1, "max_restarts": 0, "probation": 0.2, "access_log": False} | settings
    env = journal.env | wanted.pop("env", {})
    with cluster(
        app, dispatcher=run.dispatcher, env=env, on_event=events.append, **wanted
    ) as running:
        yield Target(running, journal, events)


class Ticks:
    """Moments in a fixed distance; one that came too late is skipped, and that is counted."""

    def __init__(self, every: float, seconds: float) -> None:
        self.every = every
        self.end = time.monotonic() + seconds
        self.missed = 0
        self._pause = threading.Event()  # never set: the pace of the trouble, not a synchronisation

    def __iter__(self) -> Iterator[float]:
        due = time.monotonic()
        while due < self.end:
            self._pause.wait(max(0.0, due - time.monotonic()))
            yield due
            due += self.every
            while due < time.monotonic():
                due += self.every
                self.missed += 1


@dataclass(frozen=True)
class Losses:
    """Where each failed request was."""

    held: dict[int, int]  # number of the request: pid of the worker that had taken it
    last_moment: int  # taken by a worker that died before it could write that down
    queued: list[Record]  # nobody had taken it

    @property
    def in_hand(self) -> int:
        return len(self.held) + self.last_moment


def losses(it: Target, tally: Tally) -> Losses:
    """Of a load that has ended, the only one of its cluster.

    A worker writes a take down some microseconds after it. What was accepted, is in no journal and
    was in no queue that the dispatcher gave up, was taken in such a last moment.
    """
    held, others = it.journal.inside(tally.failed)
    stats = it.running.stats()
    unwritten = int(stats["accepted"]) - int(stats["lost"]) - it.journal.taken()
    last = min(len(others), max(0, unwritten))
    return Losses(held, last, others[last:])


def judge(result: Result, tally: Tally, lost: Losses) -> None:
    """What holds in every scenario, whatever was killed."""
    outcomes = tally.outcomes()
    result.counts["requests"] = len(tally.records)
    result.counts["failed"] = len(tally.failed)
    result.counts["lost in hand"] = lost.in_hand
    result.counts["lost queued"] = len(lost.queued)
    result.counts["hangs"] = outcomes[TIMEOUT]
    result.check(QUEUED, not lost.queued)
    result.check(HANGS, not outcomes[TIMEOUT])
    result.check("0 refused", not outcomes["refused"])
    result.check("0 wrong answers", not outcomes["status"])


def latency(result: Result, tally: Tally) -> None:
    values = [each.latency_ms for each in tally.ok]
    result.counts["p50 ms"] = quantile(values, 0.5)
    result.counts["p99 ms"] = quantile(values, 0.99)
    result.counts["max ms"] = max(values, default=0.0)
