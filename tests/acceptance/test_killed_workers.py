"""Promise 4: workers killed every 200 ms; what fails was inside a killed worker."""

from __future__ import annotations

import random
import threading
import time

import pytest

from rrdispatch import Cluster
from tests.acceptance.conftest import Show
from tests.harness import processes
from tests.harness.clusters import address, cluster, prove, worker_pids
from tests.harness.journal import Journal
from tests.harness.load import Load
from tests.harness.records import Plan, quantile
from tests.harness.sizes import FULL, size

pytestmark = pytest.mark.slow

KILLS = size(12, 90)
EVERY = 0.2
RATE = 200.0
KINDS = ["serve", "wsgi", "asgi", "aserve"] if FULL else ["serve", "wsgi", "asgi"]
DISPATCHERS = ["c", "python"] if FULL else ["c"]


def kill(number: int, running: Cluster, seed: int) -> list[int]:
    """Kill a random serving worker every 200 ms, as soon as there is one; their pids."""
    choose = random.Random(seed)
    killed: list[int] = []
    pace = threading.Event()
    while len(killed) < number:
        begin = time.monotonic()
        serving = [pid for pid in worker_pids(running).values() if pid not in killed]
        if serving:
            pid = choose.choice(serving)
            processes.kill(pid)
            killed.append(pid)
        pace.wait(max(0.0, begin + EVERY - time.monotonic()))
    return killed


@pytest.mark.timeout(300)
@pytest.mark.parametrize("dispatcher", DISPATCHERS)
@pytest.mark.parametrize("kind", KINDS)
def test_kill_every_200_ms(kind: str, dispatcher: str, journal: Journal, show: Show) -> None:
    with cluster(
        f"probe:{kind}", dispatcher=dispatcher, env=journal.env, max_restarts=0, threads=1
    ) as running:
        with Load(Plan(address(running), rate=RATE, path="/sleep/2", timeout=60.0)) as load:
            load.wait_more(10)
            killed = kill(KILLS, running, seed=1)
            load.wait_more(50, 60.0)
            tally = load.stop()
        proof = prove(running, journal, tally)
        moved = running.stats()["moved"]
    latencies = [each.latency_ms for each in tally.ok]
    show(
        "4",
        f"SIGKILL every 200 ms, {kind}, {dispatcher}",
        f"{len(killed)} kills, {len(tally.records)} requests, {len(tally.failed)} failed: "
        f"{proof}; moved {moved}; "
        f"p99 {quantile(latencies, 0.99):.0f} ms, latest {max(latencies):.0f} ms",
    )
    assert proof.complete, f"failed, but inside no worker: {proof.others}"
    assert set(proof.held.values()) <= set(killed)
    assert not {"refused", "timeout", "status"} & set(tally.outcomes())
