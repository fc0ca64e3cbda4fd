"""Reloads: many in a row, on top of each other, in storms, with a stop in the midst of one."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rrdispatch import Cluster
from rrdispatch.errors import ReloadError
from tests.chaos import deploys
from tests.chaos.deploys import Deployment, Traffic, after, restarts, together
from tests.chaos.gauges import grown, threads
from tests.chaos.kit import Result, Run, scenario
from tests.harness import census, processes
from tests.harness.clusters import address, cluster, family
from tests.harness.records import OK, REFUSED, TIMEOUT, Tally
from tests.harness.servers import Service, wait_until

WORKERS = 2
# Half of it is the time in which a new client's first request must have come: a client that gets no
# processor for so long is told nothing, and closed.
DRAIN = 10.0
SHORT_DRAIN = 4.0  # where the next step waits until the old workers end their WebSockets
KEPT = ("primary", "dispatcher", "logger")
GROWTH_KB = 512
COUNTING = threading.Lock()


def deployed(run: Run, app: Deployment, **more: Any) -> Any:
    """A cluster of that app, with what all reload scenarios need."""
    wanted = {
        "workers": WORKERS, "probation": 0.2, "drain_timeout": SHORT_DRAIN, "access_log": False,
        "max_restarts": 0, "dispatcher": run.dispatcher,
    }  # fmt: skip
    return cluster("deployed:asgi", cwd=app.directory, **wanted | more)


def rest(running: Cluster) -> None:
    """Until every slot serves and nothing is left of what was replaced."""

    def at_rest() -> bool:
        states = [row["state"] for row in running.stats()["workers"]]
        return states == ["ready"] * WORKERS and len(family(running)) == WORKERS + len(KEPT)

    wait_until(at_rest, 60.0, "the cluster is at rest")


def holders(running: Cluster) -> dict[str, int]:
    """Pids of those that reloads do not replace."""
    stats = running.stats()
    return {name: int(stats[f"{name}_pid"]) for name in KEPT}


@dataclass
class Watched:
    """Descriptors, memory and threads of those that stay, over many reloads."""

    running: Cluster
    pids: dict[str, int]
    fds: dict[str, Counter[str]] = field(default_factory=dict)
    rss: dict[str, list[float]] = field(default_factory=dict)
    tasks: dict[str, list[float]] = field(default_factory=dict)

    def begin(self) -> None:
        rest(self.running)
        self.fds = {name: census.kinds(pid) for name, pid in self.pids.items()}

    def look(self) -> None:
        for name, pid in self.pids.items():
            self.rss.setdefault(name, []).append(processes.memory(pid).rss)
            self.tasks.setdefault(name, []).append(threads(pid))

    def _as_at_first(self) -> bool:
        return all(census.kinds(pid) == self.fds[name] for name, pid in self.pids.items())

    def judge(self, result: Result) -> None:
        """After the load: at rest again, and everything as at the beginning."""
        rest(self.running)
        with suppress(TimeoutError):  # a file that is just being read is closed again
            wait_until(self._as_at_first, 10.0)
        delta = {
            name: sum(census.kinds(pid).values()) - sum(self.fds[name].values())
            for name, pid in self.pids.items()
        }
        growth = {name: grown(values) for name, values in self.rss.items()}
        result.counts["fds delta"] = said(delta)
        result.counts["RSS growth kB"] = said(growth)
        result.counts["threads growth"] = said({k: grown(v) for k, v in self.tasks.items()})
        result.check("fds delta 0", self._as_at_first() and not any(delta.values()))
        result.check(f"RSS flat (+{GROWTH_KB} kB)", max(growth.values()) <= GROWTH_KB)
        result.check("threads flat", all(grown(values) <= 0 for values in self.tasks.values()))
        result.check("the same primary, dispatcher, logger", holders(self.running) == self.pids)
        workers = {int(row["pid"]) for row in self.running.stats()["workers"]}
        result.check("no worker holds what is another's", not in_common(workers))


def said(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:+.0f}" for name, value in values.items())


def judge(result: Result, tallies: dict[str, Tally]) -> Tally:
    """What holds whenever code is replaced."""
    tally = together(tallies)
    result.counts["requests"] = len(tally.records)
    result.counts["failed"] = len(tally.failed)
    result.counts["WebSockets told to come again"] = restarts(tallies)
    result.counts["hangs"] = tally.outcomes()[TIMEOUT]
    if tally.failed:
        whose = {name: str(Tally(each.failed)) for name, each in tallies.items() if each.failed}
        result.counts["which"] = f"{whose}, e.g. {tally.failed[0].detail}"
    result.check("0 failed", not tally.failed)
    return tally


def judge_age(result: Result, tally: Tally, moment: int, version: str) -> None:
    """Everything that began after a moment is answered by one version."""
    versions = Counter(record.version for record in after(tally, moment))
    result.counts["answers after the last reload"] = sum(versions.values())
    result.check("old code gone", set(versions) == {version})


@scenario(
    "reload-many",
    title="500 reloads under load: fresh, keep-alive, slow and streamed answers, WebSockets",
    target="0 failed; fds delta 0; RSS and threads flat; old code gone",
    mutant="leaky-fds",
)
def reload_many(run: Run) -> Result:
    """These WebSockets are short: the next reload waits for the old workers' end."""
    number = 2 if run.mutant else int(run.size(12, 500))
    return reload_in_a_row(run, number, turns=1, drain=DRAIN)


