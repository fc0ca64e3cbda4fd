"""Workers that have channels for some listeners only, or get them late: what each of them gets."""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter

import pytest

from rrdispatch._core.layout import ControlKind, Inherit, Policy, State
from rrdispatch.net.channels import Channel

from .heirs import House, identity
from .rig import SECOND, Rig, answer_of
from .workers import Worker

K = ControlKind


def two_listeners(rig: Rig) -> None:
    rig.listen()
    rig.listen()


def one_by_one(rig: Rig, count: int, listener: int) -> list[socket.socket]:
    """Each is accepted before the next comes: what they get shows the turn."""
    clients = []
    for _ in range(count):
        before = rig.ping().accepted
        clients.append(rig.connect(listener))
        rig.accepted(before + 1)
    return clients


def picks(rig: Rig, workers: list[Worker]) -> list[int]:
    return [rig.stats(worker).picks for worker in workers]


# ---- CHANNEL_ADD ---------------------------------------------------------------------------------


def test_a_channel_that_comes_late_is_served(dispatcher: Rig):
    """The listener, too, comes to a dispatcher that runs."""
    (worker,) = dispatcher.add(1)
    assert worker.channels == {}
    dispatcher.listen()
    clients = dispatcher.connect_many(3)
    assert dispatcher.count(K.FULL) == 0
    assert dispatcher.ping().accepted == 0
    dispatcher.add_channel(worker, 0)
    for _ in clients:
        worker.take().answer()
    assert answer_of(clients) == ["0"] * 3
    assert dispatcher.stats(worker)[:3] == (3, 0, 0)


def test_what_is_refused(dispatcher: Rig):
    two_listeners(dispatcher)
    starting = dispatcher.new_worker(listeners=[])
    dispatcher.hand_over(starting)
    parked, draining = dispatcher.add(2, listeners=[0])
    dead = dispatcher.new_worker(listeners=[0])
    dead.start()
    dispatcher.hand_over(dead)
    dead.kill()
    dispatcher.event(K.DEAD, dead)
    dispatcher.ask(K.WORKER_PARK, worker=parked.id)
    dispatcher.ask(K.WORKER_DRAIN, worker=draining.id)
    held = dispatcher.fds()
    channel = Channel.create()
    ends = [channel.sender, channel.receiver]
    reading, writing = os.pipe()

    def refused(worker: Worker | int, listener: int, fds: list[int] = ends) -> int:
        number = worker if isinstance(worker, int) else worker.id
        return dispatcher.refused(K.CHANNEL_ADD, worker=number, listener=listener, fds=fds)

    assert refused(99, 0) == errno.ESRCH
    assert refused(0, 0) == errno.ESRCH
    assert refused(parked, 2) == errno.ENOENT
    assert refused(parked, 1 << 31) == errno.ENOENT
    assert refused(parked, 0) == errno.EEXIST
    for wrong in ([], ends[:1], [*ends, reading], [reading, writing]):
        assert refused(parked, 1, wrong) == errno.EPROTO
    assert refused(dead, 1) == errno.EINVAL
    assert refused(draining, 1) == errno.EINVAL
    dispatcher.ask(K.LISTENER_CLOSE, listener=1, values=(0, SECOND))
    assert refused(parked, 1) == errno.ENOENT
    assert len(dispatcher.fds()) == len(held) - 1
    for worker in (starting, parked):
        if 0 not in worker.channels:
            dispatcher.add_channel(worker, 0)
    assert refused(starting, 0) == errno.EEXIST
    channel.close()
    os.close(reading)
    os.close(writing)


def test_what_waits_in_a_channel_that_is_added_counts(dispatcher: Rig):
    """As with WORKER_ADD: an older dispatcher has sent it."""
    two_listeners(dispatcher)
    (worker,) = dispatcher.add(1, listeners=[0])
    (old,) = dispatcher.add(1, listeners=[1])
    client = dispatcher.connect(1)
    dispatcher.accepted(1)
    channel = old.channels[1]
    fds = [channel.sender, channel.receiver]
    dispatcher.ask(K.CHANNEL_ADD, worker=worker.id, listener=1, fds=fds)
    assert dispatcher.stats(worker)[:2] == (1, 1)
    worker.channels[1] = old.channels.pop(1)
    worker.take(1).answer()
    assert dispatcher.stats(worker)[:3] == (1, 0, 0)
    assert answer_of([client]) == ["0"]


# ---- whose turn it is ----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Policy.ROUND_ROBIN, Policy.STRICT])
def test_each_listener_goes_in_turn_among_those_who_have_a_channel(dispatcher: Rig, policy: Policy):
    """Nobody's share of one changes by what others have of another."""
    dispatcher.settings(policy)
    two_listeners(dispatcher)
    everything = dispatcher.add(2)
    first_only = dispatcher.add(2, listeners=[0])
    second_only = dispatcher.add(1, listeners=[1])
    workers = [*everything, *first_only, *second_only]
    for _ in range(12):
        one_by_one(dispatcher, 1, 0)
        one_by_one(dispatcher, 1, 1)
        one_by_one(dispatcher, 1, 0)
    assert [worker.pending(0) for worker in workers if 0 in worker.channels] == [6, 6, 6, 6]
    assert [worker.pending(1) for worker in workers if 1 in worker.channels] == [4, 4, 4]
    assert picks(dispatcher, workers) == [10, 10, 6, 6, 4]


