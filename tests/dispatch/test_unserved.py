"""Listeners that nobody has a channel for, or few: they wait alone, and so does what is moved."""

from __future__ import annotations

import os
import select
import socket

import pytest

from rrdispatch._core.layout import ControlKind

from .rig import MS, SECOND, Rig, answer_of
from .workers import LIMIT, Worker

K = ControlKind


def two_listeners(rig: Rig) -> None:
    rig.listen()
    rig.listen()


# ---- nobody has a channel, or those who have are full --------------------------------------------


def test_an_unserved_listener_waits_and_the_others_go_on(dispatcher: Rig):
    two_listeners(dispatcher)
    (worker,) = dispatcher.add(1, process=True, listeners=[0])
    waiting = dispatcher.connect_many(5, 1)
    assert answer_of(dispatcher.connect_many(20)) == ["0"] * 20
    assert dispatcher.ping().accepted == 20
    (late,) = dispatcher.add(1, process=True, listeners=[1])
    assert answer_of(waiting) == ["1"] * 5
    assert dispatcher.count(K.FULL) == 0
    dispatcher.ask(K.WORKER_PARK, worker=late.id)
    more = dispatcher.connect_many(2, 1)
    assert answer_of(dispatcher.connect_many(5)) == ["0"] * 5
    assert dispatcher.ping().accepted == 30
    dispatcher.ready(late)
    assert answer_of(more) == ["1"] * 2
    assert dispatcher.stats(worker).picks == 25


def test_an_unserved_listener_costs_nothing(dispatcher: Rig):
    """Nobody looks at it again and again: with nothing else to do the dispatcher sleeps."""
    two_listeners(dispatcher)
    dispatcher.add(1, listeners=[0])
    dispatcher.connect(1)
    dispatcher.until(lambda: sleeps(dispatcher), "sleep")


def sleeps(rig: Rig) -> bool:
    before = rig.ping().rounds
    select.poll().poll(40)  # that nothing happens needs time to show
    return rig.ping().rounds == before + 1


def test_with_nobody_ready_it_is_as_ever(dispatcher: Rig):
    """Everything waits and that is told, whoever has which channels."""
    two_listeners(dispatcher)
    (worker,) = dispatcher.add(1, listeners=[0])
    dispatcher.connect(1)
    assert dispatcher.count(K.FULL) == 0
    dispatcher.ask(K.WORKER_PARK, worker=worker.id)
    dispatcher.event(K.FULL)
    dispatcher.ready(worker)
    dispatcher.event(K.ROOM)
    assert dispatcher.ping().accepted == 0
    dispatcher.add_channel(worker, 1)
    worker.take(1)


def test_the_few_are_full_and_the_others_go_on(dispatcher: Rig):
    dispatcher.settings(queue_limit=2)
    two_listeners(dispatcher)
    (few,) = dispatcher.add(1, listeners=[1])
    dispatcher.add(1, process=True, listeners=[0])
    clients = dispatcher.connect_many(6, 1)
    dispatcher.accepted(2)
    assert [answer_of([dispatcher.connect()]) for _ in range(20)] == [["1"]] * 20
    assert (dispatcher.ping().accepted, few.pending(1)) == (22, 2)
    assert dispatcher.count(K.FULL) == 0
    for _ in clients:
        few.take(1).answer()
    assert answer_of(clients) == ["0"] * 6


@pytest.mark.parametrize("batch", [1, 8])
def test_a_broken_channel_keeps_nobody_waiting_at_another_listener(dispatcher: Rig, batch: int):
    """What was accepted for it and nobody else can have waits for whoever comes."""
    two_listeners(dispatcher)
    (broken,) = dispatcher.add(1, listeners=[1], batch=batch)
    dispatcher.add(1, process=True, listeners=[0])
    with socket.socket(fileno=os.dup(broken.channels[1].receiver)) as channel:
        channel.shutdown(socket.SHUT_RD)
    clients = dispatcher.connect_many(3, 1)
    dispatcher.accepted(1)
    assert [answer_of([dispatcher.connect()]) for _ in range(10)] == [["1"]] * 10
    dispatcher.ask(K.WORKER_PARK, worker=broken.id)
    assert answer_of([dispatcher.connect()]) == ["1"]
    dispatcher.add(1, process=True, listeners=[1])
    assert answer_of(clients) == ["2"] * 3
    assert dispatcher.ping().lost == 0


