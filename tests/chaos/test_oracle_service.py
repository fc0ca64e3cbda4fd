"""A service of each kind, judged by the oracle and by its clients: they agree."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rrdispatch import Cluster, _core
from tests.chaos.kit import Result
from tests.chaos.oracle import Ledger
from tests.harness import processes
from tests.harness.clusters import address, cluster, worker_pids
from tests.harness.load import Load
from tests.harness.records import Plan
from tests.harness.servers import wait_until

KINDS = ["c", "python"] if _core.dispatcher_program() else ["python"]
APPS = ["asgi", "wsgi", "serve", "aserve"]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "ledger", 1 << 16)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    yield made
    os.unlink(made.path)


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_connection_of_a_service(kept: Ledger, kind: str, app: str) -> None:
    with (
        cluster(f"probe:{app}", workers=2, dispatcher=kind) as running,
        Load(Plan(address(running), "closed", count=200, concurrency=10)) as load,
    ):
        tally = load.finish()
    verdict = kept.judge(ended=True)
    assert len(tally.ok) == 200
    result = Result()
    verdict.check(result)
    assert not result.broken, verdict.violations
    assert verdict.accepted == verdict.counts["served"] == 200
    by_pid = {life.taker for life in verdict.lives.values()}
    assert by_pid == {record.pid for record in tally.ok}
    assert all(verdict.find(record) is not None for record in tally.ok)


def pending(running: Cluster, pid: int) -> int:
    """What waits for this worker."""
    return sum(row["pending"] for row in running.stats()["workers"] if row["pid"] == pid)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mutant", ["", "no-rescue"])
def test_killed_workers(
    kept: Ledger, kind: str, mutant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request that failed is a connection that was lost, and the ledger says where."""
    monkeypatch.setenv("RRDISPATCH_MUTANT", mutant)
    removed: list[dict[str, object]] = []
    killed: set[int] = set()
    # What waits for one that is stopped stays there until it is killed.
    patient = {"max_restarts": 0, "stall_timeout": 60}
    with cluster(
        "probe:serve", workers=3, dispatcher=kind, on_event=removed.append, **patient
    ) as running:
        plan = Plan(address(running), "closed", concurrency=24, path="/sleep/3", timeout=30)
        with Load(plan) as load:
            for _ in range(4):
                load.wait_more(60)
                pid = min(set(worker_pids(running).values()) - killed)
                processes.kill(pid, signal.SIGSTOP)
                wait_until(lambda pid=pid: pending(running, pid) > 0, 30.0)  # type: ignore[misc]
                processes.kill(pid)
                killed.add(pid)
            load.wait_more(60)
            tally = load.stop()
    verdict = kept.judge(ended=True)
    lost = verdict.in_hand + verdict.lost_queued
    # One whose answer was sent, and whose worker died before it had closed, failed for nobody.
    answered = len([one for one in verdict.lost("lost in hand") if one.first])
    assert lost - answered - len(killed) <= len(tally.failed) <= lost
    assert verdict.accepted == len(tally.records)
    assert not verdict.violations
    assert verdict.counts["lost in hand"] <= len(killed)
    assert (verdict.lost_queued > 0) is bool(mutant)
    assert (verdict.rescued > 0) is not bool(mutant)
    assert not verdict.not_as_told([one for one in removed if one["event"] == "removed"])
