"""What is queued outlives the dispatcher, and that outlives its primary until all is done."""

from __future__ import annotations

import os
import socket

import pytest

from rrdispatch._core.layout import ControlKind
from tests.harness.readable import readable

from .rig import Rig, answer_of
from .workers import wait_readable


def test_another_dispatcher_takes_everything_over(dispatcher: Rig, family: str):
    dispatcher.settings(queue_limit=5)
    dispatcher.listen(family)
    workers = dispatcher.add(2)
    clients = dispatcher.connect_many(15)
    dispatcher.event(ControlKind.FULL)
    assert dispatcher.ping().accepted == 10
    dispatcher.kill_dispatcher()
    dispatcher.replace()
    assert [dispatcher.stats(worker).pending for worker in workers] == [5, 5]
    while len(workers[0].taken) + len(workers[1].taken) < 15:
        dispatcher.ping()
        for worker in workers:
            if worker.pending():
                worker.take().answer()
    assert len(answer_of(clients)) == 15
    assert dispatcher.ping().accepted == 5


def test_nothing_is_lost_however_often_it_is_killed(dispatcher: Rig):
    dispatcher.listen()
    workers = dispatcher.add(2, process=True)
    for _ in range(5):
        for worker in workers:
            worker.stop()
        clients = dispatcher.connect_many(20)
        dispatcher.accepted(20)
        dispatcher.kill_dispatcher()
        dispatcher.replace()
        for worker in workers:
            worker.go_on()
        assert set(answer_of(clients)) == {"0", "1"}


def test_a_dead_workers_queue_is_found_by_the_next_dispatcher(dispatcher: Rig):
    dispatcher.listen()
    (dead,) = dispatcher.add(1, process=True)
    dead.stop()
    clients = dispatcher.connect_many(7)
    dispatcher.accepted(7)
    dispatcher.kill_dispatcher()
    dead.kill()
    dispatcher.replace()
    dispatcher.event(ControlKind.DEAD, dead)
    dispatcher.add(1, process=True)
    assert answer_of(clients) == ["1"] * 7
    assert dispatcher.ask(ControlKind.WORKER_REMOVE, worker=dead.id).values[0] == 7


def leave(dispatcher: Rig) -> None:
    """The primary dies: all that it held is closed."""
    for sock in dispatcher.listeners:
        sock.close()
    for worker in dispatcher.workers:
        worker.forget()
    dispatcher.hang_up()


def test_when_the_primary_is_gone_all_is_handed_out_first(dispatcher: Rig, family: str):
    dispatcher.settings(queue_limit=3)
    sock = dispatcher.listen(family)
    name = sock.getsockname()
    (worker,) = dispatcher.add(1, process=True)
    worker.stop()
    clients = dispatcher.connect_many(20)
    dispatcher.event(ControlKind.FULL)
    leave(dispatcher)
    if family == "inet":  # who has no room may be blocked for seconds
        assert not readable(clients[-1].fileno(), 2.5)
    worker.go_on()
    assert answer_of(clients) == ["0"] * 20
    assert dispatcher.wait_end() == 0
    # The worker saw the end of its channel.
    wait_readable(worker.pidfd, "the end of the worker")
    assert os.waitpid(worker.pid, 0)[1] == 0
    worker.pid = 0
    with socket.socket(sock.family) as late, pytest.raises(ConnectionRefusedError):
        late.connect(name)


def test_a_stalled_workers_probe_does_not_keep_it_alive(dispatcher: Rig):
    dispatcher.settings(stall=5_000_000)
    dispatcher.listen()
    one, other = dispatcher.add(2)
    dispatcher.connect()
    dispatcher.event(ControlKind.STALLED, one)
    other.take().close()
    dispatcher.until(lambda: one.pending() == 1, "a probe")
    leave(dispatcher)
    assert dispatcher.wait_end() == 0


def test_without_a_living_worker_it_ends_at_once(dispatcher: Rig):
    dispatcher.listen()
    (worker,) = dispatcher.add(1, process=True)
    worker.kill()
    dispatcher.event(ControlKind.DEAD, worker)
    dispatcher.connect()
    dispatcher.event(ControlKind.FULL)
    leave(dispatcher)
    assert dispatcher.wait_end() == 0


def test_the_lifeline_ends_with_dispatcher_and_primary(dispatcher: Rig):
    dispatcher.listen()
    (worker,) = dispatcher.add(1)
    reading, writing = worker.lifeline
    os.close(writing)
    worker.lifeline = (reading, os.open(os.devnull, os.O_RDWR))
    leave(dispatcher)
    wait_readable(reading, "the end of the lifeline")
    assert os.read(reading, 1) == b""
    assert dispatcher.wait_end() == 0


def test_stop_leaves_what_is_queued_for_the_next(dispatcher: Rig):
    dispatcher.listen()
    (worker,) = dispatcher.add(1)
    clients = dispatcher.connect_many(4)
    dispatcher.accepted(4)
    dispatcher.ask(ControlKind.STOP)
    assert dispatcher.wait_end() == 0
    dispatcher.dispatcher.close()
    dispatcher.replace()
    for _ in range(4):
        worker.take().answer()
    assert answer_of(clients) == ["0"] * 4
