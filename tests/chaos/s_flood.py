"""Very many connections: idle ones, slow readers, new ones without an end, and no slot free."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

from rrdispatch import Cluster
from tests.chaos.backlog import (
    Backlog,
    counters,
    lost_on_loopback,
    permitted,
    retry_times,
    sysctl,
    watched,
)
from tests.chaos.flood import Crowd, Plan, Seen, all_permitted, outcomes, room_for
from tests.chaos.gate import HERE, Gate
from tests.chaos.gauges import Samples, grown, watching
from tests.chaos.kit import Result, Run, scenario
from tests.chaos.resets import Resets, by_the_kernel, established, watching_resets
from tests.chaos.service import pause
from tests.harness.clusters import address, cluster, worker_pids
from tests.harness.records import quantile
from tests.harness.servers import wait_until

QUEUE = 32
FLAT_KB = 192  # its ring of 120 kB of messages to the primary is touched page by page
# Until then SYNs are sent again every second. Later ones are 4 s and more apart, and the kernel's
# timers for that run in bunches of half a second: too many at once for the loopback's queue.
HOLD = 2.5


def service(run: Run, app: str, **settings: Any) -> Any:
    """Two workers with our own limits; no ledger: it would grow in the dispatcher's memory."""
    return cluster(
        app, workers=2, queue_limit=QUEUE, dispatcher=run.dispatcher, access_log=False, **settings
    )


def most_pending(running: Cluster) -> float:
    return max(int(row["pending"]) for row in running.stats()["workers"])


def dispatcher(running: Cluster) -> int:
    return int(running.stats()["dispatcher_pid"])


def judge_memory(result: Result, samples: Samples) -> None:
    result.counts["RSS kB"] = int(samples.rss[-1])
    result.counts["RSS growth kB"] = grown(samples.rss)
    result.check("memory flat", max(samples.rss) - min(samples.rss) <= FLAT_KB)


@scenario(
    "flood-idle",
    title="10,000 idle connections, 500 slow readers, 1,000 new ones a second",
    target="0 failed; dispatcher's memory and CPU flat; queue cap kept",
    mutant="leaky-dispatcher",
)
def flood_idle(run: Run) -> Result:
    idle, slow = int(run.size(1000, 10_000)), int(run.size(50, 500))
    rate, seconds = run.size(200, 1000), run.size(5, 60)
    if not room_for(idle + slow):
        return Result(skipped=f"the hard limit of descriptors is below {idle + slow}")
    result = Result()
    with ExitStack() as stack:
        stack.enter_context(all_permitted())
        it = stack.enter_context(service(run, "flooded:serve", cwd=HERE))
        where, pid = address(it), dispatcher(it)
        still = stack.enter_context(Crowd(Plan(where, idle, rate=1000, idle=True)))
        readers = Plan(where, slow, rate=200, slow=True, path="/big/512")
        slowly = stack.enter_context(Crowd(readers))
        still.wait_begun()
        slowly.wait_begun()
        with watching(pid, lambda: most_pending(it)) as samples:
            plan = Plan(where, int(rate * seconds), rate=rate)
            with Crowd(plan) as quickly:
                new = quickly.finish()
        lived, read = still.finish(), slowly.finish()
    result.counts |= {"idle": outcomes(lived), "slow": outcomes(read), "new": outcomes(new)}
    judge_pace(result, new)
    result.counts["CPU % of the dispatcher"] = 100 * sum(samples.cpu) / len(samples.cpu)
    result.counts["CPU growth, % of a core"] = 100 * grown(samples.cpu)
    result.counts["most pending"] = int(max(samples.seen))
    judge_memory(result, samples)
    failed = [each for each in (*lived, *read, *new) if not each.ok]
    whole = len(lived) == idle and len(read) == slow and len(new) == plan.count
    result.check("0 failed", not failed and whole)
    result.check("CPU flat", grown(samples.cpu) <= 0.02)
    result.check("queue cap kept", max(samples.seen) <= QUEUE)
    return result


def judge_pace(result: Result, new: list[Seen]) -> None:
    """How fast they really came, and were answered."""
    took = (max(each.begun for each in new) - min(each.begun for each in new)) / 1e9
    result.counts["new per second"] = len(new) / max(took, 1e-9)
    waits = [(each.ended - each.begun) / 1e6 for each in new if each.ok]
    result.counts["p99 ms"] = quantile(waits, 0.99)


