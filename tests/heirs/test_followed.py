"""A primary that is killed is followed by one that has everything: nobody outside notices."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.harness import census, processes
from tests.harness.followed import Followed
from tests.harness.load import load_beside
from tests.harness.records import Plan
from tests.harness.servers import wait_until
from tests.heirs.conftest import Follow
from tests.heirs.moments import CLUSTER, ends_itself

STEADY = ("dispatcher_pid", "logger_pid", "generation", "listeners", "state")


def worker_pids(service: Followed) -> list[int]:
    return [row["pid"] for row in service.stats()["workers"] if row["state"] == "ready"]


def test_under_load_nothing_fails_and_everything_is_the_same(follow: Follow) -> None:
    service = follow("probe:asgi")
    before = service.stats()
    with load_beside(service, Plan(service.address, rate=100.0)) as load:
        load.wait_more(20)
        heir = service.replace_primary()
        load.wait_more(20)
        tally = load.stop()
    assert not tally.failed
    after = service.stats()
    assert after["primary_pid"] == heir != before["primary_pid"]
    assert {key: after[key] for key in STEADY} == {key: before[key] for key in STEADY}
    same = ("slot", "id", "pid", "generation", "state", "restarts", "kind")
    assert [[row[key] for key in same] for row in after["workers"]] == [
        [row[key] for key in same] for row in before["workers"]
    ]
    assert all(now["uptime"] > then["uptime"] for now, then in zip(
        after["workers"], before["workers"], strict=True))  # fmt: skip
    counted(service, before["accepted"] + len(tally.records))


def counted(service: Followed, accepted: int) -> None:
    """A dispatcher that has no core for a second tells its numbers later."""
    wait_until(lambda: service.stats()["accepted"] >= accepted, 60.0)
    assert service.stats()["accepted"] == accepted


def test_an_heir_holds_what_the_first_primary_held(follow: Follow) -> None:
    """And the dispatcher holds no more than before but the pidfd of its heir, heir after heir."""
    service = follow("probe:asgi")
    dispatcher = service.stats()["dispatcher_pid"]
    first, held = census.resting(service.primary()), census.resting(dispatcher)
    held["pidfd"] += 1
    for _ in range(2):
        heir = service.replace_primary()
        assert service.primary() == heir
        settled(dispatcher, held)
        settled(heir, first)


def settled(pid: int, wanted: Counter[str]) -> None:
    """What a process holds becomes what it should: a client's connection takes a moment to go."""
    try:
        wait_until(lambda: census.kinds(pid) == wanted, 60.0)
    except TimeoutError:
        assert census.kinds(pid) == wanted


def test_an_heir_supervises(follow: Follow) -> None:
    """Respawn, reload, scale, a dead logger and a dead dispatcher: all as before."""
    service = follow("probe:asgi", "--probation", "0.2")
    service.replace_primary()
    victim = worker_pids(service)[0]
    processes.kill(victim)
    service.output.wait(rf"\(pid {victim}\) ended: .*SIGKILL", 20.0)
    wait_until(lambda: len(worker_pids(service)) == 2 and victim not in worker_pids(service), 20.0)
    assert service.ask("reload")["generation"] == 2
    service.ask("scale", workers=3)
    wait_until(lambda: len(worker_pids(service)) == 3, 20.0)
    for which, event in (("logger_pid", "logger"), ("dispatcher_pid", "dispatcher")):
        old = service.stats()[which]
        processes.kill(old)
        service.output.wait(rf"the {event} was replaced", 20.0)
        assert service.stats()[which] != old
    assert service.stats()["slots"][victim_slot(service)]["restarts"] == 1
    service.replace_primary()  # and the dispatcher that an heir started knows all this too
    assert len(worker_pids(service)) == 3


def victim_slot(service: Followed) -> int:
    return next(row["slot"] for row in service.stats()["slots"] if row["restarts"])


def test_every_line_of_a_worker_is_written_once(follow: Follow, tmp_path: Path) -> None:
    (tmp_path / "lines.py").write_text(
        "import itertools, os\n"
        "count = itertools.count()\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] != 'http': return\n"
        "    print('line', os.getpid(), next(count))\n"
        "    await send({'type': 'http.response.start', 'status': 200,\n"
        "                'headers': [(b'content-length', b'0')]})\n"
        "    await send({'type': 'http.response.body', 'body': b''})\n"
    )
    service = follow("lines:app", cwd=tmp_path)
    with load_beside(service, Plan(service.address, rate=200.0)) as load:
        for _ in range(2):
            load.wait_more(40)
            service.replace_primary()
        load.wait_more(20)
        tally = load.stop()
    wanted = len(tally.ok)
    wait_until(lambda: len(_lines(service)) >= wanted, 60.0, "all lines")
    lines = _lines(service)
    assert len(lines) == len(set(lines)) == wanted
    assert not tally.failed


