"""What a primary keeps with the dispatcher, and what its heir is given."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rrdispatch._core.layout import AppTag, ControlKind, Inherit, State, WorkerTag
from rrdispatch.errors import DispatcherError

from .heirs import House, identity, wait_until
from .rig import Rig, answer_of
from .workers import LIMIT, wait_readable

K = ControlKind


def keep(rig: Rig, tag: int, fds: list[int], worker: int = 0) -> int:
    """KEEP; the errno, or 0."""
    answer = rig.answer(rig.request(K.KEEP, worker=worker, values=(tag,), fds=fds))
    return -answer.result


def kept_pipe(rig: Rig, tag: int, worker: int = 0) -> int:
    """The reading end of a pipe whose only writing end is kept."""
    reading, writing = os.pipe()
    assert keep(rig, tag, [writing], worker) == 0
    os.close(writing)
    return reading


def ended(reading: int) -> None:
    """The writing end has to be closed."""
    wait_readable(reading, "the end of a pipe")
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_an_heir_is_given_what_the_primary_had(house: House, tmp_path: Path):
    rig = house.rig
    rig.listen("inet")
    rig.listen(str(tmp_path / "app"))
    ready, parked, dead = (rig.new_worker(slot) for slot in range(3))
    for worker in (ready, dead):
        worker.start()
        worker.stop()
    for worker in (ready, parked, dead):
        rig.hand_over(worker)
        rig.ready(worker, capacity=7)
    rig.ask(K.WORKER_PARK, worker=parked.id)
    rig.connect_many(4, listener=0)
    rig.connect_many(2, listener=1)
    rig.accepted(6)
    notes = [os.pipe() for _ in range(3)]
    keep(rig, AppTag.STATE, [notes[0][0]])
    keep(rig, 7, [notes[1][0], notes[1][1], notes[2][1]])
    keep(rig, WorkerTag.VOICE, [notes[2][0]], worker=parked.id)
    dead.kill()
    rig.event(K.DEAD, dead)
    rig.until(lambda: rig.stats(ready).pending == 6, "the dead one's queue taken back")
    before = {worker.id: rig.stats(worker) for worker in rig.workers}
    house.expect()
    held = rig.fds()
    house.die()
    started = house.succeed()

    assert started.values[:2] == (rig.dispatcher.pid, 1)
    for index, sock in enumerate(rig.listeners):
        answer, fds = house.inherit(Inherit.LISTENER, listener=index)
        assert (answer.result, answer.values[0]) == (0, 0)
        assert [identity(fd) for fd in fds] == [identity(sock.fileno())]
    for worker in rig.workers:
        answer, fds = house.inherit(Inherit.WORKER, worker=worker)
        assert answer.result == 0
        assert answer.values[:8] == before[worker.id] == rig.stats(worker)
        assert [identity(fd) for fd in fds] == [identity(fd) for fd in worker.fds()]
        assert len(fds) == 3 + 2 * 2
    assert [before[worker.id].state for worker in rig.workers] == [
        State.READY, State.PARKED, State.DEAD,
    ]  # fmt: skip
    for worker, tag, given in (
        (None, AppTag.STATE, [notes[0][0]]),
        (None, 7, [notes[1][0], notes[1][1], notes[2][1]]),
        (parked, WorkerTag.VOICE, [notes[2][0]]),
    ):
        answer, fds = house.inherit(Inherit.KEPT, worker=worker, tag=tag)
        assert answer.result == 0
        assert [identity(fd) for fd in fds] == [identity(fd) for fd in given]
    # It gave duplicates: it holds what it held, and the pidfd of the heir.
    assert len(rig.fds()) == len(held) + 1
    for pair in notes:
        for fd in pair:
            os.close(fd)
    ready.go_on()
    assert len(answer_of(rig.clients)) == 6


def test_what_is_not_there_is_not_given(house: House):
    rig = house.rig
    rig.listen()
    (worker,) = rig.add()

    def refused(what: int, **more: int) -> int:
        tag = more.pop("tag", 0)
        return rig.refused(K.INHERIT, values=(what, tag), **more)

    assert refused(Inherit.LISTENER, listener=1) == errno.ENOENT
    assert refused(Inherit.LISTENER, listener=1 << 31) == errno.ENOENT
    assert refused(Inherit.WORKER, worker=99) == errno.ESRCH
    assert refused(Inherit.WORKER) == errno.ESRCH
    assert refused(Inherit.KEPT, tag=1) == errno.ENOENT
    assert refused(Inherit.KEPT, tag=1, worker=worker.id) == errno.ENOENT
    assert refused(Inherit.KEPT, tag=1, worker=99) == errno.ESRCH
    for tag in (0, 8, 1 << 63):
        assert refused(Inherit.KEPT, tag=tag) == errno.EINVAL
    for what in (0, 4, 1 << 63):
        assert refused(what) == errno.EINVAL
    rig.ask(K.LISTENER_CLOSE, listener=0)
    assert refused(Inherit.LISTENER) == errno.ENOENT


def test_what_cannot_be_kept_is_closed(house: House):
    rig = house.rig
    reading, writing = os.pipe()
    before = rig.fds()
    assert keep(rig, 1, [writing] * 9) == errno.E2BIG
    assert keep(rig, 0, [writing]) == errno.EINVAL
    assert keep(rig, 8, [writing]) == errno.EINVAL
    assert keep(rig, 1 << 32 | 1, [writing]) == errno.EINVAL
    assert keep(rig, 1, [writing], worker=5) == errno.ESRCH
    assert rig.fds() == before
    assert keep(rig, 1, [writing] * 8) == 0
    assert len(rig.fds()) == len(before) + 8
    assert keep(rig, 1, [writing] * 9) == errno.E2BIG
    assert len(rig.fds()) == len(before) + 8
    os.close(writing)
    assert keep(rig, 1, []) == 0
    assert rig.fds() == before
    ended(reading)


def test_what_is_kept_is_replaced_forgotten_and_goes_with_its_worker(house: House):
    rig = house.rig
    rig.listen()
    (worker,) = rig.add(process=True)
    bare = len(rig.fds())
    first = kept_pipe(rig, 1)
    second = kept_pipe(rig, 1)
    ended(first)
    other = kept_pipe(rig, 1, worker.id)
    more = kept_pipe(rig, 7, worker.id)
    assert len(rig.fds()) == bare + 3
    assert keep(rig, 1, []) == 0
    ended(second)
    worker.kill()
    rig.event(K.DEAD, worker)
    third = kept_pipe(rig, 2, worker.id)  # of a dead one, too
    (copy,) = house.inherit(Inherit.KEPT, worker=worker, tag=2)[1]
    os.dup2(third, copy)  # not the only writing end any more
    rig.ask(K.WORKER_REMOVE, worker=worker.id)
    for reading in (other, more, third):
        ended(reading)
    assert keep(rig, 1, [], worker=worker.id) == errno.ESRCH


def test_stop_closes_what_is_kept_and_starts_no_heir(house: House):
    rig = house.rig
    rig.listen()
    (worker,) = rig.add()
    house.expect()
    pipes = [kept_pipe(rig, 1), kept_pipe(rig, 7), kept_pipe(rig, 1, worker.id)]
    rig.ask(K.STOP)
    assert rig.wait_end() == 0
    for reading in pipes:
        ended(reading)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """More than the 1,024 that a shell gives."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(before, 8192)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