@scenario(
    "reload-sockets",
    title="reloads that find WebSockets open for ever, under the same load",
    target="0 failed, close 1012 is ok; fds delta 0; RSS and threads flat; old code gone",
    mutant="no-drain",
)
def reload_sockets(run: Run) -> Result:
    number = int(run.size(2, 15))
    result = reload_in_a_row(run, number, turns=0, drain=run.size(SHORT_DRAIN, 2 * SHORT_DRAIN))
    told = int(result.counts["WebSockets told to come again"])
    # A client that is just coming again when the next reload begins has none to move.
    result.check("reloads move the WebSockets", told >= 7 * number)
    return result


def reload_in_a_row(run: Run, number: int, turns: int, drain: float) -> Result:
    result = Result()
    app = Deployment(run.tmp / "app")
    spawned: list[int] = []
    killed: list[int] = []  # did not end within drain_timeout
    moments: list[int] = []  # when each version was all that took new connections

    def hear(event: dict[str, Any]) -> None:
        names = {"spawned": spawned, "killed": killed}
        if event["event"] in names:
            names[event["event"]].append(int(event["pid"]))

    with deployed(run, app, on_event=hear, drain_timeout=drain) as running:
        watched = Watched(running, holders(running))
        watched.begin()
        began = time.monotonic()
        with Traffic(address(running), turns=turns) as traffic:
            for turn in range(1, number + 1):
                app.deploy(f"v{turn}")
                running.reload()
                moments.append(time.monotonic_ns())
                watched.look()
                if not turns:  # all have come again, and the next reload has them to move
                    traffic.loads[deploys.SOCKETS].wait_more(16)
            took = time.monotonic() - began
            rest(running)
            since = time.monotonic_ns()
            traffic.more()
            tallies = traffic.stop()
        watched.judge(result)
        serving = {int(row["pid"]) for row in running.stats()["workers"]}
        old = [pid for pid in spawned if pid not in serving]
        left = [each.pid for each in family(running) if each.pid in old]
    result.counts |= {"reloads": number, "s per reload": took / number, "old workers": len(old)}
    result.counts["killed at drain_timeout"] = len(killed)
    tally = judge(result, tallies)
    judge_age(result, tally, since, f"v{number}")
    result.counts["answers of too old code"] = too_old(tallies[deploys.FRESH], moments)
    result.check("no new connection meets old code", not result.counts["answers of too old code"])
    result.check("old workers gone", not left and len(old) == number * WORKERS)
    return result


def in_common(pids: set[int]) -> set[str]:
    """Sockets that more than one of these processes hold: a leak keeps a channel open for ever."""
    holders = Counter(
        identity
        for pid in pids
        for identity in {each.identity for each in census.fds(pid) if "unix" in each.kind}
    )
    return {identity for identity, number in holders.items() if number > 1}


def too_old(tally: Tally, moments: list[int]) -> int:
    """New connections, begun after a reload had succeeded, that older code answered."""
    wrong = 0
    for record in tally.ok:
        done = sum(moment < record.intended for moment in moments)
        wrong += int(record.version[1:]) < done
    return wrong


