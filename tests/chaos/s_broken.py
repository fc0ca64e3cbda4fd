"""Deploys that go wrong in eight ways: the old code serves on as if nothing had been asked."""

from __future__ import annotations

import socket
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from rrdispatch import Cluster
from rrdispatch.errors import ReloadError
from tests.chaos.deploys import Deployment, Traffic, after, together
from tests.chaos.kit import Result, Run, scenario
from tests.chaos.s_reload import Watched, deployed, holders, rest
from tests.harness.clusters import address, worker_pids
from tests.harness.journal import Journal
from tests.harness.records import TIMEOUT, Record, Tally

READY_TIMEOUT = 4.0
PROBATION = 6.0
REFUSED = "all were refused"


@dataclass(frozen=True)
class Broken:
    """What a deploy adds, and a word that must come with the refusal."""

    name: str
    addition: str
    said: str
    serves: bool = False  # for a while: what is inside it when it dies, dies with it


BROKEN = (
    Broken("import error", "\nimport no_such_module\n", "no_such_module"),
    Broken("exit 0 at boot", """
import sys
print("nothing to do")
sys.exit(0)
""", "nothing to do"),
    Broken("hang at boot", """
print("waits for ever", flush=True)
import threading
threading.Event().wait()
""", "waits for ever"),
    Broken("dies after 1 s", """
import os, threading
print("one second to live", flush=True)
threading.Timer(1.0, os._exit, [9]).start()
""", "one second to live", serves=True),
    Broken("dies after its 10th answer", """
import os
_whole, _answers = asgi, 0

async def asgi(scope, receive, send):
    global _answers
    await _whole(scope, receive, send)
    if scope["type"] == "http":
        _answers += 1
        if _answers == 10:
            print("goodbye", flush=True)
            os._exit(9)
""", "goodbye", serves=True),
    Broken("its port is taken", """
import socket
socket.create_server(("127.0.0.1", {port}))
""", "Address already in use"),
    Broken("slower than ready_timeout", f"""
import time
print("migrating", flush=True)
time.sleep({2 * READY_TIMEOUT})
""", "migrating"),
)  # fmt: skip
# By then all workers are of the new code, however long one takes to boot: only the probation is
# between this and the end of the reload.
LATE = Broken("dies after 3 s", """
import os, pathlib, threading, time
print("three seconds to live", flush=True)

def _die():
    here = pathlib.Path(__file__).parent
    (here / f"booted-{os.environ['RRDISPATCH_SLOT']}").touch()
    while len(list(here.glob("booted-*"))) < 2:
        time.sleep(0.05)
    time.sleep(3)
    os._exit(9)

threading.Thread(target=_die, daemon=True).start()
""", "three seconds to live", serves=True)  # fmt: skip


@dataclass
class Counts:
    """Of all broken deploys together."""

    refused: Counter[str]
    unsaid: list[str]
    zero: list[str]
    new: list[str]


def refuse(running: Cluster, broken: Broken, counts: Counts) -> bool:
    """One reload onto it, which must be refused with the reason. Was it?"""
    generation = running.stats()["generation"]
    try:
        running.reload(probation=PROBATION)
        return False
    except ReloadError as error:
        counts.refused[broken.name] += 1
        counts.unsaid += [] if broken.said in f"{error}\n{error.output}" else [broken.name]
        counts.zero += [] if error.exit_code else [broken.name]
    rest(running)
    stats = running.stats()
    now = {stats["generation"], *(row["generation"] for row in stats["workers"])}
    counts.new += [] if now == {generation} else [broken.name]
    return True


@scenario(
    "reload-broken",
    title="broken deploys under load: " + ", ".join(each.name for each in (*BROKEN, LATE)),
    target="0 failed (what is inside a worker that dies: <= its concurrency); non-zero, reason "
    "printed; all on the old generation",
    mutant="no-probation",
)
def reload_broken(run: Run) -> Result:
    result, rounds = Result(), int(run.size(1, 10))
    tried = (*BROKEN * rounds, LATE)
    app = Deployment(run.tmp / "app")
    (run.tmp / "journal").mkdir()
    journal = Journal(run.tmp / "journal")
    counts = Counts(Counter(), [], [], [])
    with ExitStack() as stack:
        taken = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        port = taken.getsockname()[1]
        settings: dict[str, Any] = {"ready_timeout": READY_TIMEOUT, "env": journal.env}
        running = stack.enter_context(deployed(run, app, **settings))
        watched = Watched(running, holders(running))
        watched.begin()
        good = {int(row["pid"]) for row in running.stats()["workers"]}
        with Traffic(address(running), slow=False) as traffic:
            for broken in tried:
                app.deploy("broken", broken.addition.replace("{port}", str(port)))
                if not refuse(running, broken, counts):
                    result.check(REFUSED, False)
                    return result  # what serves now dies again and again
                watched.look()
            since = time.monotonic_ns()
            traffic.more()
            tallies = traffic.stop()
        result.check("the old workers live on", good == set(worker_pids(running).values()))
        app.deploy("v1")
        running.reload()
        watched.judge(result)
        last = {row["generation"] for row in running.stats()["workers"]}
        result.check("a good deploy afterwards serves", last == {running.stats()["generation"]})
    tally = together(tallies)
    result.counts |= {"reloads": len(tried), "refused": sum(counts.refused.values())}
    judge_broken(result, tally, journal, good)
    versions = {record.version for record in after(tally, since)}
    result.check(REFUSED, counts.refused == Counter(each.name for each in tried))
    result.check("non-zero", not counts.zero)
    result.check("the reason is printed", not counts.unsaid)
    result.check("all on the old generation", not counts.new and versions == {"v0"})
    return result


def judge_broken(result: Result, tally: Tally, journal: Journal, good: set[int]) -> None:
    """What failed must have been inside a worker that died on purpose: in none of the ``good``."""
    held, others = journal.inside(tally.failed)
    inside = max(Counter(held.values()).values(), default=0)
    result.counts |= {"requests": len(tally.records), "failed": len(others)}
    result.counts["inside a worker that died"] = len(held)
    result.counts["hangs"] = tally.outcomes()[TIMEOUT]
    if others:
        result.counts["which"] = f"{Tally(others)}: {others[0].detail}"
    result.check("0 failed", not others and not good & set(held.values()))
    result.check("inside <= its concurrency", inside <= concurrency(tally.records))


def concurrency(records: list[Record]) -> int:
    """The most requests that were going on at once."""
    moments = [(record.intended, 1) for record in records]
    moments += [(record.ended, -1) for record in records]
    most = now = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most
