"""Stalled workers: passed over until they take, hung only if asked for; idle is never hung."""

from __future__ import annotations

from itertools import pairwise

import pytest

from rrdispatch._core.layout import (
    SWITCH_NO_PROBE,
    SWITCH_NO_TAKE_BACK,
    ControlKind,
    Field,
    State,
)

from .rig import MS, SECOND, Rig, answer_of
from .workers import Worker

STALL = 5 * MS


def stall(dispatcher: Rig, worker: Worker, other: Worker) -> None:
    """Let something wait in `worker` until it is stalled, and `other` get it."""
    dispatcher.event(ControlKind.STALLED, worker)
    other.take().answer()


@pytest.fixture
def two(dispatcher: Rig) -> tuple[Worker, Worker]:
    """A worker that is going to be stalled, and another one."""
    dispatcher.settings(stall=STALL)
    dispatcher.listen()
    one, other = dispatcher.add(2)
    dispatcher.connect()
    stall(dispatcher, one, other)
    return one, other


def test_a_stalled_worker_finds_a_probe_and_is_back_when_it_took_it(
    dispatcher: Rig, two: tuple[Worker, Worker]
):
    one, other = two
    dispatcher.until(lambda: one.pending() == 1, "a probe")
    assert dispatcher.stats(one)[:6] == (1, 0, 0, State.READY, 1, 1)
    assert one.board.load(Field.STALLED) == 1
    for _ in range(3):
        dispatcher.connect_fresh()
        other.take().close()
    with pytest.raises(BlockingIOError):
        # Taking swallows the probe.
        _take(one)
    lasted = dispatcher.event(ControlKind.RECOVERED, one).values[0]
    assert lasted > 0
    assert one.board.load(Field.STALLED) == 0
    dispatcher.settings()  # however late we take
    dispatcher.connect_fresh()
    dispatcher.connect_fresh()
    one.take().close()
    other.take().close()
    assert dispatcher.count(ControlKind.HUNG) == 0


def _take(worker: Worker) -> None:
    from rrdispatch import _core

    _core.take(worker.channels[0].receiver)


