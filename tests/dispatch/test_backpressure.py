"""When nobody has room the kernel's backlog holds: not one connection more is taken."""

from __future__ import annotations

import pytest

from rrdispatch._core.layout import ControlKind, Policy

from .rig import MS, Rig, answer_of, rig


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize("limit", [1, 3, 69])
def test_exactly_the_queue_limit_is_accepted(dispatcher: Rig, policy: Policy, limit: int):
    dispatcher.settings(policy, queue_limit=limit)
    dispatcher.listen()
    workers = dispatcher.add(2)
    clients = dispatcher.connect_many(2 * limit + 5)
    dispatcher.event(ControlKind.FULL)
    assert dispatcher.ping().accepted == 2 * limit
    assert [worker.pending() for worker in workers] == [limit, limit]
    # One taken is room for one.
    workers[1].take().answer()
    dispatcher.event(ControlKind.ROOM)
    dispatcher.accepted(2 * limit + 1)
    assert dispatcher.ping().accepted == 2 * limit + 1
    assert workers[1].pending() == limit
    while len(workers[0].taken) + len(workers[1].taken) < len(clients):
        for worker in workers:
            if worker.pending():
                worker.take().answer()
    assert set(answer_of(clients)) == {"0", "1"}
    assert dispatcher.ping()[1:6] == (len(clients), len(clients), 0, 0, 0)


def test_without_workers_the_backlog_holds(dispatcher: Rig, family: str):
    dispatcher.listen(family)
    clients = dispatcher.connect_many(30)
    dispatcher.event(ControlKind.FULL)
    assert dispatcher.ping().accepted == 0
    dispatcher.add(2, process=True)
    assert set(answer_of(clients)) <= {"0", "1"}
    assert dispatcher.ping().accepted == 30


def test_full_and_room_are_told_once_a_second_at_most(dispatcher: Rig):
    dispatcher.settings(queue_limit=1)
    dispatcher.listen()
    (worker,) = dispatcher.add(1)
    clients = dispatcher.connect_many(40)
    before = dispatcher.event(ControlKind.FULL)
    began = dispatcher.ping().now
    for _ in clients:
        worker.take().answer()
    answer_of(clients)
    seconds = (dispatcher.ping().now - began) / 1e9
    assert before.values[0] == 0
    assert dispatcher.count(ControlKind.FULL) <= seconds + 1
    assert dispatcher.count(ControlKind.ROOM) <= seconds + 2


def test_a_lower_limit_counts_from_the_next_connection(dispatcher: Rig):
    dispatcher.listen()
    (worker,) = dispatcher.add(1)
    dispatcher.connect_many(8)
    dispatcher.accepted(8)
    dispatcher.settings(queue_limit=4)
    dispatcher.connect()
    dispatcher.event(ControlKind.FULL)
    assert worker.pending() == 8
    for _ in range(4):
        worker.take().answer()
    assert dispatcher.ping().accepted == 8
    worker.take().answer()
    dispatcher.accepted(9)
    assert worker.pending() == 4


def test_an_idle_dispatcher_sleeps(dispatcher: Rig):
    """Also with a full queue that nobody can take from: no round without an event."""
    dispatcher.listen()
    dispatcher.connect_many(3)
    dispatcher.event(ControlKind.FULL)
    dispatcher.ping()
    rounds = [dispatcher.ping().rounds for _ in range(5)]
    assert all(rounds[0] <= told <= rounds[0] + step for step, told in enumerate(rounds))


def test_who_is_full_for_long_is_looked_at_ever_more_rarely(dispatcher: Rig):
    """Also where queues are short because the workers said how many they serve at a time."""
    for _ in range(3):
        dispatcher.listen()
    dispatcher.add(2, capacity=1)
    dispatcher.connect_many(10)
    dispatcher.event(ControlKind.FULL)
    assert dispatcher.ping().accepted == 4
    is_left_alone(dispatcher, 1, 1200 * MS)
    before = dispatcher.ping()
    is_left_alone(dispatcher, 2, 300 * MS)
    after = dispatcher.ping()
    assert after.rounds - before.rounds < (after.now - before.now) / (3 * MS) + 10


def is_left_alone(dispatcher: Rig, listener: int, time: int) -> None:
    """Nobody asks anything of it until it says that the time for a close is over."""
    dispatcher.ask(ControlKind.LISTENER_CLOSE, listener=listener, values=(time, time))


def test_listeners_take_turns_under_load(kind: str):
    with rig(kind) as made:
        made.settings(queue_limit=69)
        made.listen()
        made.listen()
        (worker,) = made.add(1)
        made.ask(ControlKind.WORKER_PARK, worker=worker.id)
        made.connect_many(100, 0)
        made.connect_many(10, 1)
        made.event(ControlKind.FULL)
        made.ready(worker)
        while worker.pending(1) < 5:
            made.ping()
            if worker.pending(0):
                worker.take(0).close()
        # The second listener did not have to wait until the first had given all.
        assert made.ping().accepted < 110


def test_who_said_how_many_it_serves_is_given_few_in_advance(dispatcher: Rig):
    """What it has places for, what it took lately, and one: who comes later may find a place that
    is free at somebody else's, and is not behind a request that takes long.
    """
    dispatcher.listen()
    busy, other = dispatcher.add(2, capacity=2)
    clients = dispatcher.connect_many(20)
    dispatcher.event(ControlKind.FULL)
    assert [worker.pending() for worker in (busy, other)] == [3, 3]
    working = [busy.take(), busy.take()]
    # It has no place left, and what it took is soon long ago: one is enough.
    while len(other.taken) < 12:
        dispatcher.until(other.pending)
        other.take().answer()
    assert busy.pending() <= 3
    while len(other.taken) + busy.pending() < 18:
        dispatcher.until(other.pending)
        other.take().answer()
    for connection in working:
        connection.answer()
    while len(busy.taken) + len(other.taken) < len(clients):
        for worker in (busy, other):
            if worker.pending():
                worker.take().answer()
    assert set(answer_of(clients)) == {"0", "1"}
    assert len(busy.taken) <= 5


@pytest.mark.parametrize("policy", [Policy.STRICT, Policy.LEAST_CONNECTIONS])
def test_other_policies_fill_the_queues_of_those_who_said_it(dispatcher: Rig, policy: Policy):
    dispatcher.settings(policy, queue_limit=8)
    dispatcher.listen()
    workers = dispatcher.add(2, capacity=2)
    clients = dispatcher.connect_many(20)
    dispatcher.event(ControlKind.FULL)
    assert [worker.pending() for worker in workers] == [8, 8]
    while sum(len(worker.taken) for worker in workers) < len(clients):
        for worker in workers:
            if worker.pending():
                worker.take().answer()
    assert set(answer_of(clients)) == {"0", "1"}
