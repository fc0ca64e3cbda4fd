"""Workers are killed: one at a time in a row, all at once, while they boot, are reloaded, drain."""

from __future__ import annotations

import random

from tests.chaos.kit import Result, Run, scenario
from tests.chaos.service import HANG, Target, Ticks, judge, latency, losses, target
from tests.harness import processes
from tests.harness.load import Load
from tests.harness.records import Plan

CLIENTS = 48
EVERY = 0.1
WORKERS = 4


def kill_one(it: Target, choose: random.Random, killed: list[int]) -> bool:
    """A random serving worker; False if none serves."""
    serving = sorted(set(it.serving().values()) - set(killed))
    if not serving:
        return False
    pid = choose.choice(serving)
    processes.kill(pid)
    killed.append(pid)
    return True


def kill_in_a_row(run: Run, app: str) -> Result:
    result, killed = Result(), []
    choose = random.Random(1)
    with target(run, app, workers=WORKERS) as it:
        plan = Plan(it.address, "closed", concurrency=CLIENTS, path="/sleep/10", timeout=HANG)
        with Load(plan) as load:
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
    return result


@scenario(
    "kill-sync",
    title="SIGKILL a random worker every 100 ms, 48 clients, synchronous workers",
    target="0 queued lost; in hand <= 1.0 per kill; 0 hangs",
    mutant="batch-16",
)
def kill_sync(run: Run) -> Result:
    result = kill_in_a_row(run, "probe:serve")
    result.check("in hand <= 1.0 per kill", float(result.counts["in hand per kill"]) <= 1.0)
    return result