def test_a_channel_that_breaks_with_a_dead_ones_connections_on_the_way(dispatcher: Rig):
    """What was taken back and cannot be given goes on to whoever comes."""
    two_listeners(dispatcher)
    (dead,) = dispatcher.add(1, process=True, listeners=[1])
    dead.stop()
    clients = dispatcher.connect_many(5, 1)
    dispatcher.accepted(5)
    (broken,) = dispatcher.add(1, listeners=[1])
    with socket.socket(fileno=os.dup(broken.channels[1].receiver)) as channel:
        channel.shutdown(socket.SHUT_RD)
    dispatcher.add(1, process=True, listeners=[0])
    dead.kill()
    dispatcher.event(K.DEAD, dead)
    assert [answer_of([dispatcher.connect()]) for _ in range(10)] == [["2"]] * 10
    dispatcher.ask(K.WORKER_PARK, worker=broken.id)
    assert [answer_of([dispatcher.connect()]) for _ in range(10)] == [["2"]] * 10
    dispatcher.add(1, process=True, listeners=[1])
    assert answer_of(clients) == ["3"] * 5
    assert dispatcher.ping().lost == 0


def test_nobody_is_stalled_while_none_who_has_a_channel_is_idle(dispatcher: Rig):
    """Whoever has none could not have served it sooner."""
    dispatcher.settings(stall=MS)
    two_listeners(dispatcher)
    (busy,) = dispatcher.add(1, listeners=[1])
    dispatcher.add(1, listeners=[0])
    clients = dispatcher.connect_many(2, 1)
    dispatcher.accepted(2)
    began = dispatcher.ping().now
    dispatcher.until(lambda: dispatcher.ping().now - began > 50 * MS)
    assert dispatcher.count(K.STALLED) == 0
    (other,) = dispatcher.add(1, process=True, listeners=[1])
    dispatcher.event(K.STALLED, busy)
    assert answer_of(clients) == [str(other.slot)] * 2


# ---- take-back -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["dead", "draining"])
def test_what_nobody_has_a_channel_for_stays_where_it_is(dispatcher: Rig, how: str):
    """And does not keep what waits in the other channel from being moved."""
    two_listeners(dispatcher)
    (leaving,) = dispatcher.add(1, process=True)
    leaving.stop()
    stays, moves = dispatcher.connect_many(3, 0), dispatcher.connect_many(4, 1)
    dispatcher.accepted(7)
    (other,) = dispatcher.add(1, listeners=[1])
    if how == "dead":
        leaving.kill()
        request = K.WORKER_REMOVE
    else:
        request = K.WORKER_DRAIN
    left = dispatcher.request(request, worker=leaving.id)
    for _ in moves:
        other.take(1).answer()
    assert answer_of(moves) == ["1"] * 4
    new = dispatcher.connect(1)
    other.take(1).answer()
    assert answer_of([new]) == ["1"]
    assert not dispatcher.answered(left)
    assert leaving.pending(0) == 3
    dispatcher.add_channel(other, 0)
    for _ in stays:
        other.take(0).answer()
    assert answer_of(stays) == ["1"] * 3
    answer = dispatcher.answer(left)
    assert (answer.result, answer.values[0]) == (0, 7)
    assert dispatcher.ping().lost == 0


def test_a_dead_ones_queue_keeps_nobody_waiting_at_another_listener(dispatcher: Rig):
    dispatcher.settings(queue_limit=2)
    two_listeners(dispatcher)
    (dead,) = dispatcher.add(1, process=True, listeners=[1])
    dead.stop()
    clients = dispatcher.connect_many(2, 1)
    dispatcher.accepted(2)
    (few,) = dispatcher.add(1, listeners=[1])
    dispatcher.add(1, process=True, listeners=[0])
    clients += dispatcher.connect_many(4, 1)
    dispatcher.accepted(4)
    dead.kill()
    dispatcher.event(K.DEAD, dead)
    for _ in clients:
        assert [answer_of([dispatcher.connect()]) for _ in range(3)] == [["2"]] * 3
        few.take(1).answer()
    assert answer_of(clients) == ["1"] * 6
    assert dispatcher.ping().moved == 2


