"""What a worker has not taken is not lost: when it is dead, stopped or draining, others answer."""

from __future__ import annotations

from collections import Counter

import pytest

from rrdispatch._core.layout import FLAG_MOVED, ControlKind, Policy

from .rig import MS, NEVER, SECOND, Rig, answer_of

STALL = 20 * MS


@pytest.mark.parametrize("policy", list(Policy))
def test_a_dead_workers_queue_is_answered_by_others(dispatcher: Rig, policy: Policy):
    dispatcher.settings(policy)
    dispatcher.listen()
    (dead,) = dispatcher.add(1, process=True)
    dead.stop()
    clients = dispatcher.connect_many(30)
    dispatcher.accepted(30)
    assert dead.pending() == 30
    dispatcher.add(2, process=True)
    dead.kill()
    dispatcher.event(ControlKind.DEAD, dead)
    answers = set(answer_of(clients))
    assert answers <= {"1", "2"}
    assert len(answers) == (1 if policy == Policy.SOURCE_HASH else 2)  # all are of one client
    removed = dispatcher.ask(ControlKind.WORKER_REMOVE, worker=dead.id)
    assert removed.values[:3] == (30, 30, 0)
    ping = dispatcher.ping()
    assert (ping.accepted, ping.moved, ping.lost, ping.workers) == (30, 30, 0, 2)


def test_who_waited_for_a_dead_worker_goes_before_those_who_come_now(dispatcher: Rig):
    dispatcher.settings(queue_limit=20)
    dispatcher.listen()
    (dead,) = dispatcher.add(1, process=True)
    dead.stop()
    dispatcher.connect_many(20)
    dispatcher.accepted(20)
    dispatcher.connect_many(20)  # nobody has room: they are in the backlog
    dead.kill()
    dispatcher.event(ControlKind.DEAD, dead)
    dispatcher.ping()
    (other,) = dispatcher.add(1)
    flags = []
    for _ in range(40):
        dispatcher.until(other.pending)  # each question is a round in which it could accept
        flags.append(other.take().taken.flags)
    assert sorted(flags, reverse=True) == [FLAG_MOVED] * 20 + [0] * 20
    # Nobody waits for a helper that got no core for 20 ms.
    assert flags == sorted(flags, reverse=True) or dispatcher.ping().abandoned


def test_a_moved_connection_says_so_and_keeps_its_time_and_peer(dispatcher: Rig):
    dispatcher.listen()
    (dead,) = dispatcher.add(1, process=True)
    dead.stop()
    client = dispatcher.connect()
    dispatcher.accepted(1)
    now = dispatcher.ping().now
    (other,) = dispatcher.add(1)
    dead.kill()
    connection = other.take()
    assert connection.taken.flags == FLAG_MOVED
    assert connection.taken.accepted_ns < now
    port = client.getsockname()[1]
    assert connection.taken.peer[2:4] == port.to_bytes(2, "big")


def test_what_nobody_has_room_for_waits_in_the_dead_workers_channel(dispatcher: Rig):
    dispatcher.settings(queue_limit=4)
    dispatcher.listen()
    (dead,) = dispatcher.add(1, process=True)
    dead.stop()
    clients = dispatcher.connect_many(4)
    dispatcher.accepted(4)
    dead.kill()
    dispatcher.event(ControlKind.DEAD, dead)
    dispatcher.ping()
    assert dead.pending() == 4
    removal = dispatcher.request(ControlKind.WORKER_REMOVE, worker=dead.id)
    assert not dispatcher.answered(removal)
    dispatcher.settings(queue_limit=1)
    (other,) = dispatcher.add(1)
    for left in (3, 2, 1, 0):
        dispatcher.until(lambda: other.pending() == 1)
        dispatcher.ping()
        assert dead.pending() == left
        other.take().answer(b"other")
    assert answer_of(clients) == ["other"] * 4
    assert dispatcher.answer(removal).values[0] == 4


def test_a_stopped_worker_is_passed_over_and_its_queue_moved(dispatcher: Rig):
    dispatcher.settings(stall=STALL)
    dispatcher.listen()
    stopped, _ = dispatcher.add(2, process=True)
    stopped.stop()
    clients = dispatcher.connect_many(20)
    event = dispatcher.event(ControlKind.STALLED, stopped)
    assert event.values[0] > STALL
    assert answer_of(clients) == ["1"] * 20
    more = [dispatcher.connect_fresh() for _ in range(20)]
    assert answer_of(more) == ["1"] * 20
    assert dispatcher.stats(stopped).stalled == 1
    stopped.go_on()
    recovered = dispatcher.event(ControlKind.RECOVERED, stopped)
    assert recovered.values[0] > 0
    dispatcher.settings()  # however late a worker takes
    after = Counter(answer_of([dispatcher.connect_fresh()])[0] for _ in range(20))
    assert after == {"0": 10, "1": 10}


