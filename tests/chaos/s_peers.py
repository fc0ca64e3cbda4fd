"""What we promise, asked of others: the same clients, the same app, the same trouble, one run.

Only our own figures are judged. All of them tell a worker's pid in each answer, so that who is to
be killed or stopped is found in the same way.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tests.chaos.deploys import Deployment
from tests.chaos.kit import Result, Run, scenario
from tests.chaos.peers import PEERS, WORKERS, Peer, Running
from tests.chaos.service import Ticks, pause
from tests.harness import processes
from tests.harness.load import Load
from tests.harness.records import TIMEOUT, Plan, Record, Tally, quantile

PATIENCE = 2.5  # seconds until a request counts as hanging
RECENT = 200  # answers in which every worker is seen


@dataclass(frozen=True)
class Figures:
    """Of one server, in one kind of trouble."""

    times: int
    tally: Tally

    @property
    def hung(self) -> int:
        return self.tally.outcomes()[TIMEOUT]

    @property
    def lost(self) -> int:
        return len(self.tally.failed) - self.hung

    @property
    def slowest(self) -> float:
        return max((record.latency_ms for record in self.tally.ok), default=0.0)

    def __str__(self) -> str:
        p99 = quantile([record.latency_ms for record in self.tally.ok], 0.99)
        lost = f"{self.lost / self.times:.1f} lost and {self.hung / self.times:.1f} hung each"
        return f"{self.times}: {lost} of {len(self.tally.records)}, p99 {p99:.0f} ms"


def seen_lately(records: list[Record]) -> list[int]:
    """Pids of the workers that answer, as the clients see them."""
    return sorted({record.pid for record in records[-RECENT:] if record.ok and record.pid})


def killed(run: Run, server: Running, app: Deployment) -> Figures:
    """A random worker, twice a second, under 48 clients."""
    choose, kills = random.Random(4), 0
    plan = Plan(server.address, "closed", concurrency=48, path="/sleep/10", timeout=PATIENCE)
    with Load(plan) as load:
        load.wait_more(RECENT)
        for _ in Ticks(0.5, run.size(3, 10)):
            with suppress(ProcessLookupError, IndexError):
                processes.kill(choose.choice(seen_lately(load.records)))
                kills += 1
        return Figures(kills, load.stop())


def stopped(run: Run, server: Running, app: Deployment) -> Figures:
    """One of four, for longer than anybody waits, with 100 new connections a second."""
    times = int(run.size(1, 2))
    with Load(Plan(server.address, rate=100.0, path="/", timeout=PATIENCE)) as load:
        load.wait_more(RECENT)
        for number in range(times):
            victim = seen_lately(load.records)[number % WORKERS]
            processes.kill(victim, signal.SIGSTOP)
            pause(PATIENCE + 1)
            with suppress(ProcessLookupError):  # some kill a worker that says nothing
                processes.kill(victim, signal.SIGCONT)
            load.wait_more(RECENT)
        return Figures(times, load.stop())


def reloaded(run: Run, server: Running, app: Deployment) -> Figures:
    """By HUP, as all of them take it: slow answers, 100 new connections a second, 20 kept ones."""
    times = int(run.size(1, 3))
    fresh = Plan(server.address, rate=100.0, path="/sleep/100", timeout=PATIENCE)
    kept = Plan(server.address, "keepalive", concurrency=20, rate=10.0, timeout=PATIENCE)
    with Load(fresh) as load, Load(kept) as keeping:
        load.wait_more(30)
        for number in range(1, times + 1):
            version = f"v{number}"
            app.deploy(version)
            os.kill(server.pid, signal.SIGHUP)
            wait_version(load, version)
        both = [load.stop(), keeping.stop()]
        return Figures(times, Tally([record for each in both for record in each.records]))


def broken(run: Run, server: Running, app: Deployment) -> Figures:
    """A deploy that cannot be loaded, and 5 s of requests."""
    with Load(Plan(server.address, rate=100.0, timeout=PATIENCE)) as load:
        load.wait_more(30)
        app.deploy("v9", "\n1 / 0\n")
        (app.directory / "broken").touch()
        os.kill(server.pid, signal.SIGHUP)
        pause(5.0)
        return Figures(1, load.stop())


def wait_version(load: Load, version: str) -> None:
    """Until nothing else has answered for a second."""

    def only(records: list[Record]) -> bool:
        answers = [record for record in records[-RECENT:] if record.ok][-100:]
        return len(answers) >= 100 and all(record.version == version for record in answers)

    load.wait_for(only, 60.0)


@scenario(
    "peers",
    title="others in the same trouble: workers killed, one of 4 stopped, a reload, a broken deploy",
    target="ours: 0 hung but what was inside the stopped one; 0 failed in the reloads",
    long=True,
)
def peers(run: Run) -> Result:
    result = Result()
    for number, peer in enumerate(PEERS):
        if peer.missing:
            result.counts[peer.name] = f"not here: {peer.missing}"
            continue
        app = Deployment(run.tmp / f"app{number}")
        figures = trials(run, peer, app)
        result.counts[peer.name] = "; ".join(f"{name} {value}" for name, value in figures.items())
        if peer.name == "rrdispatch":
            judge(result, figures)
    return result


def trials(run: Run, peer: Peer, app: Deployment) -> dict[str, Figures | str]:
    """Each on a server of its own; one that fails in the harness is told, not judged."""
    found: dict[str, Figures | str] = {}
    kinds: dict[str, Callable[[Run, Running, Deployment], Figures]] = {
        "kill": killed, "stop": stopped, "reload": reloaded, "broken": broken,
    }  # fmt: skip
    for name, trial in kinds.items():
        with Running(peer, app.directory) as server:
            try:
                found[name] = trial(run, server, app)
            except (TimeoutError, RuntimeError, ProcessLookupError, IndexError) as error:
                found[name] = f"could not be tried ({str(error).splitlines()[0]})"
    return found


def judge(result: Result, figures: dict[str, Figures | str]) -> None:
    kill, stop = figures["kill"], figures["stop"]
    for name, value in figures.items():
        result.check(f"ours was tried: {name}", isinstance(value, Figures))
    if isinstance(kill, Figures):
        result.check("ours: 0 hung when killed", kill.hung == 0)
    if isinstance(stop, Figures):
        result.check("ours: only what was inside the stopped one waits", stop.hung <= stop.times)
    for name in ("reload", "broken"):
        value = figures[name]
        if isinstance(value, Figures):
            result.check(f"ours: 0 failed: {name}", not value.tally.failed)
