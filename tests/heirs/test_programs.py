"""Programs that know nothing of us do not notice either that their primary was killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import census, processes
from tests.harness.followed import Followed
from tests.harness.journal import Journal
from tests.harness.load import Load, load_beside, run_load
from tests.harness.records import Plan, Tally
from tests.harness.servers import wait_until
from tests.heirs.moments import CLUSTER, ends_itself
from tests.heirs.program import FollowedProgram, assert_even
from tests.heirs.test_followed import counted, settled
from tests.heirs.test_headless import make_headless
from tests.programs.program import APPS, free_port

Start = Callable[..., FollowedProgram]
QUICK = ("--probation", "0.2")


def more(loads: list[Load], number: int = 20) -> None:
    for load in loads:
        load.wait_more(number)


def stopped(loads: list[Load]) -> list[Tally]:
    return [load.stop() for load in loads]


def test_three_deaths_in_a_row_and_nobody_notices(program: Start) -> None:
    service = program()
    before, held = service.stats(), census.resting(service.primary())
    loads = service.loads()
    more(loads)
    for _ in range(3):
        heir = service.replace_primary()
        more(loads)
    tallies = stopped(loads)
    assert not [tally.failed for tally in tallies if tally.failed]
    after = service.stats()
    assert after["primary_pid"] == heir
    steady = ("dispatcher_pid", "logger_pid", "generation", "listeners", "state")
    assert {key: after[key] for key in steady} == {key: before[key] for key in steady}
    assert service.serving() == {row["slot"]: row["pid"] for row in before["workers"]}
    counted(service, before["accepted"] + sum(len(one.records) for one in tallies))
    settled(heir, held)
    for tally in service.ask_ports(20):
        assert_even(tally, set(service.serving().values()))


def test_an_heir_reloads_it(program: Start) -> None:
    service = program(*QUICK)
    service.replace_primary()
    old = set(service.serving().values())
    loads = service.loads()
    more(loads)
    assert service.ask("reload")["generation"] == 2
    more(loads)
    assert not [tally.failed for tally in stopped(loads) if tally.failed]
    new = set(service.serving().values())
    assert len(new) == 2
    assert not old & new
    for tally in service.ask_ports(20):
        assert_even(tally, new)


def test_an_heir_scales_and_respawns_it(program: Start) -> None:
    """What it starts listens at the same door, and gets every listener."""
    service = program()
    service.replace_primary()
    victim = service.serving()[0]
    processes.kill(victim)
    service.output.wait(rf"\(pid {victim}\) ended: .*SIGKILL", 20.0)
    service.wait_serving(2, without=victim)
    service.ask("scale", workers=3)
    serving = service.wait_serving(3)
    for tally in service.ask_ports(30):
        assert_even(tally, set(serving.values()))
    service.ask("scale", workers=1)
    wait_until(lambda: len(service.stats()["workers"]) == 1, 30.0, "two have gone")


def test_an_heir_tells_another_dispatcher_everything(program: Start) -> None:
    service = program()
    service.replace_primary()
    processes.kill(service.stats()["dispatcher_pid"])
    service.output.wait("the dispatcher was replaced", 20.0)
    service.replace_primary()
    victim = service.serving()[1]
    processes.kill(victim)
    serving = service.wait_serving(2, without=victim)
    for tally in service.ask_ports(20):
        assert_even(tally, set(serving.values()))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which the program gives up")
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_program_that_gave_up_root(dispatcher: str, when: str, tmp_path: Path) -> None:
    """An heir is not its parent, and knows it all the same."""
    port = free_port()
    options = ("-i", "2", "--dispatcher", dispatcher, *QUICK, "--", when, str(port))
    with Followed("drops.py", *options, home=tmp_path / "home", bind=(), cwd=APPS) as service:
        service.addresses = [f"127.0.0.1:{port}"]
        service.replace_primary()
        with load_beside(service, Plan(service.address, rate=50.0)) as load:
            load.wait_more(10)
            assert service.ask("reload")["generation"] == 2
            load.wait_more(10)
            assert not load.stop().failed


def test_an_heir_closes_what_the_next_release_does_not_listen_on(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    where = tmp_path / "ports"
    where.write_text(f"{first} {second}")
    options = ("-i", "1", "--dispatcher", "python", *QUICK, "--", str(where))
    with Followed("moves.py", *options, home=tmp_path / "home", bind=(), cwd=APPS) as service:
        service.addresses = [f"127.0.0.1:{first}"]
        service.replace_primary()
        where.write_text(str(first))
        assert service.ask("reload")["generation"] == 2
        service.output.wait(f"no longer listening on 127.0.0.1:{second}", 30.0)


def test_one_that_is_handed_its_sockets(dispatcher: str, tmp_path: Path) -> None:
    """The dispatcher does not accept from them, and keeps them all the same."""
    path = tmp_path / "socket"
    options = ("-i", "2", "--dispatcher", dispatcher, *QUICK, "--min-uptime", "0.3")
    where = {"home": tmp_path / "home", "bind": ("127.0.0.1:0", f"unix:{path}"), "cwd": APPS}
    with Followed("shared.py", "--share-listener", *options, **where) as service:  # type: ignore[arg-type]
        with load_beside(service, Plan(service.address, rate=50.0)) as load:
            load.wait_more(10)
            for _ in range(2):
                service.replace_primary()
                load.wait_more(10)
            assert nonblocking(pids(service)[0]), "what workers chose is theirs"
            assert service.ask("reload")["generation"] == 2
            load.wait_more(10)
            tally = load.stop()
        assert not tally.failed
        victim = service.stats()["workers"][0]["pid"]
        processes.kill(victim)
        wait_until(lambda: victim not in pids(service) and len(pids(service)) == 2, 20.0)
        assert run_load(Plan(service.address, "closed", count=20)).outcomes() == {"ok": 20}
        service.replace_primary()
    assert not path.exists()


def test_an_heir_knows_who_gave_signs_of_life(tmp_path: Path) -> None:
    """A worker that is mute from the moment its primary is killed is replaced."""
    options = ("-i", "1", "--dispatcher", "python", "--min-uptime", "0.3")
    options = (*options, "--share-listener", "--heartbeat-timeout", "6", "--", "beats")
    with Followed("shared.py", *options, home=tmp_path / "home", cwd=APPS) as service:
        service.output.wait(r"\| told 5$", 30.0)
        (victim,) = pids(service)
        os.kill(victim, signal.SIGSTOP)
        service.replace_primary()
        wait_until(lambda: pids(service) not in ([], [victim]), 60.0)


def nonblocking(worker: int) -> bool:
    """Is the socket that it was handed (proc(5), fdinfo)?"""
    text = Path(f"/proc/{worker}/fdinfo/3").read_text(encoding="ascii")
    return bool(int(text.partition("flags:")[2].split()[0], 8) & os.O_NONBLOCK)


def pids(service: Followed) -> list[int]:
    return [row["pid"] for row in service.stats()["workers"] if row["state"] == "ready"]


def test_it_listens_while_nobody_is_there(program: Start) -> None:
    """It waits, and the heir answers; a worker that is started later may have that port, too."""
    service = program()
    dispatcher, worker = service.stats()["dispatcher_pid"], service.serving()[1]
    os.kill(service.pid, signal.SIGSTOP)  # so that it does not replace the dispatcher
    os.kill(dispatcher, signal.SIGSTOP)  # so that no heir is started yet
    primary = service.kill_primary()
    service.listen_later(worker)
    assert "| has " not in service.output.text("stdout")
    os.kill(dispatcher, signal.SIGCONT)
    service.output.wait(r"\| has it", 40.0)
    service.output.wait(rf"primary \d+ follows {primary},", 20.0)
    later = Plan(f"127.0.0.1:{service.later}", "closed", count=10)
    only_one = load_beside(service, later).finish()
    assert_even(only_one, {worker})
    service.listen_later(service.serving()[0])
    wait_until(lambda: service.output.text("stdout").count("| has it") == 2, 20.0)
    service.replace_primary()
    assert_even(load_beside(service, later).finish(), set(service.serving().values()))
    assert len(listening(service)) == 3


def listening(service: FollowedProgram) -> list[str]:
    """What the primary says that it listens on, nothing twice."""
    told = [one["address"] for one in service.stats()["listeners"]]
    assert len(told) == len(set(told)), told
    return told


def test_headless_its_call_at_the_door_starts_a_primary(program: Start) -> None:
    service = program()
    worker = service.serving()[0]
    loads = service.loads()
    make_headless(service)
    more(loads)
    assert service.primaries() == []
    service.listen_later(worker)
    service.output.wait(r"\| has it", 40.0)
    wait_until(lambda: len(service.primaries()) == 1, 60.0, "somebody follows")
    more(loads)
    assert not [tally.failed for tally in stopped(loads) if tally.failed]


def test_killed_while_old_ones_finish_what_they_have(program: Start, tmp_path: Path) -> None:
    """The heir goes on to look whether a program is at work, and ends it only then."""
    go = tmp_path / "go"
    env = {"SEVERAL_HOLD": str(go)}
    service = program(*QUICK, "--no-park", "--drain-timeout", "120", env=env)
    old = service.serving()
    slow = load_beside(service, Plan(service.addresses[0], count=4, path="/hold", timeout=90.0))
    wait_until(lambda: sum(row["inflight"] for row in service.stats()["workers"]) == 4, 20.0)
    os.kill(service.primary(), signal.SIGHUP)
    wait_until(lambda: "draining" in states(service, old[0]), 20.0, "the first one drains")
    service.replace_primary()
    go.touch()
    service.output.wait(r": reloaded in", 30.0)
    assert len(slow.finish().ok) == 4
    wait_until(lambda: not any(map(alive, old.values())), 40.0, "the old ones are gone")
    assert len(service.serving()) == 2


def states(service: FollowedProgram, pid: int) -> list[str]:
    return [row["state"] for row in service.stats()["workers"] if row["pid"] == pid]


def alive(pid: int) -> bool:
    return processes.state(pid) not in ("", "Z")


def test_killed_in_the_midst_of_the_final_stop(program: Start, tmp_path: Path) -> None:
    """The heir waits for what is at work, as the one before it would have."""
    go = tmp_path / "go"
    service = program("--drain-timeout", "120", env={"SEVERAL_HOLD": str(go)})
    plans = [Plan(at, count=2, path="/hold", timeout=90.0) for at in service.addresses]
    slow = [load_beside(service, plan) for plan in plans]
    wait_until(lambda: sum(row["inflight"] for row in service.stats()["workers"]) == 4, 20.0)
    os.kill(service.pid, signal.SIGTERM)
    service.output.wait(r": stopping", 20.0)
    heir = service.replace_primary()
    go.touch()
    assert [len(load.finish().ok) for load in slow] == [2, 2]
    wait_until(lambda: not alive(heir), 60.0, "the heir ends")
    service.assert_nothing_left()


def test_killed_while_others_boot(program: Start) -> None:
    service = program(env={"SEVERAL_BOOT": "0.5"})
    service.ask("scale", workers=4)
    service.replace_primary()
    serving = service.wait_serving(4)
    for tally in service.ask_ports(20):
        assert_even(tally, set(serving.values()))


# ---- at the worst moments ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        f"before:{CLUSTER}.roster:Roster:add",  # started, the dispatcher knows nothing of it
        f"after:{CLUSTER}.roster:Roster:add",
        f"before:{CLUSTER}.roster:Roster:add_channel",  # asked to listen
        f"after:{CLUSTER}.roster:Roster:add_channel",  # not answered yet
        f"before:{CLUSTER}.programs:Programs:_ready",
        f"after:{CLUSTER}.programs:Programs:_ready",
    ],
    ids=lambda where: "-".join(where.split(":")[::3]),
)
def test_killed_in_the_midst_of_a_respawn(program: Start, where: str, tmp_path: Path) -> None:
    """One worker is started, not two, and it gets all that it asks for."""
    env, flag = ends_itself(where, tmp_path)
    journal = Journal(tmp_path / "journal")
    journal.directory.mkdir()
    service = program(env={**env, **journal.env})
    victim = service.serving()[0]
    loads = service.loads()
    flag.touch()
    processes.kill(victim)
    service.wait_heir(service.pid)
    serving = service.wait_serving(2, without=victim)
    more(loads)
    held, others = journal.inside(one for tally in stopped(loads) for one in tally.failed)
    assert set(held.values()) <= {victim}, "what the killed worker had in hand"
    assert len(others) <= 2, "taken at each of its ports, not written down yet"
    # One that the dispatcher had not heard of ended with the primary.
    ids = {row["id"] for row in service.stats()["workers"]}
    assert ids == {2, 4 if where.endswith(":add") and where.startswith("before") else 3}
    wait_until(service.known_workers, 20.0, "no worker is left that nobody knows")
    for tally in service.ask_ports(20):
        assert_even(tally, set(serving.values()))


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_a_listener_is_opened(program: Start, when: str, tmp_path: Path) -> None:
    """It is written down, and the dispatcher may have it or not: it is there once."""
    where = f"{when}:{CLUSTER}.dispatching:Dispatching:add_listener"
    env, flag = ends_itself(where, tmp_path)
    service = program(env=env)
    flag.touch()
    service.listen_later(service.serving()[0])
    service.wait_heir(service.pid)
    service.output.wait(r"\| has it", 40.0)
    service.listen_later(service.serving()[1])
    wait_until(lambda: service.output.text("stdout").count("| has it") == 2, 20.0)
    assert len(listening(service)) == 3
    later = load_beside(service, Plan(f"127.0.0.1:{service.later}", "closed", count=20)).finish()
    assert_even(later, set(service.serving().values()))
