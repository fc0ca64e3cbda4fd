"""Whoever is named in advance is whom the policy would pick, one connection after another."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given
from hypothesis import strategies as st

from rrdispatch._core import pure
from rrdispatch._core.layout import Field, Policy, State
from rrdispatch.dispatch.lanes import Lane
from rrdispatch.dispatch.peers import Letter
from rrdispatch.dispatch.slots import Settings, Slots, Worker

from .rig import SECOND

NOW = 1000 * SECOND

# Of each worker: connections that wait, that it works on, its capacity, ns since it took something.
SEEN = st.tuples(
    st.integers(0, 4),
    st.integers(0, 6),
    st.sampled_from([0, 0, 0, 4, 20]),
    st.sampled_from([1, 10 * SECOND]),
)


def a_worker(slot: int, waits: int, inflight: int, capacity: int, since: int) -> Worker:
    fd = pure.scoreboard_create(slot, 0)
    board = pure.Scoreboard(fd, writable=True)
    sender, receiver = pure.channel_pair()
    worker = Worker(slot + 1, slot, 0, fd, os.dup(fd), board, {0: Lane(sender, receiver, 0)})
    for _ in range(waits):
        letter = Letter(2)
        letter.write(1, ("127.0.0.1", 80))
        worker.lanes[0].send_one(fd, 1, letter.parts)
    board.store(Field.RECEIVED, inflight)
    worker.seen, worker.given = inflight, inflight + waits
    worker.moved_ns = NOW - since
    worker.capacity = worker.candidate.capacity = capacity
    worker.state = State.READY
    return worker


@contextmanager
def some_slots(settings: Settings, seen: list[tuple[int, int, int, int]]) -> Iterator[Slots]:
    slots = Slots(settings)
    for slot, one in enumerate(seen):
        slots.workers[slot + 1] = a_worker(slot, *one)
    slots.rebuild()
    yield slots
    for worker in slots.workers.values():
        worker.close()


@given(
    policy=st.sampled_from(list(Policy)),
    limit=st.sampled_from([1, 4, 12, 69]),
    band=st.sampled_from([0, 8, 20]),
    turn=st.integers(0, 9),
    seen=st.lists(SEEN, min_size=1, max_size=10),
)
def test_the_turn_in_advance_is_what_the_policy_picks(policy, limit, band, turn, seen):
    settings = Settings(policy=policy, queue_limit=limit, stall_timeout=SECOND, band=band)
    with some_slots(settings, seen) as slots:
        slots.turn = turn % len(seen)
        slots.refresh(NOW)
        for worker in slots.in_turn(0):
            index = slots.next(0)
            assert index >= 0
            assert slots.ready[index] is worker
            slots.note_given(index)
            slots.turn = (index + 1) % len(seen)


def test_idle_workers_are_named_in_advance():
    with some_slots(Settings(), [(0, 0, 0, 1)] * 3) as slots:
        slots.turn = 2
        slots.refresh(NOW)
        assert [worker.slot for worker in slots.in_turn(0)[:4]] == [2, 0, 1, 2]
        assert slots.in_turn(1) == []


def test_nobody_is_named_where_one_takes_many_at_once():
    with some_slots(Settings(), [(0, 0, 0, 1)] * 2) as slots:
        slots.ready[1].batch = 2
        slots.rebuild()
        slots.refresh(NOW)
        assert slots.in_turn(0) == []


def test_a_worker_that_counts_nothing_is_asked_for_by_the_kernel():
    with some_slots(Settings(), [(3, 0, 0, 1)]) as slots:
        slots.refresh(NOW)
        worker = slots.ready[0]
        assert worker.candidate.pending == 3
        taken = pure.take(worker.lanes[0].receiver)
        assert taken is not None
        os.close(taken.fds[0])
        slots.refresh(NOW + SECOND)
        assert worker.candidate.pending == 2


def test_a_letter_tells_every_kind_of_peer():
    for family, address in ((2, ("10.1.2.3", 4660)), (10, ("fe80::1%lo", 4660, 5, 1)), (1, "/x")):
        letter = Letter(family)
        letter.write(7, address)
        assert letter.peer()[:2] == family.to_bytes(2, sys.byteorder)
    assert letter.peer()[2:] == b"/x"
