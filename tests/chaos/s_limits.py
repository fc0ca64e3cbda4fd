"""Out of descriptors: in the dispatcher, in the workers, and in flight as an ordinary user."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.chaos.gate import Gate
from tests.chaos.gauges import Usage, lowest_free
from tests.chaos.kit import Result, Run, scenario
from tests.chaos.service import CLIENTS, HANG, Target, judge, latency, new_ledger, pause, target
from tests.harness.load import load_beside
from tests.harness.records import Plan, Record, Tally
from tests.harness.servers import Service, wait_until

WORKERS = 4
MOST_CPU = 0.05
RECOVERY = 1.0  # twice the longest pause of whoever waits for a descriptor


@dataclass
class Waits:
    """Of each time that somebody was at a limit."""

    cpu: list[float] = field(default_factory=list)
    recovery: list[float] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)  # meanwhile
    replaced: int = 0  # dispatchers that were not there any more

    def look(self, usage: Usage) -> None:
        try:
            self.cpu.append(usage.share())
        except FileNotFoundError:
            self.replaced += 1

    def judge(self, result: Result, run: Run) -> None:
        """The pure-Python dispatcher looks as often, and each look costs it more."""
        most = max(self.cpu, default=1.0)
        result.counts["CPU % of the dispatcher meanwhile"] = 100 * most
        result.counts["recovery s"] = max(self.recovery)
        result.counts["answered meanwhile"] = sum(self.answered)
        result.check("CPU < 5 % while waiting", most < MOST_CPU or run.dispatcher != "c")
        result.check("the dispatcher is not replaced", not self.replaced)
        result.check("recovery <= 1 s", max(self.recovery) <= RECOVERY)


class Limit:
    """Live processes get no room beyond what they have, for as long as the block runs.

    Made while they are idle: what they hold then is what they always hold.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self.full = {pid: lowest_free(pid) for pid in pids}
        self.before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}

    def __enter__(self) -> Limit:
        for pid, (_, hard) in self.before.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (self.full[pid], hard))
        return self

    def __exit__(self, *_: object) -> None:
        for pid, limits in self.before.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def first_after(records: list[Record], moment: int) -> float:
    """Seconds from a moment to the first answer after it."""
    return (min(each.ended for each in records if each.ended > moment) - moment) / 1e9


def starve(it: Target, pids: Sequence[int], hold: float, waits: Waits) -> list[Tally]:
    """Clients come while these processes have no room. They are idle when it is taken away."""
    dispatcher = int(it.running.stats()["dispatcher_pid"])
    with Limit(pids) as limit:
        load = it.crowd("/")
        usage = Usage(dispatcher)
        pause(hold)
        waits.look(usage)
        waits.answered.append(len(load.records))
        moment = time.monotonic_ns()
        limit.__exit__()
    with load:
        load.wait_for(lambda records: len(records) > waits.answered[-1] + CLIENTS)
        waits.recovery.append(first_after(load.records, moment))
        return [load.stop()]


def starving(run: Run, app: str, victims: Callable[[Target], Sequence[int]]) -> Result:
    """In turn: somebody is at its limit, and is not."""
    result, waits = Result(), Waits()
    rounds, hold = int(run.size(1, 4)), run.size(1.5, 10.0)
    tallies: list[Tally] = []
    with target(run, app, workers=WORKERS) as it:
        tallies.append(warm_up(it))
        for number in range(rounds):
            # Room comes at different moments of the pause that has grown.
            tallies += starve(it, victims(it), hold + 0.3 * number, waits)
            wait_idle(it)
        errors = it.told("accept-error")
    tally = Tally([record for each in tallies for record in each.records])
    result.counts |= {"rounds": rounds, "seconds each": hold, "accept errors told": len(errors)}
    judge(result, tally, it.verdict(), it.told("removed"))
    waits.judge(result, run)
    latency(result, tally)
    result.check("0 lost", not tally.failed)
    result.check("nothing could be answered meanwhile", not sum(waits.answered))
    return result