def _lines(service: Followed) -> list[str]:
    text = service.output.text("stdout").splitlines()
    return [line.partition("| ")[2] for line in text if "| line " in line]


def test_killed_in_the_midst_of_a_reload(follow: Follow) -> None:
    """The heir finishes it."""
    service = follow("probe:asgi", "--probation", "1")
    old = set(worker_pids(service))
    with load_beside(service, Plan(service.address, rate=50.0)) as load:
        os.kill(service.primary(), signal.SIGHUP)
        service.output.wait("reload begins", 60.0)
        wait_until(lambda: old != set(worker_pids(service)), 20.0, "a new worker serves")
        service.replace_primary()
        service.output.wait(r": reloaded in", 30.0)
        load.wait_more(5)
        tally = load.stop()
    assert not tally.failed
    assert service.stats()["generation"] == 2
    assert not old & set(worker_pids(service))


PARKS = """
import os, rrdispatch
say = lambda word: print(os.environ["RRDISPATCH_GENERATION"], word, flush=True)
rrdispatch.on_park(lambda: say("is parked"))
rrdispatch.on_resume(lambda: say("is resumed"))

async def app(scope, receive, send):
    pass
"""


@pytest.mark.parametrize("word", ["parked", "resumed"])
def test_killed_before_a_worker_is_told(follow: Follow, tmp_path: Path, word: str) -> None:
    """The heir tells it, and nothing twice."""
    (tmp_path / "parks.py").write_text(PARKS)
    env, flag = ends_itself(f"before:{CLUSTER}.handle:WorkerHandle:tell", tmp_path)
    options = ("--probation", "300", "--lifespan", "off")
    service = follow("parks:app", *options, workers=1, cwd=tmp_path, env=env)
    old = worker_pids(service)
    if word == "parked":
        flag.touch()
    os.kill(service.pid, signal.SIGHUP)
    service.output.wait(r"1 is parked", 30.0)
    if word == "resumed":
        flag.touch()
    processes.kill(worker_pids(service)[0])
    service.output.wait(r"1 is resumed", 30.0)
    wait_until(lambda: worker_pids(service) == old, 30.0)
    assert service.primary() != service.pid
    told = re.findall(r"\d is \w+", service.output.text("stdout"))
    assert told == ["1 is parked", "1 is resumed"]


def test_killed_in_the_midst_of_a_start(follow: Follow) -> None:
    """Workers that were booting become ready under the heir."""
    service = follow("probe:asgi", env={"PROBE_BOOT": "0.5"})
    service.ask("scale", workers=4)
    service.replace_primary()
    wait_until(lambda: len(worker_pids(service)) == 4, 30.0, "all four serve")


def test_killed_as_soon_as_a_worker_was_started(follow: Follow, tmp_path: Path) -> None:
    """The dispatcher knows it, the state not yet how it was started: the heir has it."""
    env, flag = ends_itself(f"after:{CLUSTER}.roster:Roster:add", tmp_path)
    service = follow("probe:asgi", env=env)
    flag.touch()
    os.kill(service.pid, signal.SIGTTIN)  # one worker more
    service.wait_heir(service.pid)
    wait_until(lambda: len(worker_pids(service)) == 3, 30.0, "all three serve")
    assert [row["id"] for row in service.stats()["workers"]] == [1, 2, 3]


def test_killed_in_the_midst_of_the_final_stop(follow: Follow) -> None:
    """The heir ends what was begun; what is at work is finished."""
    service = follow("probe:asgi")
    with load_beside(service, Plan(service.address, count=4, path="/sleep/6000")) as load:
        wait_until(lambda: sum(row["inflight"] for row in service.stats()["workers"]) == 4, 20.0)
        primary = service.primary()
        os.kill(primary, signal.SIGTERM)
        service.output.wait(r": stopping", 20.0)
        service.kill_primary(primary)
        heir = service.wait_heir(primary)
        tally = load.finish()
    assert len(tally.ok) == 4
    wait_until(lambda: processes.state(heir) in ("", "Z"), 30.0, "the heir ends")
    service.assert_nothing_left()


def test_a_stopped_primary_is_not_followed(follow: Follow) -> None:
    """SIGSTOP is no death: the service goes on, and so does the primary after SIGCONT."""
    service = follow("probe:asgi")
    primary = service.primary()
    os.kill(primary, signal.SIGSTOP)
    with load_beside(service, Plan(service.address, rate=100.0)) as load:
        load.wait_more(200)
        tally = load.stop()
    assert not tally.failed
    assert service.primaries() == [primary]
    os.kill(primary, signal.SIGCONT)
    assert service.primary() == primary
