"""Promise 2: stopped, blocked and killed workers cost only what they had already taken."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest

from tests.acceptance.conftest import Show
from tests.harness import processes
from tests.harness.journal import Journal
from tests.harness.load import Load, load_beside, run_load
from tests.harness.records import Plan, Record, Tally, quantile
from tests.harness.servers import Service, wait_until
from tests.harness.sizes import FULL, pairs, size

pytestmark = pytest.mark.slow

RATE = 50.0
# 300 where nobody else wants the cores (`make accept`); else what a busy machine adds, and still
# far less than the worker is stuck.
LATEST_MS = size(3000.0, 300.0)
KINDS = ["asgi", "wsgi", "serve"] if FULL else ["asgi", "wsgi"]
DISPATCHERS = ["c", "python"] if FULL else ["c"]
OPTIONS = ["-i", "4", "--threads", "1", "--max-restarts", "0"]


def late(records: Sequence[Record]) -> list[Record]:
    return [each for each in records if each.latency_ms > LATEST_MS]


def figures(tally: Tally, stuck: int) -> str:
    others = [each.latency_ms for each in tally.ok if each.pid != stuck]
    inside = len(tally.failed) + len([each for each in late(tally.ok) if each.pid == stuck])
    return (
        f"{tally}, latest {max(others):.0f} ms, p99 {quantile(others, 0.99):.1f} ms, "
        f"{inside} were inside the stuck worker"
    )


def assert_only_taken(tally: Tally, journal: Journal, stuck: int, moment: int) -> None:
    """Whatever failed or came late had been taken by the stuck worker before it got stuck."""
    entries = journal.read()[stuck]
    for record in [*tally.failed, *late(tally.ok)]:
        taken = entries.took(record)
        assert taken, f"failed or late, but never taken by {stuck}: {record}"
        assert taken <= moment, f"taken by {stuck} after it got stuck: {record}"


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_then_killed(kind: str, dispatcher: str, journal: Journal, show: Show) -> None:
    options = [*OPTIONS, "--dispatcher", dispatcher]
    with Service(f"probe:{kind}", *options, env=journal.env) as service:
        stuck = service.workers()[2]
        load = load_beside(service, Plan(service.address, rate=RATE))
        load.wait_more(25)
        processes.kill(stuck, signal.SIGSTOP)
        moment = time.monotonic_ns()
        load.wait_more(200)  # longer than LATEST_MS
        processes.kill(stuck, signal.SIGKILL)
        load.wait_for(lambda records: records[-1].slot == 2)
        tally = load.stop()
        assert service.workers()[2] != stuck
    show("2", f"SIGSTOP then SIGKILL, {kind}, {dispatcher}, 50/s", figures(tally, stuck))
    assert_only_taken(tally, journal, stuck, moment)


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
@pytest.mark.parametrize("kind", KINDS)
def test_blocked_for_four_seconds(kind: str, dispatcher: str, journal: Journal, show: Show) -> None:
    options = [*OPTIONS, "--dispatcher", dispatcher]
    with Service(f"probe:{kind}", *options, env=journal.env) as service:
        load = load_beside(service, Plan(service.address, rate=RATE))
        load.wait_more(25)
        blocking = run_load(Plan(service.address, count=1, path="/block/4000"))
        load.wait_more(25)
        tally = load.stop()
    (blocker,) = blocking.ok
    assert len(tally.ok) == len(tally.records), str(tally)
    show("2", f"time.sleep(4), {kind}, {dispatcher}, 50/s", figures(tally, blocker.pid))
    begun = blocker.ended - blocker.service
    assert_only_taken(tally, journal, blocker.pid, begun)


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
@pytest.mark.parametrize("kind", KINDS)
def test_blocked_then_killed(kind: str, dispatcher: str, journal: Journal, show: Show) -> None:
    options = [*OPTIONS, "--dispatcher", dispatcher]
    with Service(f"probe:{kind}", *options, env=journal.env) as service:
        load = load_beside(service, Plan(service.address, rate=RATE))
        load.wait_more(25)
        blocking = load_beside(service, Plan(service.address, count=1, path="/block/14000"))
        blocker, moment = _blocked_worker(journal, blocking)
        load.wait_more(200)
        processes.kill(blocker, signal.SIGKILL)
        load.wait_more(50)
        tally = load.stop()
        assert blocking.finish().outcomes()["ok"] == 0
    show("2", f"time.sleep(14) then SIGKILL, {kind}, {dispatcher}, 50/s", figures(tally, blocker))
    assert_only_taken(tally, journal, blocker, moment)


def _blocked_worker(journal: Journal, blocking: Load) -> tuple[int, int]:
    """Pid of the worker that the one request of ``blocking`` blocks, and since when."""

    def began() -> dict[int, int]:
        workers = journal.read().items()
        return {pid: each.begun[number] for pid, each in workers if number in each.begun}

    number = blocking.plan.base
    wait_until(lambda: bool(began()), 30.0, "the blocking request has begun")
    ((pid, moment),) = began().items()
    return pid, moment


@pytest.mark.parametrize(("kind", "dispatcher"), pairs(KINDS))
def test_three_of_four_stopped_then_killed(kind: str, dispatcher: str, show: Show) -> None:
    answered = []
    options = [*OPTIONS, "--dispatcher", dispatcher]
    with Service(f"probe:{kind}", *options) as service:
        for _ in range(size(2, 10)):
            service.wait_workers(lambda workers: len(workers) == 4)
            _all_serve(service)
            stopped = list(service.workers().values())[:3]
            for pid in stopped:
                processes.kill(pid, signal.SIGSTOP)
            with Load(Plan(service.address, count=100)) as load:
                load.wait_for(lambda records: bool(records))
                for pid in stopped:
                    processes.kill(pid, signal.SIGKILL)
                answered.append(len(load.finish().ok))
    what = f"3 of 4 stopped, 100 at once, 3 killed, {kind}, {dispatcher}"
    show("2", what, f"answered {answered}")
    assert set(answered) == {100}


def _all_serve(service: Service) -> None:
    """Until each of the workers has answered: after a kill they come back one by one."""
    with Load(Plan(service.address, rate=100.0)) as load:
        pids = set(service.workers().values())
        load.wait_for(lambda records: pids <= {each.pid for each in records})
        load.stop()


def test_blocked_thread_pool(show: Show) -> None:
    with (
        Service("pool:app", "-i", "4", "--timeout-keep-alive", "60") as service,
        ExitStack() as stack,
    ):
        blocked, connections = _forty_to_one_worker(service.address, stack)
        for connection in connections:
            connection.request("GET", "/block/8000", headers={"Connection": "close"})
        tally = run_load(Plan(service.address, count=100, rate=RATE))
        answers = [connection.getresponse().status for connection in connections]
    latest = max(each.latency_ms for each in tally.records)
    text = f"{len(tally.ok)} of 100 answered, latest {latest:.0f} ms, by {sorted(tally.split())}"
    show("2", "thread pool of one worker blocked (FastAPI def, 40 sleeps)", text)
    assert len(tally.ok) == 100
    assert latest < LATEST_MS
    assert blocked not in tally.by_pid()
    assert answers == [200] * 40


def _forty_to_one_worker(address: str, stack: ExitStack) -> tuple[int, list[HTTPConnection]]:
    """40 keep-alive connections that all ended at one worker; the others are closed again."""
    held: dict[int, list[HTTPConnection]] = {}
    while all(len(group) < 40 for group in held.values()) or not held:
        connection = HTTPConnection(address, timeout=30)
        stack.callback(connection.close)
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
        held.setdefault(int(response.headers["x-pid"]), []).append(connection)
    chosen = max(held, key=lambda pid: len(held[pid]))
    for pid, group in held.items():
        for connection in group if pid != chosen else group[40:]:
            connection.close()
    return chosen, held[chosen][:40]


@pytest.mark.parametrize("dispatcher", DISPATCHERS)
def test_keep_alive_clients_after_a_crash(dispatcher: str, show: Show) -> None:
    # Whoever gets no core for 10 ms is passed over, rightly; what counts here is the band.
    options = [*OPTIONS, "--dispatcher", dispatcher, "--stall-timeout", "60"]
    options += ["--timeout-keep-alive", "60"]
    with Service("probe:asgi", *options) as service:
        plan = Plan(
            service.address, "keepalive", concurrency=100, rate=1.0, reconnect_when_told=True
        )
        with Load(plan) as load:
            load.wait_for(lambda records: len({each.client for each in records if each.ok}) == 100)
            before = _open_connections(load.records)
            killed = service.workers()[1]
            lost = {each.client for each in _latest(load.records) if each.pid == killed}
            processes.kill(killed, signal.SIGKILL)
            load.wait_for(lambda records: lost <= {each.client for each in records if not each.ok})
            service.wait_workers(lambda workers: workers.get(1, killed) != killed)
            _wait_serving(service, 1)
            load.order("go")
            done = len(load.records)
            load.wait_for(lambda records: _all_answered_since(records, done))
            load.stop()
        after = _open_connections(load.records)
    show("2", f"100 keep-alive clients, a crash, {dispatcher}", f"{before} before, {after} after")
    assert sum(after) == 100
    assert max(after) - min(after) <= 8


def _wait_serving(service: Service, slot: int) -> None:
    with Load(Plan(service.address, rate=100.0)) as load:
        load.wait_for(lambda records: slot in {each.slot for each in records})
        load.stop()


def _latest(records: Sequence[Record]) -> list[Record]:
    """The last record of each client."""
    return list({each.client: each for each in list(records)}.values())


def _all_answered_since(records: Sequence[Record], done: int) -> bool:
    return len({each.client for each in records[done:] if each.ok}) == 100


def _open_connections(records: Sequence[Record]) -> list[int]:
    slots = [each.slot for each in _latest(records)]
    return [slots.count(slot) for slot in range(4)]