@pytest.mark.usefixtures("many_descriptors")
def test_an_heir_that_reads_late_is_given_everything(house: House):
    rig = house.rig
    rig.listen()
    worker = rig.add()[0]
    before = len(rig.fds())
    asked: list[int] = []

    def ask() -> bool:
        with contextlib.suppress(DispatcherError):  # it has not read the last ones yet
            asked.append(rig.request(K.INHERIT, worker=worker.id, values=(Inherit.WORKER,)))
        return len(asked) == 500

    wait_until(ask, "500 requests")
    expected = [identity(fd) for fd in worker.fds()]
    for sequence in asked:
        assert rig.answer(sequence).result == 0
        fds = rig.fds_of(sequence)
        assert [identity(fd) for fd in fds] == expected
        while fds:
            os.close(fds.pop())
    assert len(rig.fds()) == before


def test_what_the_primary_asked_for_before_it_died_is_done(house: House):
    """Also where it leaves answers unread: the kernel says ECONNRESET first then."""
    rig = house.rig
    house.expect()
    rig.request(K.PING)
    wait_readable(rig.dispatcher.fileno(), "an answer that is not read")
    signal.pidfd_send_signal(rig.dispatcher.pidfd, signal.SIGSTOP)
    os.waitid(os.P_PID, rig.dispatcher.pid, os.WSTOPPED)
    reading, writing = os.pipe()
    rig.request(K.KEEP, values=(1,), fds=[writing])
    house.die()
    signal.pidfd_send_signal(rig.dispatcher.pidfd, signal.SIGCONT)
    house.succeed()
    _, fds = house.inherit(Inherit.KEPT, tag=1)
    assert [identity(fd) for fd in fds] == [identity(writing)]
    os.close(reading)
    os.close(writing)


# ---- asked for by a primary that died ----------------------------------------------------------


