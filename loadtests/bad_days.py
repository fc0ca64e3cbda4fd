"""What every contender that can is put through: stuck and killed workers, releases, floods."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tests.harness import processes
from tests.harness.records import TIMEOUT, Plan, Record, quantile
from tests.harness.servers import wait_until

from . import figures
from .contenders import Contender
from .measures import Measuring
from .running import RECENT, Traffic, pause, traffic

PATIENCE_S = 2.5
RATE = 100.0
RELOADED_S = 30.0
IDLE = 10_000
SLOW = 100


@dataclass(frozen=True)
class BadDay:
    """``possible`` says who can be put through it. After one that ``spoils``: a new server.

    ``often``: tried in every round, since what is meant to be reached needs the noise.
    """

    name: str
    title: str
    run: Callable[[Measuring], None]
    quick: bool = False
    possible: Callable[[Contender], bool] = lambda _: True
    spoils: bool = False
    often: bool = False


def judge(it: Measuring, test: str, records: list[Record], curve: bool = False) -> None:
    """``lost`` were refused, reset or ended early; ``hung`` waited for longer than anybody does."""
    hung = sum(each.outcome == TIMEOUT for each in records)
    it.put(f"{test}: lost", sum(not each.ok for each in records) - hung)
    it.put(f"{test}: hung", hung)
    values = figures.latencies(records)
    it.put(f"{test}: p99", quantile(values, 0.99), "ms")
    for limit in figures.PATIENCE_MS:
        it.put(f"{test}: over {limit // 1000} s", figures.over(values, limit), "%")
    if curve:
        it.results.curves.setdefault(test, {})[it.running.contender.name] = figures.curve(values)


def fresh(it: Measuring, **more: object) -> Traffic:
    """A hundred new connections a second, whatever becomes of them."""
    settings = {"rate": RATE, "timeout": PATIENCE_S, **more}
    return Traffic(Plan(it.running.address, **settings))  # type: ignore[arg-type]


def victim(it: Measuring, load: Traffic, number: int = 0) -> int:
    seen = it.running.seen(load.records)
    if not seen:
        raise RuntimeError("no worker answers")
    return seen[number % len(seen)]


def stopped(it: Measuring) -> None:
    """It takes nothing and says nothing, as one that pages or is being traced."""
    with fresh(it) as load:
        load.wait_more(RECENT // 4)
        pid = victim(it, load)
        processes.kill(pid, signal.SIGSTOP)
        pause(it.size.bad_s)
        with suppress(ProcessLookupError):  # some kill a worker that says nothing
            processes.kill(pid, signal.SIGCONT)
        pause(0.5)
        judge(it, "1 stopped", load.stop().records, curve=True)


def blocked(it: Measuring) -> None:
    """One request computes for 4 s."""
    with fresh(it) as load:
        load.wait_more(RECENT // 2)
        with Traffic(Plan(it.running.address, count=1, path="/block/4000", timeout=15)) as one:
            one.finish()
        judge(it, "1 blocked 4 s", load.stop().records, curve=True)


def killed(it: Measuring) -> None:
    """A worker every second, under 48 clients that ask again at once."""
    kills = 0
    plan = Plan(it.running.address, "closed", concurrency=48, path="/sleep/10", timeout=PATIENCE_S)
    with Traffic(plan) as load:
        load.wait_more(RECENT)
        end = time.monotonic() + it.size.bad_s
        while time.monotonic() < end:
            with suppress(ProcessLookupError, RuntimeError):
                processes.kill(victim(it, load, kills))
                kills += 1
            pause(1.0)
        judge(it, "killed every s", load.stop().records)
    it.put("killed every s: kills", kills, "", "")


def reloaded(it: Measuring) -> None:
    """A new release goes live: answers take 50 ms, kept connections stay."""
    address = it.running.address
    keeping = Plan(address, "kept", concurrency=10, path="/sleep/50", timeout=PATIENCE_S)
    with fresh(it, path="/sleep/50") as load, Traffic(keeping) as keep:
        load.wait_more(int(RATE) // 2)
        it.running.deploy("v1")
        asked = time.monotonic_ns()
        it.running.reload()
        with suppress(TimeoutError):
            load.wait_for(lambda records: _only("v1", records), RELOADED_S)
        took = (time.monotonic_ns() - asked) / 1e9
        done = _only("v1", load.records)
        records = load.stop().records + keep.stop().records
        judge(it, "reload", records)
    it.put("reload: until all is new", took if done else float("inf"), "s")
    it.results.timelines[it.running.contender.name] = figures.timeline(records, asked)


def _only(version: str, records: list[Record]) -> bool:
    latest = [each for each in records[-RECENT:] if each.ok][-50:]
    return len(latest) == 50 and all(each.version == version for each in latest)


def broken(it: Measuring) -> None:
    """A release that cannot be loaded."""
    with fresh(it) as load:
        load.wait_more(int(RATE) // 2)
        it.running.deploy("v9", "\n1 / 0\n")
        (it.running.directory / "broken").touch()
        it.running.reload()
        pause(max(4.0, it.size.bad_s))
        judge(it, "broken release", load.stop().records)
    it.running.spoilt = True
    answers = [each for each in load.records[-50:] if each.ok]
    it.put("broken release: still answers", float(bool(answers)), "", "more")


def all_dead(it: Measuring) -> None:
    """Every worker at once; how long until somebody answers a new connection."""
    with fresh(it) as load:
        load.wait_more(int(RATE) // 2)
        it.running.seen(load.records)
        alive = {each.pid for each in it.running.processes()}
        for pid in it.running.workers & alive:
            with suppress(ProcessLookupError):
                processes.kill(pid)
        at = time.monotonic_ns()

        def answers() -> bool:
            return any(each.ok and each.intended > at for each in load.records[-RECENT:])

        with suppress(TimeoutError):
            wait_until(answers, 15.0)
        took = (time.monotonic_ns() - at) / 1e9 if answers() else float("inf")
        pause(0.5)
        judge(it, "all dead", load.stop().records)
    it.put("all dead: until an answer", took, "s")


def flooded(it: Measuring) -> None:
    """Ten times what it can serve: each request computes for 20 ms."""
    rate = 10 * it.running.number * 50.0
    with fresh(it, rate=rate, path="/block/20", timeout=5.0) as load:
        pause(min(it.size.bad_s, 5.0) / 2)
        records = load.stop().records
    it.running.spoilt = True  # its workers have work for longer than anybody waits
    judge(it, "10 times too many", records)
    it.put("10 times too many: answered", sum(each.ok for each in records), "", "more")


def idle(it: Measuring) -> None:
    """10,000 connections that say nothing; what others then wait."""
    plan = Plan(it.running.address, "idle", concurrency=IDLE, timeout=30.0)
    with Traffic(plan) as load:
        with suppress(TimeoutError):  # some take no more than they serve
            load.wait_for(lambda records: len(records) >= IDLE, it.size.idle_s)
        # Who comes after all of them.
        traffic(Plan(it.running.address, count=1, timeout=it.size.idle_s))
        it.put("10,000 idle: connected", sum(each.ok for each in load.records), "", "more")
        with fresh(it) as others:
            pause(it.size.bad_s)
            judge(it, "10,000 idle", others.stop().records)
        load.stop()


def slow(it: Measuring) -> None:
    """A hundred clients that send a byte every 50 ms; what others then wait."""
    plan = Plan(it.running.address, "slow", concurrency=SLOW, timeout=30.0)
    with Traffic(plan) as load:
        pause(0.5)
        with fresh(it) as others:
            pause(it.size.bad_s)
            judge(it, "slow clients", others.stop().records)
        load.order("stop")


def _reloads(contender: Contender) -> bool:
    return bool(contender.reload)


def _enough_files(_: Contender) -> bool:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] > IDLE + 1000


BAD_DAYS = (
    BadDay("stopped", "one of the workers is stopped (SIGSTOP)", stopped, quick=True, often=True),
    BadDay("blocked", "one request computes for 4 s", blocked, often=True),
    BadDay("killed", "a worker is killed every second", killed, spoils=True),
    BadDay("reload", "a new release, with requests all the while", reloaded, True, _reloads),
    BadDay("broken", "a release that cannot be loaded", broken, False, _reloads, spoils=True),
    BadDay("dead", "all workers are killed at once", all_dead, spoils=True),
    BadDay("flood", "ten times more connections than can be served", flooded, spoils=True),
    BadDay("idle", "10,000 idle connections", idle, False, _enough_files),
    BadDay("slow", "100 clients that send a byte every 50 ms", slow),
)
