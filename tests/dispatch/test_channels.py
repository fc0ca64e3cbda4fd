"""Workers that have channels for some listeners only: what each gets, what waits, and for whom."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import Counter

import pytest

from rrdispatch._core.layout import ControlKind, Inherit, Policy, State
from rrdispatch.net.channels import Channel

from .heirs import House, identity
from .rig import MS, SECOND, Rig, answer_of
from .workers import LIMIT, Worker

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
    assert not dispatcher.answered(left)
    assert leaving.pending(0) == 3
    dispatcher.add_channel(other, 0)
    for _ in stays:
        other.take(0).answer()
    assert answer_of(stays) == ["1"] * 3
    answer = dispatcher.answer(left)
    assert (answer.result, answer.values[0]) == (0, 7)
    assert dispatcher.ping().lost == 0


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
