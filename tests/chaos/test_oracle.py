"""The oracle sees what it is there to see: hand-made ledgers of every sort."""

from __future__ import annotations

import pytest

from rrdispatch._core.layout import LedgerEvent as Event
from rrdispatch._core.layout import LedgerRole as Role
from rrdispatch.ledger import Book, Entry
from tests.chaos.kit import Result
from tests.chaos.oracle import ONCE, QUEUED, RESCUED, WHOLE, Verdict, judge
from tests.harness.records import OK, Record

DISPATCHER, SECOND_DISPATCHER, RECLAIMER = 100, 101, 150
ONE, TWO = 201, 202  # pids of workers 1 and 2


class Script:
    """A ledger written by hand: one dispatcher, workers 1 and 2 in slots 0 and 1."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.dropped = 0
        self.dispatcher = DISPATCHER
        self.note(Event.OPENED, DISPATCHER, detail=Role.DISPATCHER)
        self.join(1)
        self.join(2)

    def note(
        self, event: Event, pid: int, cookie: int = 0, *, worker: int = 0, detail: int = 0
    ) -> Script:
        place = worker or {ONE: 1, TWO: 2}.get(pid, 0)
        generation, slot = (1, place - 1) if place else (0, 0)
        now = len(self.entries) + 1
        self.entries.append(Entry(cookie, now, worker, pid, generation, slot, detail, event))
        return self

    def join(self, worker: int) -> Script:
        return self.note(Event.JOINED, self.dispatcher, 200 + worker, worker=worker)

    def accept(self, cookie: int, port: int = 0) -> Script:
        return self.note(Event.ACCEPTED, self.dispatcher, cookie, detail=port)

    def send(self, cookie: int, worker: int) -> Script:
        return self.note(Event.SENT, self.dispatcher, cookie, worker=worker)

    def give(self, cookie: int, worker: int) -> Script:
        return self.accept(cookie).send(cookie, worker)

    def move(self, cookie: int, worker: int) -> Script:
        return self.note(Event.MOVED, RECLAIMER, cookie, worker=worker, detail=1)

    def take(self, cookie: int, pid: int) -> Script:
        self.note(Event.TAKING, pid, detail=1)
        return self.note(Event.TAKEN, pid, cookie, detail=1)

    def serve(self, cookie: int, pid: int) -> Script:
        self.take(cookie, pid).note(Event.FIRST, pid, cookie)
        return self.note(Event.DONE, pid, cookie)

    def die(self, worker: int) -> Script:
        return self.note(Event.DEAD, self.dispatcher, worker=worker)

    def replace_dispatcher(self) -> Script:
        self.dispatcher = SECOND_DISPATCHER
        self.note(Event.OPENED, SECOND_DISPATCHER, detail=Role.DISPATCHER)
        return self.join(1).join(2)

    def judge(self, *, ended: bool = True) -> Verdict:
        return judge(Book(self.entries, self.dropped), ended=ended)


@pytest.fixture
def script() -> Script:
    return Script()


def classes(verdict: Verdict) -> dict[str, int]:
    quiet = ("dropped", "unsaid")
    return {name: n for name, n in verdict.counts.items() if n and name not in quiet}


# ---- good ones ----------------------------------------------------------------------------------


def test_served(script: Script) -> None:
    verdict = script.give(7, 1).serve(7, ONE).judge()
    assert classes(verdict) == {"served": 1}
    assert not verdict.violations
    assert str(verdict) == "1 accepted, 1 served"


def test_closed_without_an_answer(script: Script) -> None:
    verdict = script.give(7, 1).take(7, ONE).note(Event.DONE, ONE, 7).judge()
    assert classes(verdict) == {"closed unanswered": 1}
    assert verdict.done == 1


def test_moved_and_put_back(script: Script) -> None:
    script.give(7, 1).move(7, 1).send(7, 2).serve(7, TWO)
    script.give(8, 1).move(8, 1).send(8, 1).serve(8, ONE)
    verdict = script.judge()
    assert classes(verdict) == {"served": 2, "moved": 1, "put back": 1}
    assert not verdict.violations


def test_a_full_channel_is_no_move(script: Script) -> None:
    script.give(7, 1).move(7, 1).send(7, 2)
    script.note(Event.UNSENT, DISPATCHER, 7, worker=2).send(7, 1).serve(7, ONE)
    verdict = script.judge()
    assert classes(verdict) == {"served": 1, "put back": 1, "tried again": 1}
    assert not verdict.violations


def test_while_the_service_lives_nothing_is_lost_yet(script: Script) -> None:
    script.accept(6).give(7, 1).give(8, 1).take(8, ONE).give(9, 2).die(2)
    verdict = script.judge(ended=False)
    assert classes(verdict) == {"in the dispatcher": 1, "waiting": 2, "open": 1}


def test_a_batch(script: Script) -> None:
    script.accept(7).accept(8).send(7, 1).send(8, 1).note(Event.TAKING, ONE, detail=2)
    script.note(Event.TAKEN, ONE, 7).note(Event.TAKEN, ONE, 8, detail=1)
    script.note(Event.DONE, ONE, 7).note(Event.DONE, ONE, 8)
    assert classes(script.judge()) == {"closed unanswered": 2}


# ---- what was lost ------------------------------------------------------------------------------


def test_in_hand(script: Script) -> None:
    script.give(7, 1).take(7, ONE).give(8, 1).take(8, ONE).note(Event.FIRST, ONE, 8).die(1)
    verdict = script.judge(ended=False)
    assert classes(verdict) == {"lost in hand": 2, "of them begun": 1}
    assert verdict.in_hand == 2
    assert {life.cookie for life in verdict.lost("lost in hand")} == {7, 8}


def test_queued(script: Script) -> None:
    verdict = script.give(7, 1).die(1).judge()
    assert verdict.lost_queued == 1
    assert not verdict.violations


def test_queued_at_a_worker_that_lived(script: Script) -> None:
    assert script.give(7, 1).judge().lost_queued == 1


def test_inside_recvmsg(script: Script) -> None:
    """One was being received when it died: not more than that one is forgiven."""
    script.give(7, 1).give(8, 1).note(Event.TAKING, ONE, detail=1).die(1)
    verdict = script.judge()
    assert classes(verdict) == {"lost in the take": 1, "lost queued": 1}
    assert [life.cookie for life in verdict.lost("lost in the take")] == [7]
    assert verdict.in_hand == 1


def test_a_take_that_was_over_forgives_nothing(script: Script) -> None:
    script.give(7, 1).note(Event.TAKING, ONE, detail=1).note(Event.TOOK_NOTHING, ONE).die(1)
    assert script.judge().lost_queued == 1


def test_a_reclaimers_take_forgives_nothing(script: Script) -> None:
    script.give(7, 1).die(1).note(Event.TAKING, RECLAIMER, worker=1, detail=1)
    assert script.judge().lost_queued == 1


def test_in_the_dispatcher(script: Script) -> None:
    script.accept(7).give(8, 1).move(8, 1).replace_dispatcher()
    verdict = script.judge(ended=False)
    assert classes(verdict) == {"lost in the dispatcher": 2}


def test_between_noting_and_sending(script: Script) -> None:
    """Its last message may not have been sent; the one before it was."""
    script.give(7, 1).give(8, 1).replace_dispatcher()
    verdict = script.judge()
    assert classes(verdict) == {"lost queued": 1, "lost in the dispatcher": 1}
    assert [life.cookie for life in verdict.lost("lost queued")] == [7]


# ---- violations ---------------------------------------------------------------------------------


def accepted_twice(it: Script) -> Script:
    return it.accept(7).accept(7)


def sent_twice(it: Script) -> Script:
    return it.give(7, 1).send(7, 2)


def sent_after_it_was_taken(it: Script) -> Script:
    return it.give(7, 1).take(7, ONE).send(7, 2)


def taken_by_two(it: Script) -> Script:
    return it.give(7, 1).serve(7, ONE).take(7, TWO)


def taken_by_another(it: Script) -> Script:
    return it.give(7, 1).take(7, TWO)


def taken_by_another_process_of_its_slot(it: Script) -> Script:
    it.give(7, 1)
    it.entries.append(Entry(7, 99, 0, ONE + 50, 1, 0, 1, Event.TAKEN))
    return it


def taken_unsent(it: Script) -> Script:
    return it.accept(7).take(7, ONE)


def taken_after_it_was_moved(it: Script) -> Script:
    return it.give(7, 1).move(7, 1).take(7, ONE)


def moved_after_it_was_taken(it: Script) -> Script:
    return it.give(7, 1).take(7, ONE).move(7, 1)


def moved_from_another(it: Script) -> Script:
    return it.give(7, 1).move(7, 2)


def unsent_when_it_was_not(it: Script) -> Script:
    return it.accept(7).note(Event.UNSENT, DISPATCHER, 7, worker=1)


def done_twice(it: Script) -> Script:
    return it.give(7, 1).serve(7, ONE).note(Event.DONE, ONE, 7)


def done_by_another(it: Script) -> Script:
    return it.give(7, 1).take(7, ONE).note(Event.DONE, TWO, 7)


def answered_by_another(it: Script) -> Script:
    return it.give(7, 1).take(7, ONE).note(Event.FIRST, TWO, 7)


def answered_twice(it: Script) -> Script:
    return it.give(7, 1).take(7, ONE).note(Event.FIRST, ONE, 7).note(Event.FIRST, ONE, 7)


def answered_after_its_end(it: Script) -> Script:
    return it.give(7, 1).serve(7, ONE).note(Event.FIRST, ONE, 7)


def never_accepted(it: Script) -> Script:
    return it.send(7, 1)


VIOLATIONS = [
    accepted_twice, sent_twice, sent_after_it_was_taken, taken_by_two, taken_by_another,
    taken_by_another_process_of_its_slot, taken_unsent, taken_after_it_was_moved,
    moved_after_it_was_taken, moved_from_another, unsent_when_it_was_not, done_twice,
    done_by_another, answered_by_another, answered_twice, answered_after_its_end, never_accepted,
]  # fmt: skip


@pytest.mark.parametrize("violate", VIOLATIONS)
def test_each_violation_is_seen(script: Script, violate) -> None:
    verdict = violate(script).judge(ended=False)
    assert len(verdict.violations) == 1, verdict.violations
    assert "connection 7:" in verdict.violations[0]
    result = Result()
    verdict.check(result)
    assert result.broken == [ONCE]


def test_what_was_left_out_is_said(script: Script) -> None:
    script.give(0, 1)
    script.dropped = 3
    verdict = script.judge()
    result = Result()
    verdict.check(result)
    assert verdict.counts["without a cookie"] == 2
    assert WHOLE in result.broken
    assert "3 entries were dropped" in verdict.violations[0]


def test_a_ledger_that_nobody_keeps(script: Script) -> None:
    del script.entries[0]
    assert "no dispatcher" in script.give(7, 1).serve(7, ONE).judge().violations[0]


def test_a_lost_one_breaks_its_check(script: Script) -> None:
    result = Result()
    script.give(7, 1).die(1).judge().check(result)
    assert result.broken == [QUEUED]
    assert result.counts["ledger"] == "1 accepted, 1 lost queued"


# ---- what is told of a death ------------------------------------------------------------------


def told(worker: int, rescued: int) -> dict[str, object]:
    return {"event": "removed", "worker": worker, "rescued": rescued}


@pytest.mark.parametrize(("rescued", "good"), [(0, False), (1, True), (2, True), (3, False)])
def test_rescued_as_told(script: Script, rescued: int, good: bool) -> None:
    """One was moved after the death; another one was on its way then: told or not."""
    script.give(7, 1).give(8, 1).move(7, 1).die(1).send(7, 2).move(8, 1).send(8, 2)
    verdict = script.serve(7, TWO).serve(8, TWO).judge()
    assert verdict.members[1].queued_at_death == 1
    assert verdict.rescued == 1
    result = Result()
    verdict.check(result, [told(1, rescued), told(2, 0)])
    assert (RESCUED not in result.broken) is good


def test_two_dispatchers_count_apart(script: Script) -> None:
    script.give(7, 1).replace_dispatcher().die(1).move(7, 1).send(7, 2).serve(7, TWO)
    assert not script.judge().not_as_told([told(1, 0)])


def test_found_by_port_and_time(script: Script) -> None:
    verdict = script.accept(7, port=4000).accept(8, port=4000).accept(9).judge(ended=False)
    first, second = verdict.lives[7].accepted, verdict.lives[8].accepted
    found = [
        verdict.find(Record(1, 0, OK, intended=moment, ended=moment, port=4000))
        for moment in (first, second, second + 2)
    ]
    assert [None if one is None else one.cookie for one in found] == [7, 8, None]
    assert verdict.find(Record(1, 0, OK, 0, ended=1 << 60)) is None