def test_a_stopped_workers_queue_goes_to_those_who_have_a_channel(dispatcher: Rig):
    dispatcher.settings(stall=20 * MS)
    two_listeners(dispatcher)
    (stopped,) = dispatcher.add(1, process=True)
    stopped.stop()
    clients = [client for i in (0, 1) for client in dispatcher.connect_many(5, i)]
    dispatcher.accepted(10)
    dispatcher.add(1, process=True, listeners=[0])
    dispatcher.add(1, process=True, listeners=[1])
    assert answer_of(clients) == ["1"] * 5 + ["2"] * 5
    stopped.go_on()
    dispatcher.event(K.RECOVERED, stopped)


def test_what_was_fetched_returns_when_nobody_has_a_channel_any_more(dispatcher: Rig):
    """Its worker takes it itself, or whoever comes."""
    two_listeners(dispatcher)
    dispatcher.add(1, listeners=[1])
    for round_ in range(8):
        pair = dispatcher.add(2, listeners=[0])
        clients = dispatcher.connect_many(20)
        dispatcher.accepted(20 * (round_ + 1))
        drains = [dispatcher.request(K.WORKER_DRAIN, worker=one.id) for one in pair]
        taken = 0
        while taken < 20:
            for connection in [one for worker in pair for one in worker.try_take()]:
                connection.answer(b"taken")
                taken += 1
        assert answer_of(clients) == ["taken"] * 20
        for drain in drains:
            assert dispatcher.answer(drain).result == 0
    assert dispatcher.ping().lost == 0


# ---- the end -------------------------------------------------------------------------------------


def test_an_unserved_listener_closes_when_it_is_quiet_and_empty(dispatcher: Rig, family: str):
    dispatcher.listen()
    dispatcher.listen(family)
    dispatcher.add(1, listeners=[0])
    answer = dispatcher.ask(K.LISTENER_CLOSE, listener=1, values=(20 * MS, 600 * SECOND))
    assert answer.values[0] == 0


def test_what_waits_at_an_unserved_listener_may_be_served_until_the_limit(
    dispatcher: Rig, family: str
):
    dispatcher.listen()
    dispatcher.listen(family)
    (worker,) = dispatcher.add(1, process=True, listeners=[0])
    clients = dispatcher.connect_many(3, 1)
    closing = dispatcher.request(K.LISTENER_CLOSE, listener=1, values=(0, 600 * SECOND))
    began = dispatcher.ping().now
    dispatcher.until(lambda: dispatcher.ping().now - began > 50 * MS)
    assert not dispatcher.answered(closing)
    assert answer_of([dispatcher.connect()]) == ["0"]
    dispatcher.add(1, process=True, listeners=[1])
    assert answer_of(clients) == ["1"] * 3
    assert dispatcher.answer(closing).values[0] == 3
    assert dispatcher.stats(worker).picks == 1


def test_the_limit_ends_an_unserved_listener(dispatcher: Rig, family: str):
    """Nobody could have answered: clients see the end of their connection."""
    dispatcher.listen()
    sock = dispatcher.listen(family)
    dispatcher.add(1, listeners=[0])
    client = dispatcher.connect(1)
    answer = dispatcher.ask(K.LISTENER_CLOSE, listener=1, values=(MS, 30 * MS))
    assert answer.values[0] == 0
    sock.close()
    assert ended(client)


def ended(client: socket.socket) -> bool:
    client.settimeout(LIMIT)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_the_end_of_the_primary_does_not_wait_for_what_nobody_can_serve(dispatcher: Rig):
    """Neither for a backlog nor for a dead worker's queue; what can be served is."""
    two_listeners(dispatcher)
    dead = dispatcher.new_worker(listeners=[1])
    dead.start()
    dead.stop()
    dispatcher.hand_over(dead)
    dispatcher.ready(dead)
    lost = [dispatcher.connect(1)]
    dispatcher.accepted(1)
    (worker,) = dispatcher.add(1, listeners=[0])
    dead.kill()
    dispatcher.event(K.DEAD, dead)
    lost.append(dispatcher.connect(1))
    client = dispatcher.connect(0)
    dispatcher.accepted(2)
    dispatcher.hang_up()
    worker.take(0).answer()
    assert answer_of([client]) == ["1"]
    assert dispatcher.wait_end() == 0
    for one in (*dispatcher.workers, *dispatcher.listeners):
        one.forget() if isinstance(one, Worker) else one.close()
    assert all(map(ended, lost))
