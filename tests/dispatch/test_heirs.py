"""The primary dies: the dispatcher goes on, and starts an heir."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from rrdispatch._core.layout import AppTag, ControlKind, Inherit, State
from rrdispatch.errors import DispatcherError

from .heirs import LONG, House, children, wait_until
from .rig import MS, SECOND, Rig, answer_of
from .workers import wait_readable

K = ControlKind


def gone(pidfd: int) -> None:
    """The process has to end, and leaves no zombie behind."""
    wait_readable(pidfd, "the end of an heir")
    os.close(pidfd)


def test_what_an_heir_is_started_with(house: House, capfd: pytest.CaptureFixture[str]):
    rig = house.rig
    words = [*house.command, "one", "two words", ""]
    house.expect(command=words, environment={"RRDISPATCH_X": "1=2", "EMPTY": ""})
    house.die()
    house.succeed()
    facts = house.facts
    assert facts["fds"] == [0, 1, 2, 3]
    mine = [os.readlink(f"/proc/{rig.dispatcher.pid}/fd/{number}") for number in (1, 2)]
    assert facts["files"] == [os.devnull, *mine]
    assert facts["session"] == facts["pid"]
    assert facts["parent"] == rig.dispatcher.pid
    assert facts["cwd"] == str(house.folder)
    assert facts["arguments"] == ["one", "two words", ""]
    # LC_CTYPE is what Python adds by itself.
    facts["environment"].pop("LC_CTYPE", None)
    assert facts["environment"] == {"RRDISPATCH_X": "1=2", "EMPTY": ""}
    assert int(facts["blocked"], 16) == 0
    assert house.started() == 1


def test_an_heir_meets_no_signal_that_the_dispatcher_ignores(house: House):
    # One only: the next one would empty the file under our eyes.
    house.expect(most=1, command=["/bin/sh", "-c", "grep SigIgn /proc/self/status > ignored"])
    house.die()
    path = house.folder / "ignored"
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"), "a word")
    reserved = (
        1 << 31 | 1 << 32
    )  # signals 32 and 33 are the C library's: whoever ignores them, we may not
    assert int(path.read_text().split()[1], 16) & ~reserved == 0


def test_the_dispatcher_has_our_stdout_and_stderr(dispatcher: Rig):
    for number in (1, 2):
        mine = os.readlink(f"/proc/self/fd/{number}")
        assert os.readlink(f"/proc/{dispatcher.dispatcher.pid}/fd/{number}") == mine


def test_dispatching_goes_on_without_a_gap(house: House):
    rig = house.rig
    rig.listen()
    first, second = rig.add(2, process=True)
    house.expect()
    for _ in range(3):
        before = rig.connect_many(6)
        house.die()
        during = rig.connect_many(6)
        assert set(answer_of(during)) == {"0", "1"}
        house.succeed()
        after = rig.connect_many(6)
        assert set(answer_of([*before, *after])) == {"0", "1"}
    assert [rig.stats(one).sent for one in (first, second)] == [27, 27]
    # What happens from now on is told to the heir.
    first.kill()
    rig.event(K.DEAD, first)


def test_a_worker_that_dies_while_nobody_is_there_gets_its_queue_taken_back(house: House):
    rig = house.rig
    rig.listen()
    dead, other = rig.add(2, process=True)
    house.keep_control()
    house.expect(most=0)
    dead.stop()
    house.die()
    house.await_headless()
    clients = rig.connect_many(8)
    served = clients[1::2]
    assert answer_of(served) == ["1"] * 4
    dead.kill()
    assert answer_of(clients[::2]) == ["1"] * 4
    house.call()
    house.succeed()
    answer, _ = house.inherit(Inherit.WORKER, worker=dead)
    assert (answer.values[3], answer.values[5]) == (State.DEAD, 4)
    assert rig.ask(K.WORKER_REMOVE, worker=dead.id).values[0] == 4
    assert rig.stats(other).sent == 8


def test_after_three_quick_deaths_it_is_headless_until_a_client_calls(house: House):
    rig = house.rig
    rig.listen()
    rig.add(process=True)
    house.keep_control()
    house.expect()
    house.die()
    for _ in range(3):
        house.succeed()
        house.die()
    house.await_headless()
    assert answer_of([rig.connect()]) == ["0"]
    client = house.call()
    house.succeed()
    assert house.started() == 4
    assert not house.headless()
    _, (fd,) = house.inherit(Inherit.KEPT, tag=AppTag.CONTROL)
    assert house.control is not None
    # The call is not accepted by anybody but the heir.
    wait_readable(fd, "the client")
    house.control.setblocking(False)
    accepted, _ = house.control.accept()
    accepted.sendall(b"here")
    accepted.close()
    assert client.recv(4) == b"here"
    # The count was forgotten: of the next three the first two come by themselves.
    for _ in range(2):
        house.die()
        house.succeed()
    house.die()
    house.await_headless()


@pytest.mark.parametrize("where", ["control", "door"])
def test_a_call_is_heeded_at_either_place_and_then_at_none(house: House, where: str):
    house.keep_control()
    house.keep_door()
    house.expect(most=1)
    house.die()
    house.succeed()
    house.die()
    house.await_headless()
    house.call(where)
    house.succeed()
    assert house.started() == 2
    assert not house.headless()
    for either in ("control", "door"):
        house.call(either)
    assert house.started() == 2  # the calls are the heir's


def test_a_client_whom_no_heir_serves_does_not_keep_it_busy(house: House):
    """The call is still there when the heirs that it started are dead."""
    house.keep_control()
    house.expect(most=2, command=["/bin/sh", "-c", "echo x >> said"])
    said = house.folder / "said"

    def count() -> int:
        return len(said.read_text()) // 2 if said.exists() else 0

    house.die()
    house.await_headless()
    assert count() == 2
    began = time.monotonic()
    house.call()
    wait_until(lambda: count() >= 5, "heirs")
    # Two of the first call; the second is heeded a second after it.
    assert time.monotonic() - began >= 1.0


def test_without_a_control_listener_it_tries_again_after_the_window(house: House):
    window = 500 * MS
    house.expect(most=1, window=window)
    began = time.monotonic_ns()
    house.die()
    house.succeed()
    house.die()
    house.succeed()
    assert time.monotonic_ns() - began >= window
    assert house.started() == 2


def test_what_waited_to_be_told_is_not_told_to_the_heir(house: House):
    rig = house.rig
    house.expect()
    asked = 0

    def ask() -> bool:
        nonlocal asked
        with contextlib.suppress(DispatcherError):  # it has not read the last ones yet
            rig.request(K.PING)
            asked += 1
        return asked == 1000

    wait_until(ask, "1000 requests")
    signal.pidfd_send_signal(rig.dispatcher.pidfd, signal.SIGSTOP)
    os.waitid(os.P_PID, rig.dispatcher.pid, os.WSTOPPED)
    house.die()
    signal.pidfd_send_signal(rig.dispatcher.pidfd, signal.SIGCONT)
    house.succeed()
    assert house.started() == 1


def test_an_heir_that_says_nothing_is_killed_and_replaced(house: House):
    """The first one leaves a word and is silent; the next ones speak at once."""
    rig = house.rig
    script = (
        '[ -e said ] && { echo >&3; exec "$@"; }; exec 4> alive; echo > said; '
        f"exec {shutil.which('sleep')} 1000"
    )
    os.mkfifo(house.folder / "alive")
    alive = os.open(house.folder / "alive", os.O_RDONLY | os.O_NONBLOCK)
    house.expect(most=16, silence=SECOND, command=["/bin/sh", "-c", script, "heir", *house.command])
    house.die()
    house.succeed()
    assert house.started() >= 2
    wait_readable(alive, "the end of the silent one")
    assert os.read(alive, 1) == b""
    os.close(alive)
    # This one has spoken: it is left alone however long it is silent then.
    heir = os.pidfd_open(house.facts["pid"])
    rig.listen()
    rig.add()
    rig.ask(K.LISTENER_CLOSE, listener=0, values=(2 * SECOND, LONG))
    signal.pidfd_send_signal(heir, 0)
    os.close(heir)


def test_an_heir_that_lets_go_of_the_control_socket_is_killed(house: House):
    house.expect()
    house.die()
    house.succeed()
    heir = os.pidfd_open(house.facts["pid"])
    house.die()
    gone(heir)
    house.succeed()


def test_no_zombie_is_left(house: House):
    rig = house.rig
    house.keep_control()
    house.expect(command=["/bin/sh", "-c", "exit 3"])
    house.die()
    house.await_headless()
    wait_until(lambda: not children(rig.dispatcher.pid), "all heirs reaped")


def test_a_program_that_is_not_there(house: House):
    rig = house.rig
    rig.listen()
    rig.add(process=True)
    house.keep_control()
    program = house.folder / "program"
    house.expect(command=[str(program), *house.command])
    house.die()
    house.await_headless()
    assert answer_of(rig.connect_many(3)) == ["0"] * 3
    program.write_text('#!/bin/sh\nexec "$@"\n')
    program.chmod(0o700)
    house.call()
    house.succeed()
    assert house.started() == 4
    wait_until(lambda: len(children(rig.dispatcher.pid)) == 1, "the others' end")


def test_without_a_command_it_ends_as_before(house: House):
    rig = house.rig
    house.expect()
    rig.ask(K.HEIR, values=(3, LONG, 0))
    house.die()
    assert rig.wait_end() == 0


def test_an_heir_may_be_the_last(house: House):
    house.expect()
    house.die()
    house.succeed()
    house.rig.ask(K.HEIR)
    house.die()
    assert house.rig.wait_end() == 0


def test_the_next_command_is_the_one_that_counts(house: House):
    for word in ("first", "second", "third"):
        house.expect(command=[*house.command, word])
    house.die()
    house.succeed()
    assert house.facts["arguments"] == ["third"]


def test_nothing_accumulates(house: House, kind: str):
    """Descriptors and memory of the dispatcher after heirs, commands and all that they asked."""
    rig = house.rig
    rig.listen()
    rig.add()

    def anonymous() -> int:
        text = Path(f"/proc/{rig.dispatcher.pid}/smaps_rollup").read_text(encoding="ascii")
        return next(int(one.split()[1]) for one in text.splitlines() if "Pss_Anon" in one)

    house.expect(most=16, environment=dict(os.environ))
    rig.ping()
    before, held = anonymous(), len(rig.fds())
    for _ in range(4):
        house.die()
        house.succeed()
        house.expect(most=16, environment=dict(os.environ))
        house.inherit(Inherit.LISTENER)
    # The heir's pidfd is the one descriptor more.
    assert len(rig.fds()) == held + 1
    assert anonymous() - before <= (64 if kind == "c" else 1024)


def test_sigkill_of_an_heir(house: House):
    """As it happens: by a signal, with the socket in nobody else's hands."""
    house.expect(command=["/bin/sh", "-c", "echo $$ > word; mv word pid; read x <&3"])
    house.die()
    path = house.folder / "pid"
    seen = set()
    for _ in range(2):
        wait_until(path.exists, "an heir")
        heir = int(path.read_text())
        path.unlink()
        os.kill(heir, signal.SIGKILL)
        seen.add(heir)
    wait_until(path.exists, "the third")
    assert int(path.read_text()) not in seen
