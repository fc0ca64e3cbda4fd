"""Workers that do not take: stopped, with a blocked loop, or stuck in the kernel."""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.kit import Result, Run, scenario
from tests.chaos.oracle import Life, Verdict
from tests.chaos.service import HANG, Target, judge, length, pause, target
from tests.harness import processes
from tests.harness.load import Load
from tests.harness.records import Plan, quantile
from tests.harness.servers import wait_until

WORKERS = 4
RATE = 200.0
QUEUED = 20  # connections for a stopped worker
LASTING = 0.3  # seconds that a worker is stuck
STALL_MS = 10.0  # stall_timeout as it is by default
MOVED_P95_MS = STALL_MS + 100
MOVED_MAX_MS = STALL_MS + 1000
REQUEST = b"GET %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
APPS = Path(__file__).with_name("apps")


@dataclass(frozen=True)
class Stuck:
    """One worker that did not take from ``since`` to ``until``, in ns."""

    pid: int
    worker: int
    since: int
    until: int
    port: int = 0  # of the client that blocks it
    # Events are told in wall-clock time.
    wall: float = field(default_factory=lambda: time.time() - time.monotonic())

    def contains(self, told: float) -> bool:
        return self.since / 1e9 < told - self.wall < self.until / 1e9


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
        elif any(
            each.since < life.taken and life.accepted < each.until and life.port != each.port
            for each in spells
        ):
            found.kept.append(waited)
        else:
            found.others.append(waited)
    return found


def stick(
    run: Run, app: str, spell: Callable[[Target, dict[str, Any]], Stuck], **settings: Any
) -> Result:
    """Workers get stuck by ``spell``, one at a time, under a light load."""
    result, stuck = Result(), []
    choose = random.Random(5)
    with target(run, app, workers=WORKERS, **settings) as it, light(it) as load:
        load.wait_more(100)
        for _ in range(int(length(run, 12, 100))):
            stuck.append(spell(it, choose.choice(in_turn(it))))
            load.wait_more(20)
        tally = load.stop()
    verdict = it.verdict()
    judge(result, tally, verdict)
    result.counts["stuck"] = len(stuck)
    judge_waits(result, waits(verdict, stuck))
    judge_stalls(result, it, stuck)
    result.check("0 failed", not tally.failed)
    return result


