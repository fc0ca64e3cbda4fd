"""The dispatcher is killed again and again, or stopped: another one takes over in its place."""

from __future__ import annotations

import bisect
import itertools
import random
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

from tests.chaos.kit import Result, Run, scenario
from tests.chaos.service import CLIENTS, Target, Ticks, judge, latency, length, pause, target
from tests.harness import processes
from tests.harness.records import Tally, quantile

EVERY = 0.1
WINDOW = 80_000_000  # ns after a kill in which the new one must have begun
BACK_MS = 20.0
LATE_MS = 100.0  # what the mutant adds to each


def silences(accepted: list[int], moments: Iterable[int]) -> list[float]:
    """After each moment: the longest time, in ms, in which nothing was accepted."""
    found = []
    for moment in moments:
        first = bisect.bisect_right(accepted, moment)
        last = bisect.bisect_left(accepted, moment + WINDOW)
        edges = [moment, *accepted[first : last + 1]]
        gaps = [later - earlier for earlier, later in itertools.pairwise(edges)]
        found.append(max(gaps, default=WINDOW) / 1e6)
    return found


def kill(it: Target, number: signal.Signals, choose: random.Random) -> int:
    """When the dispatcher of the moment was sent it; a moment that its work does not set.

    0: the one that was told is dead already, and the next is not there yet.
    """
    pid = it.running.stats()["dispatcher_pid"]
    pause(choose.uniform(0.0, 0.01))
    if processes.state(pid) in ("", "Z"):
        return 0
    with suppress(ProcessLookupError):
        moment = time.monotonic_ns()  # a silence begins here at the latest
        processes.kill(pid, number)
        return moment
    return 0


def judge_all(result: Result, it: Target, tally: Tally, kills: int) -> list[int]:
    """No worker was hurt: whatever failed was lost with a dispatcher. When each was accepted."""
    verdict = it.verdict()
    lost = judge(result, tally, verdict, dispatchers=kills).in_dispatcher
    result.counts |= {"kills": kills, "lost per kill": lost / max(1, kills)}
    result.check("<= 0.1 lost per kill", lost <= max(1.0, 0.1 * kills))
    result.check("lost nowhere but between accept and send", lost == len(tally.failed))
    return sorted(life.accepted for life in verdict.lives.values())


@scenario(
    "kill-dispatcher",
    title="SIGKILL the dispatcher every 100 ms, 48 clients",
    target="<= 0.1 lost per kill; no listener reset; back in <= 20 ms at p95",
    mutant="late-dispatcher",
)
def kill_dispatcher(run: Run) -> Result:
    result, choose = Result(), random.Random(6)
    with target(run, "probe:serve", workers=4) as it:
        with it.crowd("/sleep/4") as load:
            load.wait_more(CLIENTS)
            calm = [time.monotonic_ns() for _ in Ticks(EVERY / 5, length(run, 2.0, 10.0))][:-10]
            ticks = Ticks(EVERY, length(run, 5.0, 20.0))
            kills = [at for _ in ticks if (at := kill(it, signal.SIGKILL, choose))]
            load.wait_more(CLIENTS)
            tally = load.stop()
        with suppress(TimeoutError):  # the last one is told of a moment later
            it.wait_told("dispatcher-replaced", len(kills))
        replaced = len(it.told("dispatcher-replaced"))
    accepted = judge_all(result, it, tally, len(kills))
    away = silences(accepted, kills)
    back = quantile(away, 0.95)
    undisturbed = quantile(silences(accepted, calm), 0.95)
    result.counts |= {"back p95 ms": back, "undisturbed p95 ms": undisturbed}
    latency(result, tally)
    result.check("back in <= 20 ms at p95", back - undisturbed <= BACK_MS)
    # Where other work makes every pause long, the shortest one still tells who is always late.
    result.check("back in < 100 ms at least once", min(away) < LATE_MS)
    result.check("each kill was answered with a new dispatcher", replaced == len(kills))
    result.check("kills happened", len(kills) >= length(run, 20, 100))
    return result


@scenario(
    "stop-dispatcher",
    title="SIGSTOP of the dispatcher, 48 clients",
    target="replaced after 1 s of silence; <= 0.1 lost per stop; no listener reset",
    mutant="late-dispatcher",
)
def stop_dispatcher(run: Run) -> Result:
    result, stops, choose = Result(), [], random.Random(7)
    with target(run, "probe:serve", workers=4) as it, it.crowd("/sleep/4") as load:
        for number in range(int(length(run, 2, 20))):
            load.wait_more(CLIENTS)
            stops.append(kill(it, signal.SIGSTOP, choose))
            it.wait_told("dispatcher-replaced", number + 1)
            load.wait_more(CLIENTS)
        tally = load.stop()
    accepted = judge_all(result, it, tally, len(stops))
    away = [next_after(accepted, at + 10_000_000) - at for at in stops]
    result.counts["away p50 ms"] = quantile(away, 0.5) / 1e6
    result.counts["away max ms"] = max(away) / 1e6
    result.check("replaced within 2 s", max(away) < 2e9)
    return result


def next_after(moments: list[int], moment: int) -> int:
    return moments[bisect.bisect_right(moments, moment)]