def test_a_listener_that_all_have_is_not_touched_by_one_that_few_have(dispatcher: Rig):
    two_listeners(dispatcher)
    workers = dispatcher.add(3, listeners=[0])
    dispatcher.add_channel(workers[1], 1)
    order = []
    for _ in range(6):
        one_by_one(dispatcher, 1, 0)
        order.append([worker.pending(0) for worker in workers])
        one_by_one(dispatcher, 1, 1)
    assert order == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 1], [2, 2, 1], [2, 2, 2]]
    assert workers[1].pending(1) == 6


def test_the_fewest_connections_among_those_who_have_a_channel(dispatcher: Rig):
    dispatcher.settings(Policy.LEAST_CONNECTIONS)
    two_listeners(dispatcher)
    busy, idle = dispatcher.add(2, listeners=[0, 1])
    (other,) = dispatcher.add(1, listeners=[0])
    dispatcher.ask(K.WORKER_PARK, worker=idle.id)
    dispatcher.ask(K.WORKER_PARK, worker=other.id)
    one_by_one(dispatcher, 4, 0)
    dispatcher.ready(idle)
    dispatcher.ready(other)
    one_by_one(dispatcher, 3, 1)
    assert (busy.pending(1), idle.pending(1)) == (0, 3)


def test_the_turn_goes_on_over_a_change_of_workers(dispatcher: Rig):
    """Two generations of a slot are both in the turn; when one leaves the next one is it."""
    two_listeners(dispatcher)
    dispatcher.add(1, listeners=[0])
    one, two, three = dispatcher.add(3, listeners=[1])
    second = dispatcher.new_worker(two.slot, 2, listeners=[1])
    dispatcher.hand_over(second)
    dispatcher.ready(second)
    one_by_one(dispatcher, 6, 1)
    assert [worker.pending(1) for worker in (one, two, second, three)] == [2, 2, 1, 1]
    dispatcher.ask(K.WORKER_PARK, worker=two.id)
    one_by_one(dispatcher, 1, 1)
    assert [worker.pending(1) for worker in (one, second, three)] == [2, 1, 2]


def test_dense_again(dispatcher: Rig):
    """When the last one has listened all go in one turn."""
    two_listeners(dispatcher)
    workers = dispatcher.add(3, listeners=[0])
    for worker in workers:
        dispatcher.add_channel(worker, 1)
    one_by_one(dispatcher, 3, 0)
    one_by_one(dispatcher, 3, 1)
    assert [worker.pending(lane) for lane in (0, 1) for worker in workers] == [1] * 6


def test_batches_go_to_those_who_have_a_channel(dispatcher: Rig):
    two_listeners(dispatcher)
    full, empty = dispatcher.new_worker(listeners=[1]), dispatcher.new_worker(listeners=[0])
    for worker in (full, empty):
        dispatcher.hand_over(worker)
    clients = dispatcher.connect_many(16, 1)
    for worker in (full, empty):
        dispatcher.ready(worker, batch=8)
    dispatcher.accepted(16)
    assert (full.pending(1), empty.pending(0)) == (2, 0)
    for _ in range(2):
        for connection in full.take_all(1):
            connection.answer()
    assert answer_of(clients) == ["0"] * 16


# ---- inherited and handed over -------------------------------------------------------------------


def test_an_heir_is_told_which_channels_a_worker_has(house: House):
    rig = house.rig
    for _ in range(3):
        rig.listen()
    none, some = rig.add(1, listeners=[])[0], rig.add(1, listeners=[2])[0]
    (every,) = rig.add(1)
    rig.add_channel(some, 0)
    house.expect()
    house.die()
    house.succeed()
    for worker, mask in ((none, 0), (some, 0b101), (every, 0b111)):
        answer, fds = house.inherit(Inherit.WORKER, worker=worker)
        assert (answer.result, answer.values[3], answer.values[8]) == (0, State.READY, mask)
        assert [identity(fd) for fd in fds] == [identity(fd) for fd in worker.fds()]
        assert len(fds) == 3 + 2 * mask.bit_count()


def test_another_dispatcher_goes_on_with_the_same_channels(dispatcher: Rig):
    for _ in range(3):
        dispatcher.listen()
    worker, other = dispatcher.add(1, listeners=[0, 2])[0], dispatcher.add(1, listeners=[1])[0]
    clients = [dispatcher.connect(i) for i in (0, 2, 1)]
    dispatcher.accepted(3)
    dispatcher.kill_dispatcher()
    dispatcher.replace()
    assert (dispatcher.stats(worker).pending, dispatcher.stats(other).pending) == (2, 1)
    clients += [dispatcher.connect(i) for i in (0, 2, 1)]
    dispatcher.accepted(3)
    for lane in (0, 2, 0, 2):
        worker.take(lane).answer()
    for _ in range(2):
        other.take(1).answer()
    assert Counter(answer_of(clients)) == {"0": 4, "1": 2}


def test_a_mask_that_does_not_fit_the_channels_is_refused(dispatcher: Rig):
    two_listeners(dispatcher)
    worker = dispatcher.new_worker()
    held = dispatcher.fds()
    for mask, error in (
        (0b1, errno.EPROTO), (0b111, errno.EPROTO), (1 << 16 | 1, errno.EINVAL),
        (1 << 63, errno.EINVAL),
    ):  # fmt: skip
        values = (worker.slot, worker.generation, mask)
        fds = worker.fds()
        assert dispatcher.refused(K.WORKER_ADD, worker=worker.id, values=values, fds=fds) == error
    assert dispatcher.fds() == held
    dispatcher.hand_over(worker)
