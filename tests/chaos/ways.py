"""Follows a ledger: where each connection is after each entry, and which entries cannot be.

Owns the states of a connection and the steps between them. What it means that one is left somewhere
is the oracle's business.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum

from rrdispatch._core.layout import LedgerEvent as Event
from rrdispatch._core.layout import LedgerRole as Role
from rrdispatch.ledger import Entry


class State(Enum):
    """Where a connection is."""

    HAND = "in the dispatcher"
    QUEUED = "queued"
    TAKEN = "taken"
    DONE = "done"


@dataclass
class Life:
    """One connection."""

    cookie: int
    port: int = 0
    accepted: int = 0  # when
    state: State = State.HAND
    worker: int = 0  # the last one that it was sent to
    taker: int = 0  # pid
    sender: int = 0  # pid of the dispatcher that had it last
    sent: int = 0  # when, the last time
    taken: int = 0
    first: int = 0
    done: int = 0
    moved: int = 0  # when it was taken back, the last time
    source: int = 0  # and from which worker
    lost: str = ""


@dataclass
class Member:
    """A worker, as the dispatchers knew it."""

    id: int
    slot: int
    generation: int
    pid: int = 0
    joined: int = 0  # how many dispatchers were told of it
    died: int = 0  # when a dispatcher saw it
    queued_at_death: int = 0
    placed: int = 0  # taken back from it and given to another
    rescued: int = 0  # of them, taken back after its death


class Reader:
    """Follows the entries in the order of time."""

    def __init__(self) -> None:
        self.lives: dict[int, Life] = {}
        self.members: dict[int, Member] = {}
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.dispatchers: list[int] = []  # pids, in the order of their lives
        self.workers: set[int] = set()
        self.takes: dict[int, list[int]] = {}  # pid: connections of the messages being received
        self.last: dict[int, Entry] = {}  # of each dispatcher
        self._steps = {
            Event.SENT: self._sent,
            Event.UNSENT: self._unsent,
            Event.MOVED: self._moved,
            Event.TAKEN: self._taken,
            Event.FIRST: self._first,
            Event.DONE: self._done,
        }

    def hear(self, entry: Entry) -> None:
        if entry.pid in self.last or entry.event == Event.ACCEPTED:
            self.last[entry.pid] = entry
        if entry.event == Event.OPENED:
            self._opened(entry)
        elif entry.event in (Event.JOINED, Event.DEAD):
            self._of_worker(entry)
        elif entry.event in (Event.TAKING, Event.TOOK_NOTHING):
            self._take(entry)
        else:
            self._of_connection(entry)

    def _wrong(self, entry: Entry, what: str, life: Life | None = None) -> None:
        where = "" if life is None else f" (it was {life.state.value}, worker {life.worker})"
        name = Event(entry.event).name.lower().replace("_", " ")
        by = f"pid {entry.pid}" + (f", worker {entry.worker}" if entry.worker else "")
        self.violations.append(f"connection {entry.cookie}: {name} by {by}: {what}{where}")

    # ---- processes ------------------------------------------------------------------------------

    def _opened(self, entry: Entry) -> None:
        if entry.detail == Role.DISPATCHER:
            self.dispatchers.append(entry.pid)
            self.last[entry.pid] = entry
        else:
            self.workers.add(entry.pid)

    def _of_worker(self, entry: Entry) -> None:
        member = self.members.get(entry.worker)
        if member is None:
            member = Member(entry.worker, entry.slot, entry.generation)
            self.members[entry.worker] = member
        if entry.event == Event.JOINED:
            member.joined += 1
            member.pid = entry.cookie or member.pid
        elif not member.died:
            member.died = entry.ns
            member.queued_at_death = sum(
                life.state is State.QUEUED and life.worker == member.id
                for life in self.lives.values()
            )

    def _take(self, entry: Entry) -> None:
        takes = self.takes.setdefault(entry.pid, [])
        if entry.event == Event.TAKING:
            takes.append(entry.detail)
        elif takes:
            takes.pop()

    # ---- connections ----------------------------------------------------------------------------

    def _of_connection(self, entry: Entry) -> None:
        if entry.event in (Event.TAKEN, Event.MOVED) and entry.detail:
            takes = self.takes.get(entry.pid)
            if takes:
                takes.pop()
        if not entry.cookie:
            self.counts["without a cookie"] += 1
            return
        life = self.lives.get(entry.cookie)
        if entry.event == Event.ACCEPTED:
            if life is not None:
                self._wrong(entry, "accepted twice", life)
                return
            self.lives[entry.cookie] = Life(entry.cookie, entry.detail, entry.ns, sender=entry.pid)
        elif life is None:
            self._wrong(entry, "never accepted")
            self.lives[entry.cookie] = Life(entry.cookie)
        else:
            self._steps[Event(entry.event)](entry, life)

    def _sent(self, entry: Entry, life: Life) -> None:
        if life.state is not State.HAND:
            self._wrong(entry, "sent by one that did not have it", life)
            return
        life.state, life.worker = State.QUEUED, entry.worker
        life.sender, life.sent = entry.pid, entry.ns
        self._placed(life, 1)

    def _unsent(self, entry: Entry, life: Life) -> None:
        if life.state is not State.QUEUED or life.worker != entry.worker:
            self._wrong(entry, "not sent, and yet it was", life)
            return
        life.state = State.HAND
        self.counts["tried again"] += 1
        self._placed(life, -1)

    def _placed(self, life: Life, count: int) -> None:
        """One that was taken back went to a worker: another one, or the same."""
        if not life.source:
            return
        if life.source == life.worker:
            self.counts["put back"] += count
            return
        self.counts["moved"] += count
        source = self.members.get(life.source)
        if source is not None:
            source.placed += count
            source.rescued += count * int(0 < source.died < life.moved)

    def _moved(self, entry: Entry, life: Life) -> None:
        if life.state is not State.QUEUED or life.worker != entry.worker:
            self._wrong(entry, "taken back from one that did not have it", life)
            return
        life.state, life.source, life.moved = State.HAND, entry.worker, entry.ns

    def _taken(self, entry: Entry, life: Life) -> None:
        if life.state in (State.TAKEN, State.DONE):
            self._wrong(entry, f"taken twice, first by pid {life.taker}", life)
            return
        if life.state is not State.QUEUED:
            self._wrong(entry, "taken without having been sent", life)
        member = self.members.get(life.worker)
        if member is not None and not self._is(member, entry):
            self._wrong(entry, f"taken by another worker than pid {member.pid}", life)
        life.state, life.taker, life.taken = State.TAKEN, entry.pid, entry.ns

    @staticmethod
    def _is(member: Member, entry: Entry) -> bool:
        place = (member.slot & 0xFFFF, member.generation & 0xFFFF)
        return place == (entry.slot, entry.generation) and member.pid in (0, entry.pid)

    def _first(self, entry: Entry, life: Life) -> None:
        if life.state is not State.TAKEN or life.taker != entry.pid:
            self._wrong(entry, "answered by one that did not have it", life)
        elif life.first:
            self._wrong(entry, "a second first byte", life)
        else:
            life.first = entry.ns

    def _done(self, entry: Entry, life: Life) -> None:
        if life.state is State.DONE:
            self._wrong(entry, "done twice", life)
        elif life.state is not State.TAKEN or life.taker != entry.pid:
            self._wrong(entry, "ended by one that did not have it", life)
        else:
            life.state, life.done = State.DONE, entry.ns
