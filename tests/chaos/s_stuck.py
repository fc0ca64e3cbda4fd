"""Workers that do not take: stopped, with a blocked loop, or stuck in the kernel."""

from __future__ import annotations

import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.kit import Result, Run, scenario
from tests.chaos.oracle import Verdict
from tests.chaos.service import HANG, Target, judge, pause, target
from tests.harness import processes
from tests.harness.load import Load
from tests.harness.records import Plan, quantile

WORKERS = 4
RATE = 200.0
QUEUED = 20  # connections for a stopped worker
LASTING = 0.4  # seconds that a worker is stuck
STALL_MS = 10.0  # stall_timeout as it is by default
MOVED_P95_MS = STALL_MS + 100
MOVED_MAX_MS = STALL_MS + 1000
APPS = Path(__file__).with_name("apps")


@dataclass(frozen=True)
class Stuck:
    """One worker that did not take from ``since`` to ``until``, in ns."""

    pid: int
    worker: int
    since: int
    until: int


def light(it: Target) -> Load:
    """Less than the workers can do: somebody's queue is always empty."""
    return Load(Plan(it.address, rate=RATE, poisson=True, seed=4, timeout=HANG))


@dataclass(frozen=True)
class Waits:
    """Time from accept to take, in ms."""

    moved: list[float]  # to another worker
    kept: list[float]  # for a stuck worker, until it took them itself
    others: list[float]


def waits(verdict: Verdict, stuck: list[Stuck]) -> Waits:
    found = Waits([], [], [])
    for life in verdict.lives.values():
        waited = (life.taken - life.accepted) / 1e6
        spells = [each for each in stuck if each.pid == life.taker]
        if life.moved:
            found.moved.append(waited)
        elif any(each.since < life.taken and life.accepted < each.until for each in spells):
            found.kept.append(waited)
        else:
            found.others.append(waited)
    return found


def stick(run: Run, app: str, spell: Callable[[Target, dict[str, Any]], Stuck]) -> Result:
    """Workers get stuck by ``spell``, one at a time, under a light load."""
    result, stuck = Result(), []
    choose = random.Random(5)
    with target(run, app, workers=WORKERS) as it, light(it) as load:
        load.wait_more(100)
        for _ in range(int(run.size(12, 100))):
            rows = it.running.stats()["workers"]
            free = [row for row in rows if row["state"] == "ready" and not row["stalled"]]
            stuck.append(spell(it, choose.choice(free)))
            load.wait_more(20)
        tally = load.stop()
    verdict = it.verdict()
    judge(result, tally, verdict)
    result.counts["stuck"] = len(stuck)
    judge_waits(result, waits(verdict, stuck))
    judge_stalls(result, it, stuck)
    result.check("0 failed", not tally.failed)
    return result


def judge_waits(result: Result, found: Waits) -> None:
    waited = [*found.moved, *found.kept]
    undisturbed = quantile(found.others, 0.95)
    p95, most = quantile(waited, 0.95), max(waited, default=0.0)
    result.counts |= {
        "moved": len(found.moved), "stayed": len(found.kept), "waited p95 ms": p95,
        "waited max ms": most, "undisturbed p95 ms": undisturbed,
        "undisturbed max ms": max(found.others, default=0.0),
    }  # fmt: skip
    result.check("something waited and was moved", len(found.moved) > 0)
    result.check("p95 of the moved <= stall_timeout + 100 ms", p95 - undisturbed <= MOVED_P95_MS)
    result.check("max of the moved <= stall_timeout + 1 s", most <= MOVED_MAX_MS)


def judge_stalls(result: Result, it: Target, stuck: list[Stuck]) -> None:
    """A stuck worker is asked by a probe, and given nothing more until it takes that."""
    stalls = Counter(event["worker"] for event in it.told("stalled"))
    mine = sum(stalls[worker] for worker in {each.worker for each in stuck})
    result.counts["stalls per stuck"] = mine / max(1, len(stuck))
    result.check("given nothing more until it takes the probe", mine <= 2 * len(stuck))


def stopped(it: Target, row: dict[str, Any]) -> Stuck:
    """SIGSTOP, and SIGCONT when it was stopped for a while."""
    since = time.monotonic_ns()
    processes.kill(row["pid"], signal.SIGSTOP)
    pause(LASTING)
    until = time.monotonic_ns()
    processes.kill(row["pid"], signal.SIGCONT)
    return Stuck(row["pid"], row["id"], since, until)


@scenario(
    "stop-workers",
    title="SIGSTOP of a worker for 0.4 s, synchronous workers, 200 conn/s",
    target="0 lost, none twice; moved: p95 <= stall_timeout + 100 ms, max <= + 1 s",
    mutant="no-rescue",
)
def stop_workers(run: Run) -> Result:
    return stick(run, "probe:serve", stopped)


class Aim:
    """When to send SIGCONT so that it comes in the middle of the take-back: learned by trying."""

    def __init__(self) -> None:
        self.delay = STALL_MS / 1000 * 5  # an idle worker's patience
        self.step = 0.004
        self.hits = 0  # part of the queue was moved, part was taken by the worker itself

    def learn(self, moved: int) -> None:
        if 0 < moved < QUEUED:
            self.hits += 1
            return
        self.delay = max(0.0, self.delay + (self.step if moved == 0 else -self.step))
        self.step = max(0.0002, self.step * 0.7)

    def spell(self, it: Target, row: dict[str, Any]) -> Stuck:
        """SIGCONT in the midst of the take-back of what was queued for a stopped worker."""
        before = int(it.running.stats()["moved"])
        since = time.monotonic_ns()
        processes.kill(row["pid"], signal.SIGSTOP)
        with burst(it):
            pause(self.delay)
            processes.kill(row["pid"], signal.SIGCONT)
            until = time.monotonic_ns()
        self.learn(int(it.running.stats()["moved"]) - before)
        return Stuck(row["pid"], row["id"], since, until)


@contextmanager
def burst(it: Target) -> Iterator[None]:
    """Connections at once, an equal part for each worker, also for one that is stopped."""
    host, _, port = it.address.rpartition(":")
    clients = [socket.create_connection((host, int(port))) for _ in range(WORKERS * QUEUED)]
    try:
        for client in clients:
            client.settimeout(HANG)
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        yield
        answers = [client.recv(64) for client in clients]
    finally:
        for client in clients:
            client.close()
    if not all(answer.startswith(b"HTTP/1.1 200") for answer in answers):
        raise AssertionError("a connection of the burst was not answered")


@scenario(
    "cont-in-take-back",
    title="SIGCONT of a stopped worker in the middle of the take-back",
    target="0 lost, none served twice; moved: p95 <= stall_timeout + 100 ms, max <= + 1 s",
    mutant="no-rescue",
)
def cont_in_take_back(run: Run) -> Result:
    aim = Aim()
    result = stick(run, "probe:serve", aim.spell)
    result.counts["in the middle"] = aim.hits
    return result