@scenario(
    "reload-over",
    title="reloads on top of each other: each begins while another one is at work",
    target="0 failed; the last deploy serves; nothing is left",
    mutant="no-drain",
)
def reload_over(run: Run) -> Result:
    result, number = Result(), int(run.size(8, 100))
    app = Deployment(run.tmp / "app")
    ended: Counter[str] = Counter()

    with deployed(run, app, drain_timeout=DRAIN) as running:
        watched = Watched(running, holders(running))
        watched.begin()
        with Traffic(address(running), turns=1) as traffic:
            asked = []
            for turn in range(1, number + 1):
                app.deploy(f"v{turn}")
                asked.append(ask(running, ended))
                # At once, while a worker boots, on probation, and some when it is over.
                traffic.loads[deploys.FRESH].wait_more(8 * (turn % 5) ** 2)
                watched.look()
            for thread in asked:
                thread.join(60)
            rest(running)
            since = time.monotonic_ns()
            traffic.more()
            tallies = traffic.stop()
        watched.judge(result)
    result.counts |= {"reloads": number} | dict(ended)
    tally = judge(result, tallies)
    judge_age(result, tally, since, f"v{number}")
    result.check("each was answered", sum(ended.values()) == number)
    return result


def ask(running: Cluster, ended: Counter[str]) -> threading.Thread:
    """A reload that nobody waits for; how it ends is counted."""

    def work() -> None:
        try:
            running.reload()
            how = "succeeded"
        except ReloadError as error:
            how = error.message.partition(";")[0]
        with COUNTING:
            ended[how] += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@scenario(
    "reload-storm",
    title="50 HUPs at once, again and again",
    target="0 failed; the last deploy serves; nothing is left",
    mutant="no-drain",
)
def reload_storm(run: Run) -> Result:
    result, storms = Result(), int(run.size(1, 10))
    app = Deployment(run.tmp / "app")
    with deployed(run, app) as running:
        watched = Watched(running, holders(running))
        watched.begin()
        begun = int(running.stats()["generation"])
        with Traffic(address(running)) as traffic:
            for storm in range(1, storms + 1):
                app.deploy(f"v{storm}")
                before = int(running.stats()["generation"])
                for _ in range(50):
                    os.kill(watched.pids["primary"], signal.SIGHUP)
                wait_until(lambda: newer(running, before), 30.0, "a new generation serves")  # noqa: B023
                rest(running)
                watched.look()
            since = time.monotonic_ns()
            traffic.more()
            tallies = traffic.stop()
        watched.judge(result)
        result.counts["generations"] = int(running.stats()["generation"]) - begun
    result.counts |= {"HUPs": 50 * storms}
    tally = judge(result, tallies)
    judge_age(result, tally, since, f"v{storms}")
    return result


def newer(running: Cluster, generation: int) -> bool:
    return int(running.stats()["generation"]) > generation


@scenario(
    "reload-term",
    title="TERM in the midst of a reload: while the first new worker boots, while it serves",
    target="0 failed but those refused after the end; exit code 0; nothing is left",
    mutant="no-drain",
)
def reload_term(run: Run) -> Result:
    result, rounds = Result(), int(run.size(2, 16))
    tallies: list[Tally] = []
    codes: Counter[int] = Counter()
    early = 0
    for turn in range(rounds):
        app = Deployment(run.tmp / f"app{turn}")
        tally, code, told = term_in_reload(run, app, new=turn % 2 == 1)
        tallies.append(tally)
        codes[code] += 1
        early += len([r for r in tally.failed if r.outcome == REFUSED and r.intended < told])
    whole = Tally([record for tally in tallies for record in tally.records])
    failed = [record for record in whole.failed if record.outcome != REFUSED]
    result.counts |= {"rounds": rounds, "requests": len(whole.records), "failed": len(failed)}
    result.counts["refused after the end"] = whole.outcomes()[REFUSED]
    result.check("0 failed", not failed)
    result.check("none refused before TERM", early == 0)
    result.check("answers came", whole.outcomes()[OK] > 50 * rounds)
    result.check("exit code 0", set(codes) == {0})
    return result


def term_in_reload(run: Run, app: Deployment, new: bool) -> tuple[Tally, int, int]:
    """What became of the requests, the exit code, and when TERM was sent.

    With ``new`` it is sent when a new worker has answered, else while the first one boots.
    """
    options = ["-i", "2", "--probation", "1", "--no-access-log", "--dispatcher", run.dispatcher]
    options += ["--drain-timeout", str(SHORT_DRAIN)]
    with (
        Service("deployed:asgi", *options, cwd=app.directory) as service,
        Traffic(service.address) as traffic,
    ):
        app.deploy("v1")
        service.send_signal(signal.SIGHUP)
        service.output.wait("reload begins", 30.0)
        if new:
            traffic.loads[deploys.FRESH].wait_for(lambda records: records[-1].version == "v1")
        told = time.monotonic_ns()
        code = service.stop()
        tallies = traffic.stop()
    return together(tallies), code, told
