"""A cluster under load that a scenario may ill-treat, and what became of every connection.

Shared by scenarios. Owns the cluster, its events and its ledger; judges what every scenario
demands: each connection is accounted for on both sides, nothing that waited is lost, no client
hangs.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrdispatch import Cluster
from tests.chaos.kit import Result, Run
from tests.chaos.oracle import Ledger, Life, State, Verdict
from tests.harness import processes
from tests.harness.clusters import address, cluster, worker_pids
from tests.harness.load import Load
from tests.harness.records import (
    EOF,
    REFUSED,
    RESET,
    STATUS,
    TIMEOUT,
    Plan,
    Record,
    Tally,
    quantile,
)
from tests.harness.servers import wait_until

HANGS = "0 clients hang"
IN_HAND = ("lost in hand", "lost in the take")
IN_DISPATCHER, UNNOTED = "lost in the dispatcher", "lost as it was accepted"
BOTH_SIDES = "each client's end agrees with the ledger"
CLIENTS = 48
HANG = 30.0  # seconds until a request counts as hanging
SERVED_WITHIN = 30.0

_numbers = itertools.count()


def length(run: Run, short: float, full: float) -> float:
    """Seconds or rounds; half of the short ones do for a mutant."""
    return short / 2 if run.mutant else run.size(short, full)


def new_ledger(run: Run) -> Ledger:
    return Ledger(Path(run.tmp) / f"ledger-{next(_numbers)}")


@dataclass
class Target:
    """A running cluster, its ledger, and what it told."""

    running: Cluster
    ledger: Ledger
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

    def wait_told(self, name: str, number: int, timeout: float = 30.0) -> None:
        wait_until(lambda: len(self.told(name)) >= number, timeout, f"{number} times {name}")

    def crowd(self, path: str = "/sleep/10") -> Load:
        """48 clients that each ask again at once: more than workers can do, so that some wait."""
        plan = Plan(self.address, "closed", concurrency=CLIENTS, path=path, timeout=HANG)
        return Load(plan)

    def verdict(self) -> Verdict:
        """After the cluster's end: what became of everything."""
        return self.ledger.judge(ended=True)


@contextmanager
def target(run: Run, app: str, **settings: Any) -> Iterator[Target]:
    """Started with what the chaos tests need; afterwards no process of it is left."""
    ledger = new_ledger(run)
    events: list[dict[str, Any]] = []
    wanted = {"threads": 1, "max_restarts": 0, "probation": 0.2, "access_log": False} | settings
    service = cluster(app, dispatcher=run.dispatcher, on_event=events.append, **wanted)
    with environ(ledger.env):
        running = service.__enter__()
    try:
        yield Target(running, ledger, events)
    except BaseException as error:
        service.__exit__(type(error), error, error.__traceback__)
        raise
    service.__exit__(None, None, None)


@contextmanager
def environ(more: dict[str, str]) -> Iterator[None]:
    """For the processes that are started in the block."""
    os.environ.update(more)
    try:
        yield
    finally:
        for name in more:
            os.environ.pop(name, None)


class Ticks:
    """Moments in a fixed distance; one that came too late is skipped, and that is counted."""

    def __init__(self, every: float, seconds: float) -> None:
        self.every = every
        self.end = time.monotonic() + seconds
        self.missed = 0

    def __iter__(self) -> Iterator[float]:
        due = time.monotonic()
        while due < self.end:
            pause(due - time.monotonic())
            yield due
            due += self.every
            while due < time.monotonic():
                due += self.every
                self.missed += 1


def pause(seconds: float) -> None:
    """The pace of the trouble, never a synchronisation."""
    threading.Event().wait(max(0.0, seconds))


# ---- the account ---------------------------------------------------------------------------------


@dataclass
class Account:
    """Both sides of every connection of a load that has ended: what the clients saw, and where the
    ledger has it.
    """

    tally: Tally
    verdict: Verdict
    lost: Counter[str] = field(default_factory=Counter)  # failed requests by class of the ledger
    inside: Counter[int] = field(default_factory=Counter)  # by worker: what died with it
    wrong: list[str] = field(default_factory=list)

    @property
    def in_dispatcher(self) -> int:
        """Between accept and send."""
        return self.lost[IN_DISPATCHER] + self.lost[UNNOTED]

    @property
    def in_hand(self) -> int:
        return sum(self.lost[name] for name in IN_HAND)

    def add(self, record: Record) -> None:
        life = self.verdict.find(record)
        if record.ok:
            # Its worker may have died after the answer and before its close.
            if life is None or (life.state is not State.DONE and not life.lost):
                self.wrong.append(f"answered, but {_where(life)}: {record}")
        elif life is None and record.outcome in (RESET, EOF):
            # Between accept4 and the note of it; only a dispatcher's death can do that.
            self.lost[UNNOTED] += 1
        elif life is None or not life.lost:
            self.wrong.append(f"failed, but {_where(life)}: {record}")
        else:
            self.lost[life.lost] += 1
            if life.lost in IN_HAND:
                self.inside[life.worker] += 1


def _where(life: Life | None) -> str:
    if life is None:
        return "never accepted"
    return f"{life.state.value} by worker {life.worker}, {life.lost or 'not lost'}"


def account(tally: Tally, verdict: Verdict) -> Account:
    found = Account(tally, verdict)
    for record in tally.records:
        found.add(record)
    return found


def judge(
    result: Result,
    tally: Tally,
    verdict: Verdict,
    told: Iterable[dict[str, Any]] = (),
    dispatchers: int = 0,
) -> Account:
    """What holds in every scenario, whatever was killed; ``dispatchers``: so many were.

    ``told``: the ``removed`` events.
    """
    outcomes = tally.outcomes()
    found = account(tally, verdict)
    result.counts |= {
        "requests": len(tally.records),
        "failed": len(tally.failed),
        "rescued": verdict.rescued,
        "lost in hand": found.in_hand,
        "lost queued": verdict.lost_queued,
        "hangs": outcomes[TIMEOUT],
    }
    if found.wrong:
        result.counts["disagreements"] = f"{len(found.wrong)}, as {found.wrong[0]}"
    verdict.check(result, told)
    result.check(BOTH_SIDES, not found.wrong and found.lost[UNNOTED] <= dispatchers)
    result.check(HANGS, not outcomes[TIMEOUT])
    result.check("0 refused", not outcomes[REFUSED])
    result.check("0 wrong answers", not outcomes[STATUS])
    return found


def latency(result: Result, tally: Tally) -> None:
    values = [each.latency_ms for each in tally.ok]
    result.counts["p50 ms"] = quantile(values, 0.5)
    result.counts["p99 ms"] = quantile(values, 0.99)
    result.counts["max ms"] = max(values, default=0.0)
