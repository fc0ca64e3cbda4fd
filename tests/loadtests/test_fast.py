"""The C generator against servers that do to it what servers do."""

from __future__ import annotations

import shutil
import socket

import pytest

from loadtests import fast
from tests.harness.records import EOF, OK, REFUSED, STATUS, TIMEOUT, Plan

from .test_generator import fake

if shutil.which("cc") is None:
    pytest.skip("a C compiler is needed: cc", allow_module_level=True)


@pytest.mark.parametrize(
    ("path", "outcome"),
    [("/", OK), ("/close", EOF), ("/half", EOF), ("/error", STATUS), ("/never", TIMEOUT)],
)
def test_outcomes(path: str, outcome: str) -> None:
    with fake() as server:
        patience = 0.3 if outcome == TIMEOUT else 20.0
        plan = Plan(server.address, "closed", concurrency=2, path=path, timeout=patience)
        found = fast.run(plan, 0.2)
        server.settled()
        assert {record.outcome for record in found.records} == {outcome}
        assert len(found.records) == server.connections == server.asked >= 2
        assert not server.silent or outcome == TIMEOUT
        if outcome == OK:
            first = found.records[0]
            assert (first.pid, first.status, first.fresh) == (77, 200, True)
            assert first.intended <= first.connected <= first.first <= first.ended
            assert found.rate == pytest.approx(len(found.records) / 0.2)


def test_nobody_is_there() -> None:
    with socket.socket() as held:  # bound, and nobody listens
        held.bind(("127.0.0.1", 0))
        found = fast.run(Plan("{}:{}".format(*held.getsockname()), "open", rate=50.0), 0.3)
    assert {record.outcome for record in found.records} == {REFUSED}
    assert found.rate == 0


def test_kept_connections_are_asked_again() -> None:
    for seconds in (0.5, 4.0, 16.0):  # who has no core for all of it is asked for more
        with fake() as server:
            plan = Plan(server.address, "kept", concurrency=3, path="/later", timeout=20.0)
            found = fast.run(plan, seconds)
            assert {record.outcome for record in found.records} == {OK}
            assert sum(record.fresh for record in found.records) == server.connections == 3
            assert len(found.records) == len(server.requests)
        if len(found.records) > 3:
            return
    pytest.fail("nobody was asked again")


def test_an_open_loop_counts_from_when_a_request_should_have_begun() -> None:
    """Nobody accepts: the first backlog connects, the rest waits, and all of it counts in full."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as full:
        address = f"127.0.0.1:{full.getsockname()[1]}"
        found = fast.run(Plan(address, "open", rate=100.0, timeout=0.4), 0.5)
    assert {record.outcome for record in found.records} == {TIMEOUT}
    assert 20 < len(found.records) < 90
    assert min(record.latency_ms for record in found.records) >= 400
    starts = [record.intended for record in found.records]
    assert max(starts) - min(starts) < 0.5e9


def test_the_limit_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert fast.main(["--limit", "--seconds", "0.2", "--rate", "100", "--timeout", "30"]) == 0
    told = capsys.readouterr().out
    assert told.count("none failed") == len(fast.MODES)
    assert told.count("the generator:") == len(fast.MODES)
