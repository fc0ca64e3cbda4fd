"""What each signal to ``rrdispatch run`` does; no death of the primary leaves an orphan."""

from __future__ import annotations

import contextlib
import signal

import pytest

from tests.acceptance.conftest import Show
from tests.harness import census, processes
from tests.harness.journal import Journal
from tests.harness.load import Load, load_beside, run_load
from tests.harness.records import EOF, OK, REFUSED, RESET, Plan
from tests.harness.servers import Service, wait_until
from tests.harness.sizes import pairs

pytestmark = pytest.mark.slow

KINDS = ["asgi", "wsgi", "serve"]
LONG = "/sleep/60000"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
@pytest.mark.parametrize("kind", KINDS)
def test_drains_and_exits_0(
    kind: str, signum: signal.Signals, journal: Journal, show: Show
) -> None:
    with Service(f"probe:{kind}", "-i", "2", "--threads", "1", env=journal.env) as service:
        load = load_beside(service, Plan(service.address, count=2, path="/block/2500"))
        _wait_begun(journal, load)
        assert service.stop(signum) == 0
        tally = load.finish()
    show("6", f"{signum.name} with 2 requests at work, {kind}", str(tally))
    assert len(tally.ok) == 2


def _wait_begun(journal: Journal, load: Load) -> None:
    """Until workers have begun all its requests."""
    wanted = {load.plan.base + number for number in range(load.plan.count)}

    def begun() -> set[int]:
        return {number for entries in journal.read().values() for number in entries.begun}

    wait_until(lambda: wanted <= begun(), 30.0, "all are at work")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_a_second_one_ends_now(signum: signal.Signals, journal: Journal) -> None:
    with Service("probe:asgi", "-i", "2", "--drain-timeout", "90", env=journal.env) as service:
        _wait_begun(journal, load_beside(service, Plan(service.address, count=2, path=LONG)))
        service.processes()
        service.send_signal(signum)
        service.output.wait(r": stopping", 20.0)
        service.send_signal(signum)
        service.wait(20.0)
        service.assert_nothing_left()


def test_quit_ends_now(journal: Journal) -> None:
    with Service("probe:asgi", "-i", "2", "--drain-timeout", "90", env=journal.env) as service:
        _wait_begun(journal, load_beside(service, Plan(service.address, count=2, path=LONG)))
        service.processes()
        service.send_signal(signal.SIGQUIT)
        service.wait(20.0)
        service.assert_nothing_left()


def test_ttin_and_ttou_scale(show: Show) -> None:
    with Service("probe:serve", "-i", "2") as service:
        load = load_beside(service, Plan(service.address, rate=100.0))
        service.send_signal(signal.SIGTTIN)
        load.wait_for(lambda records: {each.slot for each in records} == {0, 1, 2})
        service.send_signal(signal.SIGTTOU)
        service.wait_workers(lambda workers: set(workers) == {0, 1})
        load.wait_more(20)
        tally = load.stop()
    show("6", "TTIN and TTOU under 100/s", str(tally))
    assert not tally.failed


@pytest.mark.parametrize(("kind", "dispatcher"), pairs(KINDS))
def test_primary_killed(kind: str, dispatcher: str, journal: Journal, show: Show) -> None:
    """What was accepted is answered; then everything ends by itself."""
    options = ["-i", "2", "--dispatcher", dispatcher]
    with Service(f"probe:{kind}", *options, env=journal.env) as service:
        slow = load_beside(service, Plan(service.address, count=2, path="/block/500"))
        _wait_begun(journal, slow)
        load = load_beside(service, Plan(service.address, rate=100.0))
        load.wait_more(20)
        service.processes()
        processes.kill(service.pid)
        service.wait(30.0)
        load.wait_for(lambda records: {each.outcome for each in records[-10:]} == {REFUSED})
        tally, held = load.stop(), slow.finish()
        service.assert_nothing_left(30.0)
    show("6", f"primary killed, {kind}, {dispatcher}", f"{tally}; at work {held}")
    assert len(held.ok) == 2
    assert set(tally.outcomes()) <= {OK, REFUSED}


@pytest.mark.parametrize("kind", KINDS)
def test_primary_and_dispatcher_killed(kind: str, journal: Journal, show: Show) -> None:
    """The lifelines end the workers: nothing is left."""
    with Service(f"probe:{kind}", "-i", "2", env=journal.env) as service:
        workers = set(service.workers().values())
        slow = load_beside(service, Plan(service.address, count=2, path="/block/2500"))
        _wait_begun(journal, slow)
        for each in service.processes():
            if each.pid not in workers:
                with contextlib.suppress(ProcessLookupError):  # it ends by itself, too
                    processes.kill(each.pid)
        service.wait(30.0)
        held = slow.finish()
        service.assert_nothing_left(30.0)
    show("6", f"primary, dispatcher and logger killed, {kind}", f"at work {held}")
    assert set(held.outcomes()) <= {OK, EOF, RESET}
    if kind != "serve":
        assert len(held.ok) == 2


@pytest.mark.parametrize("dispatcher", ["c", "python"])
def test_dispatcher_killed(dispatcher: str, show: Show) -> None:
    """Another one takes over; at most what was between accept and send is lost: one, as only the
    first is killed at any moment.
    """
    options = ["-i", "2", "--dispatcher", dispatcher, "--stall-timeout", "60"]
    with Service("probe:asgi", *options) as service:
        load = load_beside(service, Plan(service.address, rate=200.0))
        for number in range(3):
            load.wait_more(40)
            before = set(service.processes())
            if number == 0:
                processes.kill(_dispatcher(service))
            else:
                _kill_at_rest(service)
            load.wait_more(40)
            wait_until(lambda before=before: set(service.processes()) != before, 20.0)  # type: ignore[misc]
        tally = load.stop()
    show("6", f"dispatcher killed 3 times, {dispatcher}", str(tally))
    assert len(tally.failed) <= 1
    assert REFUSED not in tally.outcomes()


def _kill_at_rest(service: Service) -> None:
    """It has no connection in its hand, however long it or we had no core."""
    dispatcher = _dispatcher(service)
    processes.kill(service.pid, signal.SIGSTOP)  # else it replaces one that is stopped for long
    while True:
        processes.kill(dispatcher, signal.SIGSTOP)
        wait_until(lambda: processes.state(dispatcher) == "T", 30.0, "it has stopped")
        if not census.kinds(dispatcher)["tcp connection"]:
            break
        processes.kill(dispatcher, signal.SIGCONT)
    processes.kill(dispatcher)
    processes.kill(service.pid, signal.SIGCONT)


def _dispatcher(service: Service) -> int:
    """Pid of the service's dispatcher, be it the C program or the one in Python."""
    for each in service.processes():
        words = processes.command(each.pid)
        if any(word.endswith(("rr-dispatcher", "dispatch/__main__.py")) for word in words):
            return each.pid
    raise AssertionError("there is no dispatcher")


def test_two_services_side_by_side() -> None:
    # Who gets no core for some milliseconds is passed over, rightly; here each has its turn.
    options = ["-i", "2", "--stall-timeout", "60"]
    with Service("probe:asgi", *options) as one, Service("probe:wsgi", *options) as other:
        for service in (one, other):
            tally = run_load(Plan(service.address, "closed", count=20))
            assert set(tally.by_pid()) == set(service.workers().values())
