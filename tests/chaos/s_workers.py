"""Workers are killed: one at a time in a row, all at once, while they boot, are reloaded, drain."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rrdispatch.errors import ReloadError
from tests.chaos.kit import Result, Run, scenario
from tests.chaos.service import (
    CLIENTS,
    HANG,
    Account,
    Target,
    Ticks,
    judge,
    latency,
    length,
    new_ledger,
    target,
)
from tests.harness import processes
from tests.harness.load import load_beside
from tests.harness.records import Plan
from tests.harness.servers import Service, wait_until

EVERY = 0.1
WORKERS = 4
RESCUED = "something waited at such a worker and was given to others"
IN_HAND = "in hand <= 1.0 per kill"


def per_kill(result: Result, found: Account, kills: int) -> None:
    """For synchronous workers: each has one connection in hand."""
    result.counts["in hand per kill"] = found.in_hand / max(1, kills)
    result.check(IN_HAND, found.in_hand <= kills)
    result.check(RESCUED, found.verdict.counts["moved"] > 0)


# ---- one after another ---------------------------------------------------------------------------


def kill_one(it: Target, choose: random.Random, killed: list[int]) -> bool:
    """A random serving worker; False if none serves."""
    serving = sorted(set(it.serving().values()) - set(killed))
    if not serving:
        return False
    killed.append(choose.choice(serving))
    it.kill(killed[-1:])
    return True


def kill_in_a_row(run: Run, app: str, **settings: str) -> tuple[Result, Account, int]:
    """What was counted, and how many were killed."""
    result = Result()
    killed: list[int] = []
    choose = random.Random(1)
    with target(run, app, workers=WORKERS, **settings) as it, it.crowd() as load:
        load.wait_more(CLIENTS)
        ticks = Ticks(EVERY, length(run, 5.0, 60.0))
        nobody = len([1 for _ in ticks if not kill_one(it, choose, killed)])
        load.wait_more(CLIENTS)
        tally = load.stop()
    result.counts |= {"kills": len(killed), "ticks with no worker": nobody + ticks.missed}
    found = judge(result, tally, it.verdict(), it.told("removed"))
    latency(result, tally)
    result.check("kills happened", len(killed) >= length(run, 10, 100))
    members = found.verdict.members.values()
    queued = [one for one in members if one.pid in killed and one.queued_at_death]
    result.counts["killed with a queue"] = len(queued)
    # An event loop on an idle machine has taken all that it was sent, at times.
    least = 0.2 if app == "probe:asgi" else 0.5
    result.check("the queues are kept > 0", len(queued) > least * len(killed))
    pids = {found.verdict.members[worker].pid for worker in found.inside}
    result.check("what failed was inside a killed worker", pids <= set(killed))
    return result, found, len(killed)


@scenario(
    "kill-sync",
    title="SIGKILL a random worker every 100 ms, 48 clients, synchronous workers",
    target="0 queued lost; in hand <= 1.0 per kill; 0 hangs",
    mutant="batch-16",
)
def kill_sync(run: Run) -> Result:
    result, found, kills = kill_in_a_row(run, "probe:serve")
    per_kill(result, found, kills)
    return result


@scenario(
    "kill-wsgi",
    title="SIGKILL a random worker every 100 ms, 48 clients, WSGI with one thread, long queues",
    target="0 queued lost; in hand <= 1.0 per kill; 0 hangs",
    mutant="no-rescue",
    long=True,
)
def kill_wsgi(run: Run) -> Result:
    # In turn, a synchronous worker is given few in advance, and the others wait in the backlog.
    result, found, kills = kill_in_a_row(run, "probe:wsgi", policy="least-connections")
    per_kill(result, found, kills)
    return result


@scenario(
    "kill-asyncio",
    title="SIGKILL a random worker every 100 ms, 48 clients, asyncio (uvicorn)",
    target="0 queued lost; in hand <= the worker's concurrency; 0 hangs",
    mutant="no-rescue",
)
def kill_asyncio(run: Run) -> Result:
    result, found, kills = kill_in_a_row(run, "probe:asgi")
    most = max(found.inside.values(), default=0)
    result.counts |= {"in hand per kill": found.in_hand / max(1, kills), "most in hand": most}
    result.check("in hand <= its concurrency", within_concurrency(found))
    result.check(RESCUED, found.verdict.counts["moved"] > 0)
    return result


def within_concurrency(found: Account) -> bool:
    """No worker took more with it than it ever had open at one moment."""
    return all(lost <= most_open(found, worker) for worker, lost in found.inside.items())


def most_open(found: Account, worker: int) -> int:
    """The most connections that a worker had in hand at once; one it was just taking counts."""
    pid = found.verdict.members[worker].pid
    lives = [life for life in found.verdict.lives.values() if life.taker == pid]
    steps = [(life.taken, 1) for life in lives]
    steps += [(life.done, -1) for life in lives if life.done]
    now = most = 0
    for _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most + 1


# ---- all at once, at boot, in reloads and drains -------------------------------------------------


@scenario(
    "kill-all",
    title="all workers killed at once, under load",
    target="0 queued lost; served after the respawn",
    mutant="no-rescue",
)
def kill_all(run: Run) -> Result:
    result, kills, rounds = Result(), 0, int(length(run, 8, 50))
    with target(run, "probe:serve", workers=WORKERS) as it, it.crowd() as load:
        for _ in range(rounds):
            pids = it.wait_serving(WORKERS)
            load.wait_more(CLIENTS)
            kills += it.kill(pids)
            it.wait_serving(1, but=pids)
            load.wait_more(CLIENTS)
        tally = load.stop()
    result.counts |= {"rounds": rounds, "kills": kills}
    per_kill(result, judge(result, tally, it.verdict(), it.told("removed")), kills)
    latency(result, tally)
    return result


@scenario(
    "kill-boot",
    title="a serving worker is killed, and then its successor while it boots",
    target="0 queued lost; served after the respawn",
    mutant="no-rescue",
)
def kill_boot(run: Run) -> Result:
    """Alternating: the delay of a respawn doubles only for deaths in a row before READY."""
    result, kills, rounds = Result(), 0, int(length(run, 6, 30))
    choose = random.Random(2)
    slow = {"PROBE_BOOT": "0.3"}
    with target(run, "probe:serve", workers=WORKERS, env=slow) as it, it.crowd() as load:
        for _ in range(rounds):
            pids = it.wait_serving(WORKERS)
            kills += it.kill([choose.choice(sorted(pids))])
            booting = wait_for_state(it, "starting")
            kills += it.kill(booting)
            it.wait_serving(WORKERS, but=booting)
        load.wait_more(CLIENTS)
        tally = load.stop()
    result.counts |= {"rounds": rounds, "kills": kills}
    per_kill(result, judge(result, tally, it.verdict(), it.told("removed")), kills)
    result.check("a booting worker was killed in each round", kills >= 2 * rounds)
    return result


def wait_for_state(it: Target, *states: str) -> list[int]:
    """Pids of workers in one of these states, as soon as there is one."""
    found: list[int] = []

    def look() -> bool:
        found[:] = [pid for state in states for pid in it.pids(state)]
        return bool(found)

    wait_until(look, 30.0, f"a worker is {' or '.join(states)}")
    return found


def wait_for_draining(it: Target) -> list[int]:
    """Pids of workers that are to go; once more if they were gone before anybody looked."""
    found: list[int] = []

    def look() -> bool:
        found[:] = [*it.pids("draining"), *it.pids("stopping")]
        if not found and len(it.running.stats()["workers"]) == len(it.serving()) == WORKERS // 2:
            it.running.scale(WORKERS)
            it.wait_serving(WORKERS)
            it.running.scale(WORKERS // 2)
        return bool(found)

    it.running.scale(WORKERS // 2)
    wait_until(look, 60.0, "a worker drains")
    return found


@scenario(
    "kill-reload",
    title="random workers of either generation killed while reloads run without a pause",
    target="0 queued lost; served after the respawn; a reload without kills succeeds",
    mutant="no-rescue",
)
def kill_reload(run: Run) -> Result:
    result = Result()
    killed: list[int] = []
    choose = random.Random(3)
    with target(run, "probe:serve", workers=WORKERS) as it:
        with it.crowd() as load:
            load.wait_more(CLIENTS)
            with reloading(it) as reloads:
                for _ in Ticks(0.15, length(run, 4.0, 30.0)):
                    kill_any(it, choose, killed)
                wait_until(lambda: sum(reloads.values()) >= 2, 60.0, "two reloads have ended")
            it.wait_serving(WORKERS)
            generation = it.running.reload().generation
            load.wait_more(CLIENTS)
            tally = load.stop()
        serving = it.running.stats()["generation"]
    result.counts |= dict(reloads) | {"kills": len(killed)}
    per_kill(result, judge(result, tally, it.verdict(), it.told("removed")), len(killed))
    result.check("a reload without kills succeeds", serving == generation)
    result.check("reloads ran", sum(reloads.values()) >= 2)
    return result


def kill_any(it: Target, choose: random.Random, killed: list[int]) -> None:
    """Also one that boots, is parked or drains."""
    rows = it.running.stats()["workers"]
    alive = sorted(row["pid"] for row in rows if row["state"] != "dead")
    pids = [pid for pid in alive if pid not in killed]
    if pids:
        killed.append(choose.choice(pids))
        it.kill(killed[-1:])


def reload(it: Target) -> str:
    try:
        it.running.reload()
    except ReloadError:
        return "reloads rolled back"
    return "reloads"


@contextmanager
def reloading(it: Target) -> Iterator[Counter[str]]:
    """Reloads one after another, for as long as the block runs; how they ended."""
    ended: Counter[str] = Counter()
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            ended[reload(it)] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield ended
    finally:
        over.set()
        thread.join()


@scenario(
    "kill-drain",
    title="two workers killed while they drain: scaled from 4 to 2 and back",
    target="0 queued lost; served after the respawn",
    mutant="no-rescue",
)
def kill_drain(run: Run) -> Result:
    result, kills, rounds = Result(), 0, int(length(run, 6, 50))
    with target(run, "probe:serve", workers=WORKERS) as it, it.crowd("/sleep/20") as load:
        for _ in range(rounds):
            it.wait_serving(WORKERS)
            load.wait_more(CLIENTS)
            kills += it.kill(wait_for_draining(it))
            it.running.scale(WORKERS)
        tally = load.stop()
    result.counts |= {"rounds": rounds, "kills": kills}
    per_kill(result, judge(result, tally, it.verdict(), it.told("removed")), kills)
    return result


@scenario(
    "kill-stop",
    title="one of 4 workers killed at the final stop, with 60 clients waiting",
    target="0 queued lost: the others answer all that was accepted",
    mutant="no-rescue",
)
def kill_stop(run: Run) -> Result:
    result, rounds = Result(), int(length(run, 2, 20))
    whole: Counter[str] = Counter()
    options = ["-i", str(WORKERS), "--threads", "1", "--dispatcher", run.dispatcher]
    for _ in range(rounds):
        ledger = new_ledger(run)
        with Service("probe:serve", *options, env=ledger.env) as service:
            victim = service.workers()[0]
            plan = Plan(service.address, count=60, path="/sleep/200", timeout=HANG)
            load = load_beside(service, plan)
            load.wait_more(1)
            now = partial(ledger.judge, ended=False)
            wait_until(lambda: now().accepted == 60, 30.0, "all are accepted")  # noqa: B023
            service.send_signal(signal.SIGTERM)
            service.output.wait("stopping", 30.0)
            processes.kill(victim)
            tally = load.finish()
            service.wait()
        one = Result()
        found = judge(one, tally, ledger.judge(ended=True))
        per_kill(one, found, 1)
        for name, holds in one.checks.items():
            result.check(name, holds)
        whole += Counter({k: v for k, v in one.counts.items() if isinstance(v, int)})
    result.counts |= {"kills": rounds, **whole}
    return result