def test_hung_is_told_once_and_only_if_asked_for(dispatcher: Rig, two: tuple[Worker, Worker]):
    one, _ = two
    dispatcher.settings(stall=STALL, heartbeat=20 * MS)
    hung = dispatcher.event(ControlKind.HUNG, one)
    assert hung.worker == one.id
    began = dispatcher.ping().now
    dispatcher.until(lambda: dispatcher.ping().now - began > SECOND // 10)
    assert dispatcher.count(ControlKind.HUNG) == 0


def test_an_idle_worker_is_never_hung(dispatcher: Rig):
    dispatcher.settings(stall=STALL, heartbeat=MS)
    dispatcher.listen()
    dispatcher.add(2)
    began = dispatcher.ping().now
    dispatcher.until(lambda: dispatcher.ping().now - began > SECOND // 20)
    assert dispatcher.events == []


def test_a_worker_that_works_off_a_long_queue_is_not_hung(dispatcher: Rig):
    dispatcher.settings(heartbeat=SECOND)
    dispatcher.listen()
    (one,) = dispatcher.add(1)
    began = dispatcher.ping().now
    taken = [(began, began)]
    dispatcher.connect_many(8)
    dispatcher.accepted(8)
    for _ in range(8):
        began = dispatcher.ping().now
        dispatcher.until(lambda began=began: dispatcher.ping().now - began > SECOND // 5)
        before = dispatcher.ping().now
        one.take().close()
        taken.append((before, dispatcher.ping().now))
    assert taken[-1][1] - taken[0][0] > SECOND
    assert dispatcher.count(ControlKind.HUNG) == 0 or longest(taken) >= SECOND


def longest(times: list[tuple[int, int]]) -> int:
    """The longest pause there may have been, from before a take until after the next one: we may
    have got no core, and then it is hung.
    """
    return max(later - before for (before, _), (_, later) in pairwise(times))


def test_time_without_work_does_not_count(dispatcher: Rig):
    dispatcher.settings(stall=STALL, heartbeat=SECOND // 2)
    dispatcher.listen()
    (one,) = dispatcher.add(1)
    waits = []
    for _ in range(2):
        before = dispatcher.ping().now
        dispatcher.connect()
        # Several looks of the dispatcher with something waiting.
        began = dispatcher.ping().now
        dispatcher.until(lambda began=began: dispatcher.ping().now - began > 5 * STALL)
        one.take().close()
        began = dispatcher.ping().now
        waits.append(began - before)
        dispatcher.until(lambda began=began: dispatcher.ping().now - began > SECOND)
    assert dispatcher.count(ControlKind.HUNG) == 0 or max(waits) >= SECOND // 2


def test_a_single_worker_that_takes_nothing_is_hung(dispatcher: Rig):
    dispatcher.settings(stall=STALL, heartbeat=20 * MS)
    dispatcher.listen()
    (one,) = dispatcher.add(1)
    dispatcher.connect()
    dispatcher.event(ControlKind.HUNG, one)
    assert dispatcher.count(ControlKind.STALLED) == 0
    one.take().close()


def test_when_all_are_stalled_the_backlog_holds(dispatcher: Rig, two: tuple[Worker, Worker]):
    one, other = two
    dispatcher.until(lambda: one.pending() == 1, "a probe")
    (third,) = dispatcher.add(1)
    dispatcher.ask(ControlKind.WORKER_PARK, worker=third.id)
    # With one stalled and the third parked, the other one is not stalled: nobody is better.
    dispatcher.connect()
    dispatcher.until(lambda: other.pending() == 1)
    dispatcher.ready(third)
    dispatcher.event(ControlKind.STALLED, other)
    third.take().close()
    dispatcher.ask(ControlKind.WORKER_PARK, worker=third.id)
    dispatcher.connect()
    dispatcher.event(ControlKind.FULL)
    assert dispatcher.ping().accepted == 2
    with pytest.raises(BlockingIOError):
        _take(one)
    dispatcher.event(ControlKind.RECOVERED, one)
    one.take().close()


def test_a_dead_workers_probe_is_no_connection(dispatcher: Rig):
    dispatcher.settings(stall=STALL)
    dispatcher.listen()
    (one,) = dispatcher.add(1, process=True)
    (other,) = dispatcher.add(1)
    one.stop()
    dispatcher.connect()
    stall(dispatcher, one, other)
    dispatcher.until(lambda: one.pending() == 1, "a probe")
    one.kill()
    removed = dispatcher.ask(ControlKind.WORKER_REMOVE, worker=one.id)
    # Nothing was rescued at its death: what it had was moved before.
    assert removed.values[:3] == (0, 1, 0)
    assert other.pending() == 0


def test_draining_a_stalled_worker_does_not_wait_for_its_probe(
    dispatcher: Rig, two: tuple[Worker, Worker]
):
    one, _ = two
    dispatcher.until(lambda: one.pending() == 1, "a probe")
    dispatcher.ask(ControlKind.WORKER_DRAIN, worker=one.id)
    assert one.pending() == 0


def test_without_take_back_the_queue_stays(dispatcher: Rig):
    dispatcher.settings(stall=STALL, switches=SWITCH_NO_TAKE_BACK)
    dispatcher.listen()
    one, _ = dispatcher.add(2)
    dispatcher.connect()
    dispatcher.event(ControlKind.STALLED, one)
    assert dispatcher.ping().moved == 0
    assert one.pending() == 1
    one.take().close()
    dispatcher.event(ControlKind.RECOVERED, one)


def test_without_a_probe_it_is_back_as_soon_as_its_queue_is_moved(dispatcher: Rig):
    dispatcher.settings(stall=STALL, switches=SWITCH_NO_PROBE)
    dispatcher.listen()
    (one,) = dispatcher.add(1)
    dispatcher.add(1, process=True)
    client = dispatcher.connect()
    dispatcher.event(ControlKind.STALLED, one)
    dispatcher.event(ControlKind.RECOVERED, one)
    assert answer_of([client]) == ["1"]
    assert one.pending() == 0
