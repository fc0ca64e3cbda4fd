"""Promise 8: descriptors, memory and processes stay the same over reloads and deaths."""

from __future__ import annotations

from collections import Counter

import pytest

from rrdispatch import Cluster
from tests.acceptance.conftest import Show
from tests.harness import census, processes
from tests.harness.clusters import address, cluster, family, own_fds, worker_pids
from tests.harness.load import Load, run_load
from tests.harness.records import Plan
from tests.harness.servers import wait_until
from tests.harness.sizes import size

pytestmark = pytest.mark.slow

RELOADS = size(4, 100)
DEATHS = size(24, 1000)
GROWTH_KB = 1024


class Census:
    """Processes, descriptors and memory of a cluster at rest, by kind of process."""

    def __init__(self, running: Cluster) -> None:
        stats = running.stats()
        workers = {row["pid"] for row in stats["workers"]}
        self.kinds: dict[str, list[int]] = {}
        for each in family(running):
            kind = _kind(each.pid, stats, workers)
            self.kinds.setdefault(kind, []).append(each.pid)
        self.processes = Counter({kind: len(pids) for kind, pids in self.kinds.items()})
        self.fds = {
            kind: [census.resting(pid) for pid in pids] for kind, pids in self.kinds.items()
        }
        self.private = {kind: _private(self.kinds[kind]) for kind in ("primary", "dispatcher")}
        self.own = own_fds()

    def counts(self) -> dict[str, list[int]]:
        return {kind: [sum(each.values()) for each in rows] for kind, rows in self.fds.items()}


def _private(pids: list[int]) -> int:
    return sum(processes.memory(pid).private for pid in pids)


def _kind(pid: int, stats: dict[str, object], workers: set[int]) -> str:
    if pid == stats["primary_pid"]:
        return "primary"
    if pid == stats["dispatcher_pid"]:
        return "dispatcher"
    if pid == stats["logger_pid"]:
        return "logger"
    return "worker" if pid in workers else "other"


def assert_same(before: Census, after: Census) -> None:
    assert after.processes == before.processes
    assert after.fds == before.fds
    assert after.own <= before.own  # what other tests left here may be closed by now
    for kind, private in before.private.items():
        assert after.private[kind] <= private + GROWTH_KB, kind


def rest(running: Cluster) -> None:
    """Until every slot serves and nothing of an old generation or of a dead worker is left."""

    def at_rest() -> bool:
        stats = running.stats()
        states = [row["state"] for row in stats["workers"]]
        return states == ["ready"] * 4 and len(family(running)) == len(_expected(stats))

    wait_until(at_rest, 30.0, "the cluster is at rest")


def _expected(stats: dict[str, object]) -> list[str]:
    return ["primary", "dispatcher", "logger", *["worker"] * 4]


def figures(before: Census, after: Census) -> str:
    return (
        f"processes {sum(before.processes.values())} → {sum(after.processes.values())}, "
        f"fds {before.counts()} → {after.counts()}, private KB {before.private} → {after.private}"
    )


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("dispatcher", ["c", "python"])
def test_nothing_grows(dispatcher: str, show: Show) -> None:
    with cluster(
        "probe:serve", dispatcher=dispatcher, probation=0.2, max_restarts=0, respawn_delay=0.02
    ) as running:
        run_load(Plan(address(running), "closed", count=200, concurrency=8, until_eof=True))
        for _ in range(2):  # what is allocated once is allocated now
            running.reload()
        kill_workers(running, 8)
        rest(running)
        before = Census(running)
        with Load(Plan(address(running), rate=50.0, until_eof=True)) as load:
            for _ in range(RELOADS):
                running.reload()
            kill_workers(running, DEATHS)
            load.stop()
        rest(running)
        after = Census(running)
    show("8", f"{RELOADS} reloads and {DEATHS} deaths, {dispatcher}", figures(before, after))
    assert_same(before, after)


def kill_workers(running: Cluster, number: int) -> None:
    """Kill serving workers, each as soon as it is seen, until so many have died."""
    killed: set[int] = set()

    def next_ones() -> bool:
        serving = set(worker_pids(running).values()) - killed
        for pid in list(serving)[: number - len(killed)]:
            processes.kill(pid)
            killed.add(pid)
        return len(killed) >= number

    wait_until(next_ones, 600.0, f"{number} workers were killed")


@pytest.mark.parametrize("dispatcher", ["c", "python"])
def test_each_process_holds_exactly_its_descriptors(dispatcher: str, show: Show) -> None:
    with cluster("probe:serve", dispatcher=dispatcher) as running:
        rest(running)
        stats = running.stats()
        found = Census(running)
        workers = [census.fds(row["pid"]) for row in stats["workers"]]
    show("8", f"descriptors, {dispatcher}", str(found.counts()))
    own = [{each.identity for each in fds if each.kind.startswith("unix")} for fds in workers]
    for one, others in enumerate(own):
        for other in own[one + 1 :]:
            assert not others & other, "two workers share a socket"
    for fds in workers:
        kinds = Counter(each.kind for each in fds)
        assert kinds["unix stream"] == 2, kinds  # its channel's receiving end, its lifeline
        assert kinds["unix seqpacket"] == 1, kinds  # to the primary
        assert kinds["memfd"] == 1, kinds  # its scoreboard
        assert kinds["tcp listener"] == 0, kinds