def test_a_drain_is_asked_for_again(house: House):
    rig = house.rig
    rig.listen()
    (worker,) = rig.add()
    house.expect()
    rig.connect_many(2)
    rig.accepted(2)
    rig.request(K.WORKER_DRAIN, worker=worker.id)
    assert rig.refused(K.WORKER_DRAIN, worker=worker.id) == errno.EALREADY
    house.die()
    house.succeed()
    again = rig.request(K.WORKER_DRAIN, worker=worker.id)
    assert rig.refused(K.WORKER_DRAIN, worker=worker.id) == errno.EALREADY
    assert not rig.answered(again)
    (other,) = rig.add(process=True)
    assert rig.answer(again).values[0] == 2
    assert rig.stats(other).sent == 2


@pytest.mark.parametrize("answered", [True, False])
def test_what_a_drain_has_moved_is_told_to_who_asks_later(house: House, answered: bool):
    """Also if it was told to who is dead: it may not have read that."""
    rig = house.rig
    rig.listen()
    (worker,) = rig.add()
    rig.connect_many(2)
    rig.accepted(2)
    rig.add(process=True)
    house.expect()
    drain = rig.request(K.WORKER_DRAIN, worker=worker.id)
    if answered:
        assert rig.answer(drain).values[0] == 2
    house.die()
    answer_of(rig.clients)
    house.succeed()
    assert rig.ask(K.WORKER_DRAIN, worker=worker.id).values[0] == 2


def test_a_removal_goes_on_without_who_asked_for_it(house: House):
    rig = house.rig
    rig.listen()
    (worker,) = rig.add(process=True)
    worker.stop()
    rig.connect()
    rig.accepted(1)
    worker.kill()
    rig.event(K.DEAD, worker)
    house.expect()
    rig.request(K.WORKER_REMOVE, worker=worker.id)
    house.die()
    house.succeed()
    again = rig.request(K.WORKER_REMOVE, worker=worker.id)
    assert rig.refused(K.WORKER_REMOVE, worker=worker.id) == errno.EALREADY
    house.die()
    house.succeed()
    rig.add(process=True)
    assert answer_of(rig.clients) == ["1"]
    rig.until(lambda: rig.ping().workers == 1, "the removal")
    assert not rig.answered(again)
    assert rig.refused(K.WORKER_REMOVE, worker=worker.id) == errno.ESRCH


def test_a_removal_is_asked_for_again(house: House):
    rig = house.rig
    rig.listen()
    (worker,) = rig.add(process=True)
    worker.stop()
    rig.connect()
    rig.accepted(1)
    worker.kill()
    rig.event(K.DEAD, worker)
    house.expect()
    rig.request(K.WORKER_REMOVE, worker=worker.id)
    house.die()
    house.succeed()
    again = rig.request(K.WORKER_REMOVE, worker=worker.id)
    rig.add(process=True)
    assert rig.answer(again).values[:3] == (1, 1, 0)


def test_a_close_is_asked_for_again(house: House):
    rig = house.rig
    rig.settings(queue_limit=1)
    rig.listen()
    (worker,) = rig.add()
    rig.connect_many(4)
    rig.event(K.FULL)
    house.expect()
    # Nobody has room: what waits in the backlog keeps it open.
    rig.request(K.LISTENER_CLOSE, listener=0, values=(0, 600_000_000_000))
    assert rig.refused(K.LISTENER_CLOSE, listener=0) == errno.EALREADY
    house.die()
    house.succeed()
    answer, _ = house.inherit(Inherit.LISTENER)
    assert (answer.result, answer.values[0]) == (0, 1)
    again = rig.request(K.LISTENER_CLOSE, listener=0)
    assert rig.refused(K.LISTENER_CLOSE, listener=0) == errno.EALREADY
    assert not rig.answered(again)
    for _ in range(4):
        worker.take().answer()
    assert rig.answer(again).values[0] == 3
    assert rig.refused(K.LISTENER_CLOSE, listener=0) == errno.ENOENT
    assert answer_of(rig.clients) == ["0"] * 4


def test_sockets_that_were_given_away_twice_are_the_same(house: House):
    """A listener that an heir inherits can be accepted from: it is not a copy of the socket."""
    rig = house.rig
    rig.listen()
    _, (fd,) = house.inherit(Inherit.LISTENER)
    client = rig.connect()
    with socket.socket(fileno=os.dup(fd)) as listener:
        wait_readable(listener.fileno(), "a connection", LIMIT)
        accepted, _ = listener.accept()
        accepted.sendall(b"x")
        accepted.close()
    assert client.recv(1) == b"x"
