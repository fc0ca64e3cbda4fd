"""Promise 6: without workers clients wait, and at the end everybody who came is answered first."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from rrdispatch import Cluster
from tests.acceptance.conftest import Show
from tests.harness import processes
from tests.harness.clusters import address, cluster, prove, worker_pids
from tests.harness.journal import Journal
from tests.harness.load import Load, load_beside
from tests.harness.records import OK, REFUSED, Plan, Record, Tally
from tests.harness.servers import Service, wait_until
from tests.harness.sizes import pairs, size

pytestmark = pytest.mark.slow

RATE = 100.0
KINDS = ["asgi", "wsgi", "serve"]
ALLOWED_AT_THE_END = {OK, REFUSED}


@pytest.mark.parametrize("dispatcher", ["c", "python"])
def test_all_workers_dead(dispatcher: str, journal: Journal, show: Show) -> None:
    """500 requests and more while all four are killed twice; their app takes a second to boot."""
    env = {**journal.env, "PROBE_BOOT": "1"}
    with cluster("probe:asgi", dispatcher=dispatcher, max_restarts=0, env=env) as running:
        with Load(Plan(address(running), rate=RATE, timeout=60.0)) as load:
            for _ in range(2):
                load.wait_more(50)
                _kill_all(running, load)
            load.wait_for(lambda records: len(records) >= 500)
            tally = load.stop()
        proof = prove(running, journal, tally)
    longest = max(each.latency_ms for each in tally.ok)
    text = f"{tally} of {len(tally.records)}, {proof}, waited up to {longest:.0f} ms"
    show("6", f"all workers dead twice, {dispatcher}", text)
    assert REFUSED not in tally.outcomes()
    assert proof.complete, proof.others


def _kill_all(running: Cluster, load: Load) -> None:
    """Kill every worker, and wait until a new one answers."""
    wait_until(lambda: len(worker_pids(running)) == 4, 60.0, "all four serve")
    killed = set(worker_pids(running).values())
    for pid in killed:
        processes.kill(pid)
    load.wait_for(lambda records: records[-1].ok and records[-1].pid not in killed, 60.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_terminated_under_load(family: str, kind: str, tmp_path: Path, show: Show) -> None:
    """Everybody is answered or, afterwards, refused: 300/s and 10 keep-alive clients."""
    bind = "127.0.0.1:0" if family == "tcp" else f"unix:{tmp_path}/socket"
    tallies = []
    for _ in range(size(1, 10)):
        with Service(f"probe:{kind}", "-i", "4", bind=[bind]) as service:
            tallies.append(_terminate(service, keep_alive=kind != "serve"))
    whole = Tally([record for tally in tallies for record in tally.records])
    show("6", f"SIGTERM under 300/s, {kind}, {family}, {len(tallies)} times", str(whole))
    assert set(whole.outcomes()) <= ALLOWED_AT_THE_END, _first_bad(whole)


def _terminate(service: Service, keep_alive: bool) -> Tally:
    keep = Plan(service.address, "keepalive", concurrency=10, rate=10.0, path="/sleep/20")
    load = load_beside(service, Plan(service.address, rate=300.0, path="/sleep/20"))
    other = load_beside(service, keep if keep_alive else Plan(service.address, rate=10.0))
    load.wait_more(100)
    service.processes()
    service.send_signal(signal.SIGTERM)
    load.wait_for(_refused_for_long)
    # Long before drain_timeout: whoever keeps coming does not keep the service.
    assert service.wait(15.0) == 0
    return Tally([*load.stop().records, *other.stop().records])


def _refused_for_long(records: list[Record]) -> bool:
    """The last 20 to end were all refused."""
    return {each.outcome for each in records[-20:]} == {REFUSED}


def _first_bad(tally: Tally) -> list[Record]:
    return [each for each in tally.failed if each.outcome not in ALLOWED_AT_THE_END][:5]


@pytest.mark.parametrize(("kind", "dispatcher"), pairs(KINDS))
def test_backlog_is_answered_at_the_end(kind: str, dispatcher: str, show: Show) -> None:
    """Two workers with room for 4 each, 200 connections at once, SIGTERM: 200 are answered."""
    options = ["-i", "2", "--threads", "1", "--queue-limit", "4", "--dispatcher", dispatcher]
    with Service(f"probe:{kind}", *options) as service:
        load = load_beside(service, Plan(service.address, count=200, path="/block/10"))
        load.wait_more(1)
        service.processes()
        service.send_signal(signal.SIGTERM)
        tally = load.finish()
        assert service.wait() == 0
    show("6", f"SIGTERM with 200 waiting, {kind}, {dispatcher}", str(tally))
    assert len(tally.ok) == 200
