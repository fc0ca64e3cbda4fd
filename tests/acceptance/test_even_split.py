"""Promise 1: every policy gives each worker its share, by both dispatchers, on every socket."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import pytest

from tests.acceptance.conftest import Show
from tests.harness.calm import Foreign
from tests.harness.clusters import address, cluster
from tests.harness.load import run_load
from tests.harness.records import Plan, Tally
from tests.harness.servers import Service, wait_until
from tests.harness.sizes import FULL, pairs

pytestmark = pytest.mark.slow

WORKERS, CONNECTIONS = 4, 400
SHARE = CONNECTIONS // WORKERS
POLICIES = ["round-robin", "strict", "least-connections"]
DISPATCHERS = ["c", "python"]
MOST_RUNS = 30
# Who gets no core for some milliseconds is passed over, rightly; here each has its turn.
PATIENT = ["--stall-timeout", "60"]
INTERFACES = ["asgi", "wsgi", "serve", "aserve"] if FULL else ["serve"]


def deviation(counts: Iterable[int]) -> int:
    """How far the worker that is farthest off is from an even share."""
    return max(abs(count - SHARE) for count in counts)


def counts(tally: Tally) -> list[int]:
    split = tally.split()
    return [split[slot] for slot in range(WORKERS)]


def assert_even(tally: Tally, most: int) -> list[int]:
    assert len(tally.ok) == CONNECTIONS, str(tally)
    assert sorted(tally.split()) == list(range(WORKERS))
    assert deviation(counts(tally)) <= most, counts(tally)
    return counts(tally)


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("dispatcher", DISPATCHERS)
@pytest.mark.parametrize("policy", POLICIES)
def test_one_after_another(
    policy: str, dispatcher: str, interface: str, tmp_path: Path, show: Show
) -> None:
    options = ["-i", str(WORKERS), "--policy", policy, "--dispatcher", dispatcher, *PATIENT]
    bind = ["127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/socket"]
    with Service(f"probe:{interface}", *options, bind=bind) as service:
        splits = []
        for where in service.addresses:
            tally = run_load(Plan(where, "closed", count=CONNECTIONS, until_eof=True))
            splits.append("/".join(str(count) for count in assert_even(tally, 1)))
    what = f"{policy}, {dispatcher}, {interface}, 400 one after another"
    named = zip(["v4", "v6", "unix"], splits, strict=True)
    show("1", what, "  ".join(f"{name} {split}" for name, split in named))


@pytest.mark.parametrize(("family", "dispatcher"), pairs(["[::1]:0", "unix", "127.0.0.1:0"]))
def test_one_address_alone(family: str, dispatcher: str, tmp_path: Path) -> None:
    bind = f"unix:{tmp_path}/socket" if family == "unix" else family
    options = ["-i", str(WORKERS), "--dispatcher", dispatcher, *PATIENT]
    with Service("probe:serve", *options, bind=[bind]) as service:
        plan = Plan(service.address, "closed", count=CONNECTIONS, until_eof=True)
        assert_even(run_load(plan), 1)


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
def test_strict_turn_at_concurrency_40(dispatcher: str, show: Show) -> None:
    """Counted in picks. Who stalls or is full is skipped: here nobody can."""
    patient = {"stall_timeout": 60, "queue_limit": 64}
    with cluster("probe:asgi", policy="strict", dispatcher=dispatcher, **patient) as running:
        before = picks(running.stats())
        plan = Plan(address(running), "closed", count=CONNECTIONS, concurrency=40)
        assert len(run_load(plan).ok) == CONNECTIONS
        # A dispatcher that has no core for a second tells its numbers later.
        wanted = sum(before.values()) + CONNECTIONS
        wait_until(lambda: sum(picks(running.stats()).values()) >= wanted, 60.0)
        after = picks(running.stats())
    picked = [after[slot] - before[slot] for slot in range(WORKERS)]
    show("1", f"strict, {dispatcher}, concurrency 40", f"picks {picked}")
    assert sum(picked) == CONNECTIONS
    assert deviation(picked) <= 1


def picks(stats: dict[str, object]) -> dict[int, int]:
    """How often the policy chose each slot's worker; moves afterwards don't change it."""
    rows = stats["workers"]
    assert isinstance(rows, list)
    return {row["slot"]: row["picks"] for row in rows}


@pytest.mark.alone
@pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="other tests want the cores, too")
@pytest.mark.parametrize("dispatcher", DISPATCHERS)
@pytest.mark.parametrize("interface", ["asgi", "wsgi"] if FULL else ["asgi"])
def test_round_robin_at_concurrency_40(interface: str, dispatcher: str, show: Show) -> None:
    """With threads for all (with fewer a connection goes where a thread is free, not in turn).

    A worker that gets no time slice for long is passed over, and rightly so: what counts is how it
    is when nobody else wants the cores.
    """
    options = ["-i", str(WORKERS), "--dispatcher", dispatcher, "--threads", "16"]
    deviations: list[int] = []
    runs = 0
    with Service(f"probe:{interface}", *options, "--no-access-log") as service:
        plan = Plan(service.address, "closed", count=CONNECTIONS, concurrency=40)
        pids = [process.pid for process in service.processes()]
        while len(deviations) < 5 and runs < MOST_RUNS:
            foreign = Foreign(lambda: pids)
            tally = run_load(plan)
            assert len(tally.ok) == CONNECTIONS
            runs += 1
            if foreign.calm():
                deviations.append(deviation(counts(tally)))
    what = f"round-robin, {dispatcher}, {interface}, concurrency 40"
    show("1", what, f"{runs} runs, deviations of the calm ones {deviations}; last {counts(tally)}")
    if len(deviations) < 5:
        pytest.skip(f"the machine is busy with other things: {len(deviations)} of {runs} runs calm")
    assert median(deviations) <= 5
