"""Workers are killed: one at a time in a row, all at once, while they boot, are reloaded, drain."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rrdispatch.errors import ReloadError
from tests.chaos.kit import Result, Run, scenario
from tests.chaos.service import HANG, HANGS, Losses, Target, Ticks, judge, latency, losses, target
from tests.harness import processes
from tests.harness.load import Load, load_beside
from tests.harness.records import TIMEOUT, Plan, Record, Tally
from tests.harness.servers import Service, wait_until

CLIENTS = 48
EVERY = 0.1
WORKERS = 4


def kill_one(it: Target, choose: random.Random, killed: list[int]) -> bool:
    """A random serving worker; False if none serves."""
    serving = sorted(set(it.serving().values()) - set(killed))
    if not serving:
        return False
    pid = choose.choice(serving)
    it.kill([pid])
    killed.append(pid)
    return True


def crowd(it: Target, path: str = "/sleep/10") -> Load:
    """48 clients that each ask again at once: more than the workers can do, so that some wait."""
    return Load(Plan(it.address, "closed", concurrency=CLIENTS, path=path, timeout=HANG))


def kill_in_a_row(run: Run, app: str) -> tuple[Result, Counter[int]]:
    """What was counted, and how many each killed worker had in hand."""
    result = Result()
    killed: list[int] = []
    choose = random.Random(1)
    with target(run, app, workers=WORKERS) as it:
        with crowd(it) as load:
            load.wait_more(CLIENTS)
            ticks = Ticks(EVERY, run.size(8.0, 60.0))
            nobody = [1 for _ in ticks if not kill_one(it, choose, killed)]
            load.wait_more(CLIENTS)
            tally = load.stop()
        lost = losses(it, tally)
        result.counts["kills"] = len(killed)
        result.counts["ticks without a serving worker"] = len(nobody) + ticks.missed
        result.counts["rescued"] = it.rescued()
    judge(result, tally, lost)
    result.counts["in hand per kill"] = lost.in_hand / max(1, len(killed))
    latency(result, tally)
    result.check("kills happened", len(killed) >= run.size(10, 100))
    result.check("something waited at the killed ones and was rescued", it.rescued() > 0)
    inside = Counter(lost.held.values())
    result.check("what failed was inside a killed worker", set(inside) <= set(killed))
    return result, inside


@scenario(
    "kill-sync",
    title="SIGKILL a random worker every 100 ms, 48 clients, synchronous workers",
    target="0 queued lost; in hand <= 1.0 per kill; 0 hangs",
    mutant="batch-16",
)
def kill_sync(run: Run) -> Result:
    result, _ = kill_in_a_row(run, "probe:serve")
    result.check("in hand <= 1.0 per kill", float(result.counts["in hand per kill"]) <= 1.0)
    return result


@scenario(
    "kill-asyncio",
    title="SIGKILL a random worker every 100 ms, 48 clients, asyncio (uvicorn)",
    target="0 queued lost; in hand <= the worker's concurrency; 0 hangs",
)
def kill_asyncio(run: Run) -> Result:
    result, inside = kill_in_a_row(run, "probe:asgi")
    most = max(inside.values(), default=0)
    result.counts["most in hand"] = most
    result.check("in hand <= its concurrency", most <= CLIENTS)
    return result


@scenario(
    "kill-all",
    title="all workers killed at once, under load",
    target="0 queued lost; served after the respawn",
    mutant="no-rescue",
)
def kill_all(run: Run) -> Result:
    result, kills, rounds = Result(), 0, int(run.size(8, 50))
    with target(run, "probe:serve", workers=WORKERS) as it:
        with crowd(it) as load:
            for _ in range(rounds):
                pids = it.wait_serving(WORKERS)
                load.wait_more(CLIENTS)
                kills += it.kill(pids)
                it.wait_serving(1, but=pids)
                load.wait_more(CLIENTS)
            tally = load.stop()
        lost = losses(it, tally)
        result.counts |= {"rounds": rounds, "kills": kills, "rescued": it.rescued()}
    judge(result, tally, lost)
    per_kill(result, lost, kills)
    latency(result, tally)
    return result


def per_kill(result: Result, lost: Losses, kills: int) -> None:
    """For synchronous workers."""
    result.counts["in hand per kill"] = lost.in_hand / max(1, kills)
    result.check("in hand <= 1.0 per kill", lost.in_hand <= kills)


@scenario(
    "kill-boot",
    title="a serving worker is killed, and then its successor while it boots",
    target="0 queued lost; served after the respawn",
    mutant="no-rescue",
)
def kill_boot(run: Run) -> Result:
    """Alternating: the delay of a respawn doubles only for deaths in a row before READY."""
    result, kills, rounds = Result(), 0, int(run.size(6, 30))
    choose = random.Random(2)
    with target(run, "probe:serve", workers=WORKERS, env={"PROBE_BOOT": "0.05"}) as it:
        with crowd(it) as load:
            for _ in range(rounds):
                pids = it.wait_serving(WORKERS)
                kills += it.kill([choose.choice(sorted(pids))])
                booting = wait_for_boot(it)
                kills += it.kill(booting)
                it.wait_serving(WORKERS, but=booting)
            load.wait_more(CLIENTS)
            tally = load.stop()
        lost = losses(it, tally)
        result.counts |= {"rounds": rounds, "kills": kills, "rescued": it.rescued()}
    judge(result, tally, lost)
    per_kill(result, lost, kills)
    result.check("a booting worker was killed in each round", kills == 2 * rounds)
    return result


def wait_for_boot(it: Target) -> list[int]:
    """Pids of workers that boot, as soon as there is one."""
    booting: list[int] = []

    def look() -> bool:
        booting[:] = it.pids("starting")
        return bool(booting)

    wait_until(look, 10.0, "a worker boots")
    return booting


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
        with crowd(it) as load:
            load.wait_more(CLIENTS)
            with reloading(it) as reloads:
                for _ in Ticks(0.15, run.size(6.0, 30.0)):
                    kill_any(it, choose, killed)
            it.wait_serving(WORKERS)
            generation = it.running.reload().generation
            load.wait_more(CLIENTS)
            tally = load.stop()
        lost = losses(it, tally)
        result.counts |= dict(reloads) | {"kills": len(killed), "rescued": it.rescued()}
        serving = it.running.stats()["generation"]
    judge(result, tally, lost)
    per_kill(result, lost, len(killed))
    result.check("a reload without kills succeeds", serving == generation)
    result.check("reloads ran", sum(reloads.values()) >= 3)
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
    result, kills, rounds = Result(), 0, int(run.size(6, 50))
    with target(run, "probe:serve", workers=WORKERS) as it:
        with crowd(it, "/sleep/20") as load:
            for _ in range(rounds):
                it.wait_serving(WORKERS)
                load.wait_more(CLIENTS)
                it.running.scale(WORKERS // 2)
                kills += it.kill(wait_for_drain(it))
                it.running.scale(WORKERS)
            tally = load.stop()
        lost = losses(it, tally)
        result.counts |= {"rounds": rounds, "kills": kills, "rescued": it.rescued()}
    judge(result, tally, lost)
    per_kill(result, lost, kills)
    return result


def wait_for_drain(it: Target) -> list[int]:
    """Pids of workers that drain, as soon as there is one."""
    found: list[int] = []

    def look() -> bool:
        found[:] = it.pids("draining") + it.pids("stopping")
        return bool(found)

    wait_until(look, 10.0, "a worker drains")
    return found


@scenario(
    "kill-stop",
    title="one of 4 workers killed at the final stop, with 60 clients waiting",
    target="0 queued lost: the others answer all that was accepted",
    mutant="no-rescue",
)
def kill_stop(run: Run) -> Result:
    result = Result()
    rounds = int(run.size(3, 20))
    failed: list[Record] = []
    options = ["-i", str(WORKERS), "--threads", "1", "--dispatcher", run.dispatcher]
    for _ in range(rounds):
        with Service("probe:serve", *options) as service:
            load = load_beside(service, Plan(service.address, count=60, path="/sleep/20"))
            load.wait_more(1)
            service.send_signal(signal.SIGTERM)
            service.output.wait("stopping", 10.0)
            processes.kill(service.workers()[0])
            failed += load.finish().failed
            service.wait()
    result.counts |= {"kills": rounds, "requests": 60 * rounds, "failed": str(Tally(failed))}
    result.check("in hand <= 1.0 per kill", len(failed) <= rounds)
    result.check(HANGS, not [each for each in failed if each.outcome == TIMEOUT])
    return result