def test_who_takes_nothing_while_the_others_are_busy_is_moved_away_from_too(dispatcher: Rig):
    """No queue is ever empty then; what waits for one that is stopped must not wait for ever."""
    dispatcher.settings(queue_limit=4)  # until both queues are full, however late we connect
    dispatcher.listen()
    stuck, busy = dispatcher.add(2)
    clients = dispatcher.connect_many(8)
    dispatcher.accepted(8)
    assert (stuck.pending(), busy.pending()) == (4, 4)
    dispatcher.settings(stall=5 * MS, queue_limit=4)
    began = dispatcher.ping().now
    dispatcher.until(lambda: dispatcher.ping().now - began > 300 * MS)
    assert dispatcher.count(ControlKind.STALLED) == 0, "nobody took anything: nobody is to blame"
    while not dispatcher.count(ControlKind.STALLED):
        busy.take().answer()
        clients.append(dispatcher.connect())
        dispatcher.until(lambda: busy.pending() == 4)
        # Who got no core for a second begins to measure anew: not too many in that time.
        before = dispatcher.ping().now
        dispatcher.until(lambda before=before: dispatcher.ping().now - before > MS)
        assert len(clients) < 500
    assert len(clients) >= 8 + 8, "one that took is to take several before others are judged"
    assert dispatcher.event(ControlKind.STALLED).worker == stuck.id
    for _ in clients[len(busy.taken) :]:
        busy.take().answer()
    assert answer_of(clients) == ["1"] * len(clients)
    assert dispatcher.stats(stuck).moved_away == 4


def test_a_worker_that_goes_on_in_the_middle_answers_exactly_once(dispatcher: Rig):
    """Dispatcher and worker take from the same queue at the same time."""
    dispatcher.settings(stall=STALL, queue_limit=69)
    dispatcher.listen()
    stopped, _ = dispatcher.add(2, process=True)
    for _ in range(5):
        stopped.stop()
        clients = dispatcher.connect_many(100)
        dispatcher.event(ControlKind.STALLED, stopped)
        stopped.go_on()
        assert set(answer_of(clients)) <= {"0", "1"}
        dispatcher.event(ControlKind.RECOVERED, stopped)
    ping = dispatcher.ping()
    assert (ping.accepted, ping.lost) == (500, 0)


def test_three_of_four_stopped_then_killed(dispatcher: Rig):
    dispatcher.settings(stall=STALL)
    dispatcher.listen()
    workers = dispatcher.add(4, process=True)
    for worker in workers[:3]:
        worker.stop()
    clients = dispatcher.connect_many(100)
    for worker in workers[:3]:
        worker.kill()
    assert answer_of(clients) == ["3"] * 100


def test_draining_moves_the_queue_and_is_answered(dispatcher: Rig):
    dispatcher.listen()
    draining, other = dispatcher.add(2)
    clients = dispatcher.connect_many(10)
    dispatcher.accepted(10)
    assert draining.pending() == 5
    answer = dispatcher.ask(ControlKind.WORKER_DRAIN, worker=draining.id)
    assert answer.values[0] == 5
    assert (draining.pending(), other.pending()) == (0, 10)
    for _ in range(10):
        other.take().answer()
    assert answer_of(clients) == ["1"] * 10


def test_draining_the_last_worker_waits_until_it_has_taken(dispatcher: Rig):
    dispatcher.listen()
    (worker,) = dispatcher.add(1)
    clients = dispatcher.connect_many(3)
    dispatcher.accepted(3)
    drain = dispatcher.request(ControlKind.WORKER_DRAIN, worker=worker.id)
    for _ in range(2):
        worker.take().answer()
        assert not dispatcher.answered(drain)
    worker.take().answer()
    assert dispatcher.answer(drain).values[0] == 0
    assert answer_of(clients) == ["0"] * 3


def test_when_all_drain_each_keeps_what_it_has(dispatcher: Rig):
    """A take-back that is under way when the last one drains goes back where it came from."""
    dispatcher.listen()
    for round_ in range(10):
        pair = dispatcher.add(2)
        clients = dispatcher.connect_many(20)
        dispatcher.accepted(20 * (round_ + 1))
        drains = [dispatcher.request(ControlKind.WORKER_DRAIN, worker=one.id) for one in pair]
        taken = 0
        while taken < 20:
            for connection in [one for worker in pair for one in worker.try_take()]:
                connection.answer(b"taken")
                taken += 1
        assert answer_of(clients) == ["taken"] * 20
        for drain in drains:
            assert dispatcher.answer(drain).result == 0
    assert dispatcher.ping().lost == 0