def in_turn(it: Target) -> list[dict[str, Any]]:
    """Workers that keep up: on a busy machine there may be none for a moment."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        rows = it.running.stats()["workers"]
        found[:] = [row for row in rows if row["state"] == "ready" and not row["stalled"]]
        return bool(found)

    wait_until(look, 30.0, "a worker keeps up")
    return found


def judge_waits(result: Result, found: Waits) -> None:
    waited = [*found.moved, *found.kept]
    undisturbed, latest = quantile(found.others, 0.95), max(found.others, default=0.0)
    p95, most = quantile(waited, 0.95), max(waited, default=0.0)
    result.counts |= {
        "moved": len(found.moved), "stayed": len(found.kept), "waited p95 ms": p95,
        "waited max ms": most, "undisturbed p95 ms": undisturbed,
        "undisturbed max ms": latest,
    }  # fmt: skip
    result.check("something waited and was moved", len(found.moved) > 0)
    result.check("p95 of the moved <= stall_timeout + 100 ms", p95 - undisturbed <= MOVED_P95_MS)
    result.check("max of the moved <= stall_timeout + 1 s", most - latest <= MOVED_MAX_MS)


def judge_stalls(result: Result, it: Target, stuck: list[Stuck]) -> None:
    """A stuck worker is asked by a probe, and given nothing more until it takes that."""
    told = [(event["worker"], event["time"]) for event in it.told("stalled")]
    stalls = [
        len([at for worker, at in told if worker == each.worker and each.contains(at)])
        for each in stuck
    ]
    # One that was late just before it got stuck has two: on a busy machine that happens.
    result.counts["stalls per stuck"] = sum(stalls) / max(1, len(stuck))
    result.check("given nothing more until it takes the probe", sum(stalls) <= 1.5 * len(stuck))


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
    title="SIGSTOP of a worker for 0.3 s, synchronous workers, 200 conn/s",
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
            client.sendall(REQUEST % b"/")
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
    # In turn, a synchronous worker is given few in advance: nothing to be in the middle of.
    result = stick(run, "probe:serve", aim.spell, policy="least-connections")
    result.counts["in the middle"] = aim.hits
    # In each of them the worker itself took what was not moved.
    result.check("the middle is the middle", int(result.counts["stayed"]) >= aim.hits)
    result.check("some came in the middle", aim.hits >= run.size(0, 10))
    return result


def blocked(it: Target, row: dict[str, Any]) -> Stuck:
    """A request that blocks an event loop: whose, its answer tells."""
    host, _, port = it.address.rpartition(":")
    since = time.monotonic_ns()
    with socket.create_connection((host, int(port)), HANG) as client:
        own = client.getsockname()[1]
        client.sendall(REQUEST % b"/block/300")
        with client.makefile("rb") as file:
            answer = file.read().decode()
    until = time.monotonic_ns()
    pid = int(answer.partition("x-pid: ")[2].partition("\r\n")[0])
    workers = {each["pid"]: each["id"] for each in it.running.stats()["workers"]}
    return Stuck(pid, workers[pid], since, until, own)


@scenario(
    "block-loop",
    title="time.sleep(0.3) in an event loop (uvicorn), 200 conn/s",
    target="0 lost, none twice; moved: p95 <= stall_timeout + 100 ms, max <= + 1 s",
    mutant="no-probe",
)
def block_loop(run: Run) -> Result:
    return stick(run, "probe:asgi", blocked)


# ---- in the kernel -------------------------------------------------------------------------------


def userfaultfd_missing() -> str:
    """Why faults inside the kernel cannot be watched here; empty if they can."""
    spec = importlib.util.spec_from_file_location("stuck", APPS / "page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        fd, *_ = module.watched_page()
    except OSError as error:
        return f"userfaultfd: {error.strerror or error} (root, or vm.unprivileged_userfaultfd=1)"
    os.close(fd)
    return ""


@scenario(
    "stuck-in-recvmsg",
    title="a worker stuck inside recvmsg for ever (userfaultfd), 200 conn/s, then killed",
    target="accepts go on; p99 of dispatch < 10 ms; what waited for it is served after its death",
    mutant="no-rescue",
)
def stuck_in_recvmsg(run: Run) -> Result:
    result = Result(skipped=userfaultfd_missing())
    if result.skipped:
        return result
    flag = run.tmp / "flag"
    settings = {"cwd": APPS, "env": {"STUCK_FLAG": str(flag)}, "workers": WORKERS}
    with target(run, "stuck:serve", **settings) as it, light(it) as load:
        load.wait_more(200)
        flag.touch()
        it.kill([it.serving()[1]])
        pid = wait_stuck(it, flag)
        began = time.monotonic_ns()
        load.wait_more(int(length(run, 500, 3000)), timeout=60.0)
        ended = time.monotonic_ns()
        state = processes.state(pid)
        it.kill([pid])
        load.wait_more(100)
        tally = load.stop()
    verdict = it.verdict()
    judge(result, tally, verdict, it.told("removed"))
    judge_dispatch(result, verdict, began, ended)
    result.counts["its state"] = state
    result.check("only what the first one had in hand is lost", len(tally.failed) <= 1)
    result.check("what waited for it was served after its death", served_late(verdict, ended) > 0)
    return result


def served_late(verdict: Verdict, killed: int) -> int:
    """Connections that were queued at it and taken by others when it was killed."""
    moved = [life for life in verdict.lives.values() if life.moved and life.accepted < killed]
    return len([life for life in moved if life.done and life.taken > killed])


def wait_stuck(it: Target, flag: Path) -> int:
    """Pid of the one that took the flag, when it is known to be stalled."""
    found: list[int] = []

    def look() -> bool:
        found[:] = [int(path.suffix[1:]) for path in flag.parent.glob(f"{flag.name}.*")]
        workers = {event["worker"] for event in it.told("stalled")}
        rows = it.running.stats()["workers"]
        return bool(found) and any(r["pid"] in found and r["id"] in workers for r in rows)

    wait_until(look, 60.0, "a worker is stuck inside recvmsg")
    return found[0]


def judge_dispatch(result: Result, verdict: Verdict, began: int, ended: int) -> None:
    """Of what was accepted while it was stuck, and before."""
    lives = sorted(verdict.lives.values(), key=lambda life: life.accepted)
    during = [life for life in lives if began < life.accepted < ended]
    before = [life for life in lives if life.accepted < began]
    moments = [began, *(life.accepted for life in during)]
    gap = max(later - earlier for earlier, later in itertools.pairwise(moments)) / 1e6
    p99, usual = (quantile(times(some), 0.99) for some in (during, before))
    result.counts |= {
        "accepted meanwhile": len(during), "longest pause of accepts ms": gap,
        "dispatch p99 ms": p99, "undisturbed p99 ms": usual,
    }  # fmt: skip
    result.check("accepts go on", gap < 500)
    result.check("p99 of dispatch < 10 ms", p99 < 10)


def times(lives: list[Life]) -> list[float]:
    """From accept to the worker's channel, in ms."""
    return [(life.sent - life.accepted) / 1e6 for life in lives if life.sent and not life.moved]