def warm_up(it: Target) -> Tally:
    """Whatever a worker opens once is open afterwards."""
    with it.crowd("/") as load:
        load.wait_more(10 * CLIENTS)
        tally = load.stop()
    wait_idle(it)
    return tally


def wait_idle(it: Target) -> None:
    """Until every worker has closed what it had: room that it gives back later would be room."""

    def idle() -> bool:
        return all(row["inflight"] == row["pending"] == 0 for row in it.running.stats()["workers"])

    wait_until(idle, 60.0, "no worker has a connection")


@scenario(
    "limit-dispatcher",
    title="the dispatcher's fd table is full (EMFILE at accept), 48 clients wait",
    target="0 lost; CPU < 5 % while waiting; recovery <= 1 s",
    mutant="no-pause",
)
def limit_dispatcher(run: Run) -> Result:
    result = starving(run, "probe:serve", lambda it: [it.running.stats()["dispatcher_pid"]])
    result.check("it said so", int(result.counts["accept errors told"]) > 0)
    return result


@scenario(
    "limit-workers",
    title="every worker's fd table is full, synchronous workers, 48 clients wait",
    target="0 lost; CPU < 5 % while waiting; recovery <= 1 s",
    mutant="no-room-check",
)
def limit_workers(run: Run) -> Result:
    return starving(run, "probe:serve", lambda it: list(it.serving().values()))


@scenario(
    "limit-asyncio",
    title="every worker's fd table is full, asyncio (uvicorn), 48 clients wait",
    target="0 lost; CPU < 5 % while waiting; recovery <= 1 s",
    mutant="no-room-check",
)
def limit_asyncio(run: Run) -> Result:
    return starving(run, "probe:asgi", lambda it: list(it.serving().values()))