@scenario(
    "flood-full",
    title="15,000 connects at once while every slot is full",
    target="0 resets but the kernel's own; dispatcher's memory and CPU flat; queue cap exact; "
    "each connects at its next SYN retry",
    mutant="loose-queue",
)
def flood_full(run: Run) -> Result:
    number, backlog = int(run.size(1500, 15_000)), int(run.size(256, 4096))
    if not room_for(number):
        return Result(skipped=f"the hard limit of descriptors is below {number}")
    result, gate = Result(), Gate(run.tmp / "app")
    slots = 2 * (QUEUE + 1)
    # Both workers are blocked on purpose: neither is to be passed over as stalled for that.
    settings: dict[str, Any] = {"cwd": gate.directory, "env": gate.env, "backlog": backlog}
    settings["stall_timeout"] = 600
    settings["policy"] = "least-connections"  # in turn, a synchronous worker's queue is shorter
    with service(run, "gated:serve", **settings) as it:
        pid, workers = dispatcher(it), worker_pids(it)
        lost, before = lost_on_loopback(), counters()
        if not permitted(pid):
            return Result(skipped="pidfd_getfd is not permitted: the backlog cannot be looked at")
        plan = Plan(address(it), number, patience=120)
        with watched(pid) as queue, watching_resets() as resets, Crowd(plan) as crowd:
            crowd.wait_begun()
            wait_until(lambda: queue.deepest > queue.limit, 10.0, "the backlog is full")
            with watching(pid, lambda: most_pending(it)) as samples:
                pause(HOLD)
            stats = it.stats()
            opened = time.monotonic_ns()
            gate.open()
            seen = crowd.finish()
            result.counts["SYNs lost on the loopback"] = lost = lost_on_loopback() - lost
            judge_retries(result, seen, queue, opened, lost)
            judge_resets(result, seen, plan, resets)
        explain(result, seen, opened, counters() - before)
        result.check("no worker died", worker_pids(it) == workers)
        gate.shut()
        result.counts["accepted at the end"] = int(it.stats()["accepted"])
    pending = [int(row["pending"]) for row in stats["workers"]]
    result.counts |= {"connects": outcomes(seen), "accepted while full": int(stats["accepted"])}
    later = [each.connected for each in seen if each.connected > opened]
    recovery = (min(later) - opened) / 1e9
    result.counts["first connect s after room"] = recovery
    result.check("it goes on at once", recovery < 1.0)
    result.counts["CPU % of the dispatcher while full"] = 100 * max(samples.cpu)
    judge_memory(result, samples)
    cpu = sum(samples.cpu) / len(samples.cpu)
    result.check("CPU flat", cpu < 0.05 or run.dispatcher != "c")
    exact = pending == [QUEUE, QUEUE] and int(stats["accepted"]) == slots
    result.check("queue cap exact", exact and max(samples.seen) == QUEUE)
    return result


def judge_resets(result: Result, seen: list[Seen], plan: Plan, resets: Resets | None) -> None:
    """Those of the kernel have to be proven, each, and stay rare: else they are ours."""
    failed, excused = [each for each in seen if not each.ok], 0
    if failed and resets:
        resets.look()
        alive = established(plan.address) if resets.whole else set()
        excused = sum(
            each.outcome == "ECONNRESET"
            and resets.whole
            and by_the_kernel(each.client, plan.address, resets.seen, alive)
            for each in failed
        )
    if excused:
        result.counts["reset by the kernel, nobody had closed it"] = excused
    whole = len(seen) == plan.count and len(failed) == excused
    result.check("0 resets, all answered", whole and excused <= max(1, plan.count // 5000))


def explain(result: Result, seen: list[Seen], opened: int, kernel: Counter[str]) -> None:
    """Of those that failed: when, and what the kernel counted meanwhile."""
    failed = [each for each in seen if not each.ok]
    if failed:
        first = failed[0]
        moments = ", ".join(
            f"{name} {(moment - opened) / 1e9:+.3f} s"
            for name, moment in (("connected", first.connected), ("ended", first.ended))
        )
        result.counts["which"] = f"{first.outcome}, SYN retries {first.retries}, {moments}"
        names = ("OutRsts", "EstabResets", "ListenOverflows")
        told = [name for name in kernel if name in names or "Abort" in name or "ookie" in name]
        result.counts["kernel"] = ", ".join(f"{name} {kernel[name]}" for name in told)


def judge_retries(result: Result, seen: list[Seen], queue: Backlog, opened: int, lost: int) -> None:
    """Each connected when its SYN was sent again, and at the first time that found room.

    A SYN that never came to the listener (``lost``) is made good by the one after it.
    """
    retries = [0.0, *retry_times()]
    early = [each for each in seen if each.connect_seconds < 0.98 * retries[each.retries]]
    missed = [each for each in seen if passed_over(each, queue.last_drop, retries)]
    result.counts |= {
        "backlog": queue.limit, "somaxconn": sysctl("core/somaxconn", 0),
        "tcp_max_syn_backlog": sysctl("ipv4/tcp_max_syn_backlog", 0),
        "deepest": queue.deepest, "SYNs dropped": queue.drops,
        "SYN retries": sum(each.retries for each in seen),
        "connected with retries": len([each for each in seen if each.retries]),
        "last drop s after room": (queue.last_drop - opened) / 1e9,
        "slowest connect s": max(each.connect_seconds for each in seen),
        "before its SYN was sent again": len(early),
        "not at the next one": len(missed),
    }  # fmt: skip
    result.check("SYNs were dropped", queue.drops > 0)
    result.check("each connects when its SYN is sent again", not early)
    result.check("each connects at its next SYN retry", len(missed) <= lost)


def passed_over(each: Seen, last_drop: int, retries: list[float]) -> bool:
    """The SYN before the one that got in was sent after the last drop: there was room for it.

    By the kernel's count of SYNs, not by when a client on a busy machine saw that it is connected.
    """
    return each.retries > 0 and retries[each.retries - 1] > (last_drop - each.begun) / 1e9
