"""Whose turn it is, with real connections: the even split, the band, capacity, held connections."""

from __future__ import annotations

import socket
from collections import Counter

import pytest

from rrdispatch._core.layout import ControlKind, Field, Policy

from .rig import Rig, answer_of

POLICIES = [one for one in Policy if one != Policy.SOURCE_HASH]  # of that one client is one worker


def picks(rig: Rig) -> list[int]:
    return [rig.stats(worker).picks for worker in rig.workers]


@pytest.mark.parametrize("policy", POLICIES)
def test_sequential_connections_are_split_exactly(dispatcher: Rig, family: str, policy: Policy):
    dispatcher.settings(policy)
    dispatcher.listen(family)
    workers = dispatcher.add(4)
    for turn in range(400):
        with dispatcher.connect() as client:
            workers[turn % 4].take().answer()
            assert client.recv(9) == str(turn % 4).encode()
    assert picks(dispatcher) == [100] * 4
    assert dispatcher.ping()[1:6] == (400, 400, 0, 0, 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_real_workers_get_exactly_the_same_number(dispatcher: Rig, policy: Policy):
    dispatcher.settings(policy)
    dispatcher.listen()
    dispatcher.add(4, process=True)
    answers = Counter()
    for _ in range(100):
        with dispatcher.connect() as client:
            answers.update(answer_of([client]))
    assert answers == {"0": 25, "1": 25, "2": 25, "3": 25}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_burst_that_nobody_takes_is_split_exactly(dispatcher: Rig, policy: Policy):
    dispatcher.settings(policy)
    dispatcher.listen()
    workers = dispatcher.add(4)
    dispatcher.connect_many(40)
    dispatcher.accepted(40)
    assert [worker.pending() for worker in workers] == [10] * 4


@pytest.mark.parametrize("policy", POLICIES)
def test_a_worker_that_counts_nothing_gets_its_part(dispatcher: Rig, policy: Policy):
    dispatcher.settings(policy)
    dispatcher.listen()
    workers = dispatcher.add(3)
    for worker in workers:
        worker.counts = False
    for turn in range(60):
        with dispatcher.connect() as client:
            workers[turn % 3].take().answer()
            assert client.recv(9) == str(turn % 3).encode()
    dispatcher.connect_many(9)
    dispatcher.accepted(69)
    assert [dispatcher.stats(worker).pending for worker in workers] == [3, 3, 3]


@pytest.mark.parametrize(
    ("received", "closed"), [(1 << 63, 0), (0, 1 << 63), ((1 << 64) - 1, (1 << 64) - 1), (500, 7)]
)
def test_a_worker_that_counts_nonsense_harms_nobody(dispatcher: Rig, received: int, closed: int):
    dispatcher.listen()
    workers = dispatcher.add(2)
    workers[0].counts = False
    workers[0].board.store(Field.RECEIVED, received)
    workers[0].board.store(Field.CLOSED, closed)
    dispatcher.connect_many(20)
    dispatcher.accepted(20)
    assert sum(worker.pending() for worker in workers) == 20
    assert dispatcher.stats(workers[0]).pending == workers[0].pending()


def test_slots_are_in_order_whatever_the_order_of_their_arrival(dispatcher: Rig):
    dispatcher.listen()
    added = {}
    for slot in (2, 0, 3, 1):
        worker = added[slot] = dispatcher.new_worker(slot)
        dispatcher.hand_over(worker)
        dispatcher.ready(worker)
    got = []
    for _ in range(8):
        dispatcher.connect()
        dispatcher.accepted(len(got) + 1)
        (taker,) = [worker for worker in added.values() if worker.pending()]
        got.append(taker.slot)
        taker.take()
    first = got[0]
    assert got == [(first + step) % 4 for step in range(8)]


def test_strict_gives_the_next_however_long_the_queue(dispatcher: Rig):
    dispatcher.settings(Policy.STRICT)
    dispatcher.listen()
    one, two = dispatcher.add(2)
    for turn in range(20):
        dispatcher.connect()
        dispatcher.accepted(turn + 1)
        if two.pending():
            two.take()
    assert picks(dispatcher) == [10, 10]
    assert one.pending() == 10


def test_round_robin_gives_to_whoever_has_an_empty_queue_when_all_are_full(dispatcher: Rig):
    dispatcher.listen()
    one, two = dispatcher.add(2, capacity=1)
    dispatcher.connect()
    dispatcher.accepted(1)
    for turn in range(7):
        dispatcher.connect()
        two.take()
        dispatcher.accepted(turn + 2)
    assert one.pending() == 1
    assert picks(dispatcher) == [1, 7]


def test_least_connections_counts_what_is_open(dispatcher: Rig):
    dispatcher.settings(Policy.LEAST_CONNECTIONS)
    dispatcher.listen()
    workers = dispatcher.add(3)
    for worker in workers[:2]:
        dispatcher.connect_fresh()
        worker.take()
    for _ in range(5):
        dispatcher.connect_fresh().close()
        workers[2].take().close()
    dispatcher.connect_fresh()
    workers[2].take()
    dispatcher.connect_fresh()
    # All hold one: again in turn.
    dispatcher.accepted(9)
    assert [worker.pending() for worker in workers] == [1, 0, 0]


def test_the_band_evens_out_open_connections(dispatcher: Rig):
    dispatcher.settings(band=2)
    dispatcher.listen()
    one, two = dispatcher.add(2)
    held = []
    for _ in range(5):
        dispatcher.connect_fresh()
        held.append(one.take())
        dispatcher.connect_fresh().close()
        two.take().close()
        if len(held) == 3:
            break
    # One holds 3, two holds none: one is above the band of 2 until it holds fewer.
    for _ in range(4):
        dispatcher.connect_fresh().close()
        two.take().close()
    held[0].close()
    dispatcher.connect_fresh().close()
    dispatcher.connect_fresh().close()
    one.take().close()
    two.take().close()


def test_capacity_passes_over_whoever_is_full(dispatcher: Rig):
    dispatcher.listen()
    one, two = dispatcher.add(2, capacity=1)
    dispatcher.connect_fresh()
    held = one.take()
    dispatcher.connect_fresh().close()
    two.take().close()
    dispatcher.connect_fresh().close()
    two.take().close()
    dispatcher.connect_fresh()
    two.take()
    # Both are full now and were given something just now: in turn, as in Node.
    dispatcher.connect_fresh()
    one.take().close()
    held.close()


def test_what_the_peer_is_travels_along(dispatcher: Rig, family: str):
    dispatcher.listen(family)
    (worker,) = dispatcher.add(1)
    before = dispatcher.ping().now
    client = dispatcher.connect()
    connection = worker.take()
    assert before < connection.taken.accepted_ns <= dispatcher.ping().now
    peer = connection.taken.peer
    assert int.from_bytes(peer[:2], "little") == client.family
    if client.family != socket.AF_UNIX:
        host, port = client.getsockname()[:2]
        assert int.from_bytes(peer[2:4], "big") == port
        packed = socket.inet_pton(client.family, host)
        assert packed in peer
        assert len(peer) == (16 if client.family == socket.AF_INET else 28)
    assert connection.sock.getblocking()


def test_a_batch_worker_gets_several_in_one_message(dispatcher: Rig):
    dispatcher.listen()
    (worker,) = dispatcher.add(1, batch=4)
    dispatcher.ask(ControlKind.WORKER_PARK, worker=worker.id)
    clients = dispatcher.connect_many(10)
    dispatcher.event(ControlKind.FULL)
    dispatcher.ready(worker, batch=4)
    dispatcher.accepted(10)
    sizes = []
    connections = []
    while len(connections) < 10:
        message = worker.take_all()
        sizes.append(len(message))
        connections += message
    assert max(sizes) == 4
    for number, connection in enumerate(connections):
        connection.answer(b"%d" % number)
    assert sorted(answer_of(clients), key=int) == [str(number) for number in range(10)]


def test_a_batch_counts_connections_not_messages(dispatcher: Rig):
    dispatcher.settings(queue_limit=6)
    dispatcher.listen()
    (worker,) = dispatcher.add(1, batch=4)
    worker.counts = False
    dispatcher.connect_many(10)
    dispatcher.event(ControlKind.FULL)
    assert dispatcher.ping().accepted == 6
    assert dispatcher.stats(worker).pending == 6


def test_two_listeners_have_channels_of_their_own(dispatcher: Rig):
    dispatcher.listen("inet")
    dispatcher.listen("inet6")
    workers = dispatcher.add(2)
    for turn in range(20):
        client = dispatcher.connect(turn % 2)
        connection = workers[turn % 2].take(turn % 2)
        assert connection.sock.family == client.family
        connection.close()
    assert picks(dispatcher) == [10, 10]
