"""Too many deaths: without a primary the service goes on, until somebody asks for one."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from tests.harness import processes
from tests.harness.followed import Followed, control_is_there, refused
from tests.harness.journal import Journal
from tests.harness.load import load_beside, run_load
from tests.harness.records import Plan
from tests.harness.servers import Server, rrdispatch_command, wait_until
from tests.heirs.conftest import Follow

MOST, WITHIN = 3, 30.0  # heirs, in so many seconds


def make_headless(service: Followed) -> None:
    """By deaths one after another: on a machine that is slow for a while they are too far apart."""
    while not _killed_too_often(service):
        service.primary()  # somebody is there again
        threading.Event().wait(WITHIN)  # until nothing counts any more


def _killed_too_often(service: Followed) -> bool:
    began = time.monotonic()
    for _ in range(MOST):
        service.replace_primary()
    service.kill_primary()
    return time.monotonic() - began < WITHIN


def test_headless_it_serves_and_a_question_revives_it(follow: Follow, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.directory.mkdir()
    service = follow("probe:asgi", env=journal.env)
    workers = [row["pid"] for row in service.stats()["workers"]]
    with load_beside(service, Plan(service.address, rate=100.0)) as load:
        make_headless(service)
        load.wait_more(50)
        assert service.primaries() == []
        processes.kill(workers[0])  # nobody respawns it: what it had is given to the other one
        load.wait_more(50)
        assert service.primaries() == []
        stats = service.stats()
        load.wait_more(10)
        tally = load.stop()
    held, others = journal.inside(tally.failed)
    assert set(held.values()) <= {workers[0]}, "what the killed worker had in hand"
    assert len(others) <= 1, "taken, and not written down yet"
    wait_until(lambda: service.primaries() == [stats["primary_pid"]], 60.0, "it follows")
    wait_until(
        lambda: sum(row["state"] == "ready" for row in service.stats()["workers"]) == 2, 20.0
    )


def test_never_two_primaries(follow: Follow) -> None:
    """Killed again and again, also while an heir begins: at no moment are there two."""
    service = follow("probe:asgi")
    known: set[int] = set()
    for _ in range(MOST):
        known |= set(service.primaries())
        wait_until(lambda: len(_living(service)) == 1, 20.0)
        last = _living(service)[0]
        known.add(last)
        processes.kill(last)
        wait_until(lambda pid=last: processes.state(pid) in ("", "Z"), 10.0)
        wait_until(lambda: len(_living(service)) <= 1, 20.0)
    service.ask("stats")
    wait_until(lambda: len(_living(service)) == 1, 20.0)
    service.output.wait(rf"primary {_living(service)[0]} follows", 60.0)


def _living(service: Followed) -> list[int]:
    """By command line, whether they have said something or not."""
    marked = [each.pid for each in service.processes()]
    heirs = [pid for pid in marked if any("cli.heir" in part for part in processes.command(pid))]
    first = [service.pid] if processes.state(service.pid) not in ("", "Z") else []
    return [pid for pid in [*first, *heirs] if processes.state(pid) not in ("", "Z")]


def test_primary_and_dispatcher_killed(follow: Follow) -> None:
    """The workers finish what they have and end; the port and the name are free again."""
    service = follow("probe:asgi", "--drain-timeout", "20")
    with load_beside(service, Plan(service.address, count=4, path="/sleep/5000")) as load:
        wait_until(lambda: sum(row["inflight"] for row in service.stats()["workers"]) == 4, 20.0)
        stats = service.stats()
        service.processes()
        os.kill(stats["dispatcher_pid"], signal.SIGSTOP)  # so that it cannot start an heir
        processes.kill(stats["primary_pid"])
        processes.kill(stats["dispatcher_pid"])
        tally = load.finish()
    assert len(tally.ok) == 4
    service.wait()
    service.assert_nothing_left(timeout=25.0)
    assert refused(service)
    same = {"home": service.home, "name": service.name, "bind": (service.address,)}
    with Followed("probe:asgi", "-i", "1", **same) as again:  # type: ignore[arg-type]
        assert run_load(Plan(service.address, count=3)).outcomes() == {"ok": 3}
        assert again.ask("stats")["state"] == "serving"


def test_the_same_name_twice_is_refused(follow: Follow) -> None:
    service = follow("probe:asgi")
    command = rrdispatch_command(
        "run", "probe:asgi", "--heir", "--name", service.name, "--bind", "127.0.0.1:0"
    )
    second = Server(command, env={"RRDISPATCH_HOME": str(service.home)})
    try:
        assert second.wait() == 8
        assert f"{service.name} runs already" in second.output.text()
    finally:
        second.close()
    make_headless(service)
    third = Server(command, env={"RRDISPATCH_HOME": str(service.home)})
    try:
        assert third.wait() == 8, "headless it runs all the same"
    finally:
        third.close()
    assert service.primary()


def test_the_end_leaves_no_socket(follow: Follow) -> None:
    service = follow("probe:asgi")
    service.replace_primary()
    assert control_is_there(service)
    service.stop()
    assert not control_is_there(service)
    assert sorted(path.name for path in (service.home / service.name).iterdir()) == ["lock"]