@scenario(
    "limit-half",
    title="2 of 4 workers' fd tables are full, the others have all they can do, 48 clients",
    target="0 lost; all are answered by the others within 1 s, not when there is room again",
    mutant="no-room-check",
)
def limit_half(run: Run) -> Result:
    result = Result()
    with target(run, "probe:serve", workers=WORKERS) as it:
        before = warm_up(it)
        limit = Limit(list(it.serving().values())[: WORKERS // 2])
        with it.crowd("/sleep/5") as load:
            load.wait_more(CLIENTS)
            for _ in range(int(run.size(2, 15))):
                with limit:
                    pause(1.5)
                load.wait_more(CLIENTS)
            tally = load.stop()
    verdict = it.verdict()
    judge(result, Tally(before.records + tally.records), verdict, it.told("removed"))
    latency(result, tally)
    result.counts["moved"] = verdict.counts["moved"]
    result.check("0 lost", not tally.failed)
    result.check("nobody waits for room", float(result.counts["max ms"]) < 1000)
    result.check("what waited at them was moved", verdict.counts["moved"] > 0)
    return result


# ---- in flight ---------------------------------------------------------------------------------

REFS = 256
REF_WORKERS = 6
QUEUE = 69  # the most that a channel takes; six of them are more than may be in flight
PREPARE = """
import ctypes, os, resource, sys
limit, who, *command = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
if who == "user":
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
elif who == "bounded":
    # The kernel asks for either of these two (CAP_SYS_ADMIN, CAP_SYS_RESOURCE).
    for capability in (21, 24):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(command[0], command)
"""
SEND = """
import errno, socket
one, other = socket.socketpair()
try:
    socket.send_fds(one, [b"x"], [0])
    print("sent")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def prepared(who: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", PREPARE, str(REFS), who)


def works(prefix: Sequence[str]) -> bool:
    """Our program can be run that way."""
    trial = subprocess.run(
        [*prefix, sys.executable, "-c", "import rrdispatch"], capture_output=True, check=False
    )
    return trial.returncode == 0


def ordinary() -> tuple[str, tuple[str, ...]]:
    """As what, and the command for it."""
    if os.getuid():
        return f"uid {os.getuid()}", prepared("same")
    if works(prepared("user")):
        return "uid 65534", prepared("user")
    return "root without two capabilities", prepared("bounded")


@scenario(
    "limit-inflight",
    title="ETOOMANYREFS: an ordinary user with a limit of 256, 6 queues of 69, 400 clients",
    target="0 lost; CPU < 5 % while waiting; recovery <= 1 s",
    mutant="no-pause",
)
def limit_inflight(run: Run) -> Result:
    who, prefix = ordinary()
    return inflight(run, who, prefix)


@scenario(
    "limit-inflight-userns",
    title="ETOOMANYREFS: root of a user namespace, the same",
    target="0 lost; CPU < 5 % while waiting; recovery <= 1 s",
    mutant="no-pause",
)
def limit_inflight_userns(run: Run) -> Result:
    prefix = ("unshare", "-Ur", *prepared("same"))
    if shutil.which("unshare") is None or not works(prefix):
        return Result(skipped="unshare -Ur is not there or not permitted")
    return inflight(run, "root of a user namespace", prefix)


def inflight(run: Run, who: str, prefix: tuple[str, ...]) -> Result:
    result, waits = Result(), Waits()
    run.tmp.chmod(0o755)
    gate, ledger = Gate(run.tmp / "app"), new_ledger(run)
    os.chmod(ledger.path, 0o666)
    options = ["-i", str(REF_WORKERS), "--queue-limit", str(QUEUE), "--dispatcher", run.dispatcher]
    # All are blocked on purpose, and all queues are to be full: in turn, a synchronous worker's is
    # shorter, and whoever is stalled is given nothing.
    options += ["--policy", "least-connections", "--stall-timeout", "600"]
    clients = REF_WORKERS * QUEUE - 14

    class Limited(Service):
        pass

    Limited.prefix = prefix
    with Limited("gated:serve", *options, cwd=gate.directory, env=gate.env | ledger.env) as service:
        (dispatcher,) = ledger.judge(ended=False).dispatchers
        plan = Plan(service.address, count=clients, timeout=HANG + run.size(2, 20))
        load = load_beside(service, plan)
        steady(lambda: ledger.judge(ended=False).accepted)
        usage = Usage(dispatcher)
        pause(run.size(1.0, 20.0))
        waits.look(usage)
        waits.answered.append(len(load.records))
        accepted = ledger.judge(ended=False).accepted
        result.check("the limit was met", another_is_refused(prefix) and accepted < clients)
        moment = time.monotonic_ns()
        gate.open()
        tally = load.finish()
        gate.shut()
    verdict = ledger.judge(ended=True)
    later = [life.accepted for life in verdict.lives.values() if life.accepted > moment]
    waits.recovery.append((min(later, default=0) - moment) / 1e9)
    result.counts |= {"as": who, "accepted before it was full": accepted}
    judge(result, tally, verdict)
    waits.judge(result, run)
    result.check("0 lost", not tally.failed and len(tally.records) == clients)
    result.check("no more than the limit", accepted <= REFS + REF_WORKERS + 2)
    return result


def another_is_refused(prefix: Sequence[str]) -> bool:
    """The limit is the user's: while it is met, nobody of them with the same limit can send."""
    told = subprocess.run(
        [*prefix, sys.executable, "-c", SEND], capture_output=True, text=True, check=True
    )
    return told.stdout.strip() == "ETOOMANYREFS"


def steady(measure: Callable[[], int], looks: int = 10) -> None:
    """Waits until a number has come to rest."""
    seen = [measure()]

    def same() -> bool:
        pause(0.05)
        seen.append(measure())
        return len(seen) > looks and len(set(seen[-looks:])) == 1 and seen[-1] > REF_WORKERS

    wait_until(same, 30.0, "the number comes to rest")