def test_a_draining_worker_that_dies_is_drained_by_the_others(dispatcher: Rig):
    dispatcher.listen()
    (dying,) = dispatcher.add(1, process=True)
    dying.stop()
    clients = dispatcher.connect_many(5)
    dispatcher.accepted(5)
    drain = dispatcher.request(ControlKind.WORKER_DRAIN, worker=dying.id)
    dying.kill()
    dispatcher.event(ControlKind.DEAD, dying)
    assert not dispatcher.answered(drain)
    dispatcher.add(1, process=True)
    assert dispatcher.answer(drain).result == 0
    assert answer_of(clients) == ["1"] * 5


def test_a_parked_worker_gets_nothing_new_and_takes_what_it_has(dispatcher: Rig):
    dispatcher.listen()
    parked, other = dispatcher.add(2)
    clients = dispatcher.connect_many(4)
    dispatcher.accepted(4)
    dispatcher.ask(ControlKind.WORKER_PARK, worker=parked.id)
    clients += dispatcher.connect_many(6)
    dispatcher.accepted(10)
    assert (parked.pending(), other.pending()) == (2, 8)
    dispatcher.ready(parked)
    clients += dispatcher.connect_many(2)
    for worker, count in ((parked, 3), (other, 9)):
        for _ in range(count):
            worker.take().answer()
    assert Counter(answer_of(clients)) == {"0": 3, "1": 9}


def test_a_parked_worker_that_blocks_keeps_nothing(dispatcher: Rig):
    dispatcher.settings(stall=STALL)
    dispatcher.listen()
    (parked,) = dispatcher.add(1)
    dispatcher.connect_many(3)
    dispatcher.accepted(3)
    dispatcher.ask(ControlKind.WORKER_PARK, worker=parked.id)
    (other,) = dispatcher.add(1)
    dispatcher.event(ControlKind.STALLED, parked)
    for _ in range(3):
        other.take()


def test_a_batch_message_is_moved_one_by_one(dispatcher: Rig):
    dispatcher.listen()
    (batch,) = dispatcher.add(1, batch=8)
    dispatcher.ask(ControlKind.WORKER_PARK, worker=batch.id)
    clients = dispatcher.connect_many(8)
    dispatcher.event(ControlKind.FULL)
    dispatcher.ready(batch, batch=8)
    dispatcher.accepted(8)
    (other,) = dispatcher.add(1)
    assert dispatcher.ask(ControlKind.WORKER_DRAIN, worker=batch.id).values[0] == 8
    for _ in range(8):
        other.take().answer()
    assert answer_of(clients) == ["1"] * 8


def test_strict_does_not_count_moves(dispatcher: Rig):
    dispatcher.settings(Policy.STRICT)
    dispatcher.listen()
    one, two, three = dispatcher.add(3)
    dispatcher.connect_many(9)
    dispatcher.accepted(9)
    picks = [dispatcher.stats(worker).picks for worker in (one, two, three)]
    dispatcher.ask(ControlKind.WORKER_DRAIN, worker=one.id)
    assert picks == [3, 3, 3]
    assert [dispatcher.stats(worker).picks for worker in (two, three)] == [3, 3]
    assert two.pending() + three.pending() == 9
    dispatcher.connect_many(4)
    dispatcher.accepted(13)
    assert [dispatcher.stats(worker).picks for worker in (two, three)] == [5, 5]


def test_reclaimers_are_gone_when_all_is_moved(dispatcher: Rig):
    dispatcher.settings(stall=STALL, heartbeat=NEVER)
    dispatcher.listen()
    (dead,) = dispatcher.add(1, process=True)
    dead.stop()
    dispatcher.connect_many(10)
    dispatcher.accepted(10)
    dispatcher.add(1)
    dead.kill()
    dispatcher.ask(ControlKind.WORKER_REMOVE, worker=dead.id)
    dispatcher.until(lambda: not children(dispatcher.dispatcher.pid), "no reclaimer")
    assert dispatcher.ping().lost == 0


def children(pid: int) -> str:
    from pathlib import Path

    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_nobody_is_stalled_while_everybody_is_busy(dispatcher: Rig):
    dispatcher.settings(stall=60 * SECOND)  # until both are busy
    dispatcher.listen()
    one, two = dispatcher.add(2)
    dispatcher.connect_many(4)
    dispatcher.accepted(4)
    dispatcher.settings(stall=MS)
    began = dispatcher.ping().now
    dispatcher.until(lambda: dispatcher.ping().now - began > SECOND // 20)
    assert dispatcher.count(ControlKind.STALLED) == 0
    assert (one.pending(), two.pending()) == (2, 2)
