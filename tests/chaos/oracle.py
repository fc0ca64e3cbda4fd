"""Judges a ledger: what became of each connection, and whether each step of its way came once.

A connection goes from accept into a hand (dispatcher, reclaimer), from there into the queue of one
worker, from there into the worker's own hands or back into a hand, and ends when its taker closes
it. Whatever else a ledger says is a violation. What is nowhere at the end was lost, and where it
was when it was lost makes the class:

* **in hand**: taken, not closed, its taker died (``begun``: a part of an answer was sent);
* **in the take**: its worker died inside recvmsg, so that nobody wrote down that it was taken: no
  more of them are granted than the messages that were being received;
* **queued**: sent, and neither taken nor moved. Must be 0;
* **in the dispatcher**: accepted or taken back, and not sent when the dispatcher ended.

Connections are known by SO_COOKIE, which no client knows: ``find`` goes by port and time.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from rrdispatch._core.layout import LedgerEvent as Event
from rrdispatch._core.layout import LedgerRole as Role
from rrdispatch.ledger import Book, Entry, create, read
from tests.chaos.kit import Result
from tests.harness.records import Record

QUEUED = "ledger: 0 lost that were queued"
ONCE = "ledger: each connection once in each state"
WHOLE = "ledger: nothing left out"
RESCUED = "ledger: what was queued at a death was rescued, as told"


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


@dataclass
class Verdict:
    """What a ledger says, counted."""

    lives: dict[int, Life]
    members: dict[int, Member]
    counts: Counter[str]
    violations: list[str]
    ended: bool
    dispatchers: list[int]
    workers: set[int]
    _ports: dict[int, list[Life]] = field(default_factory=dict)

    @property
    def accepted(self) -> int:
        return len(self.lives)

    @property
    def done(self) -> int:
        """Closed by whoever took it."""
        return self.counts["served"] + self.counts["closed unanswered"]

    @property
    def rescued(self) -> int:
        """Queued at a worker when it died, and given to others."""
        return sum(member.rescued for member in self.members.values())

    def lost(self, name: str) -> list[Life]:
        """Those of a class, as it is called in ``counts``."""
        return [life for life in self.lives.values() if life.lost == name]

    @property
    def lost_queued(self) -> int:
        return self.counts["lost queued"]

    @property
    def in_hand(self) -> int:
        """Died with their taker, those included that it was just receiving."""
        return self.counts["lost in hand"] + self.counts["lost in the take"]

    def find(self, record: Record) -> Life | None:
        """The connection of a client's request, by its port and time."""
        if not self._ports:
            for life in self.lives.values():
                self._ports.setdefault(life.port, []).append(life)
        for life in self._ports.get(record.port, []) if record.port else []:
            if record.intended <= life.accepted <= record.ended:
                return life
        return None

    def __str__(self) -> str:
        names = (
            "served", "closed unanswered", "open", "waiting", "moved", "put back", "lost in hand",
            "lost in the take", "lost queued", "lost in the dispatcher", "without a cookie",
        )  # fmt: skip
        told = [f"{self.accepted} accepted"]
        told += [f"{self.counts[name]} {name}" for name in names if self.counts[name]]
        told += [f"{len(self.violations)} violations"] if self.violations else []
        return ", ".join(told)

    def check(self, result: Result, told: Iterable[Mapping[str, object]] = ()) -> None:
        """Adds what was counted and what must hold; ``told`` are the ``removed`` events."""
        result.counts["ledger"] = str(self)
        if self.violations:
            result.counts["violations"] = "; ".join(self.violations[:5])
        result.check(QUEUED, self.lost_queued == 0)
        result.check(ONCE, not self.violations)
        result.check(WHOLE, not self.counts["dropped"] and not self.counts["without a cookie"])
        result.check(RESCUED, not self.not_as_told(told))

    def not_as_told(self, told: Iterable[Mapping[str, object]]) -> list[str]:
        """Workers whose ``removed`` event counts other rescues than the ledger.

        Those of one dispatcher only: a new one begins to count anew.
        """
        wrong = []
        for event in told:
            member = self.members.get(int(str(event["worker"])))
            if member is None or member.joined != 1 or "rescued" not in event:
                continue
            rescued = int(str(event["rescued"]))
            # Told too: what was given away in a drain before, and what was on its way at the death.
            if not member.rescued <= rescued <= member.placed:
                wrong.append(f"worker {member.id}: told {rescued}, ledger {member.rescued}")
        return wrong


class Ledger:
    """A ledger that a test makes, gives to a service, and reads at any time."""

    def __init__(self, path: str | os.PathLike[str], capacity: int = 1 << 20) -> None:
        self.path = os.fspath(path)
        create(path, capacity)

    @property
    def env(self) -> dict[str, str]:
        """For the primary."""
        return {"RRDISPATCH_LEDGER": self.path}

    def judge(self, *, ended: bool, dead: Iterable[int] = ()) -> Verdict:
        """Of what is in it now. ``ended``: the service is gone; ``dead``: pids known to be."""
        return judge(read(self.path), ended=ended, dead=dead)


def judge(book: Book, *, ended: bool, dead: Iterable[int] = ()) -> Verdict:
    """The verdict on a ledger."""
    reader = _Reader()
    for entry in book.entries:
        reader.hear(entry)
    counts = reader.counts
    counts["dropped"] = book.dropped
    counts["unsaid"] = book.unsaid
    _Reckoning(reader, ended, set(dead)).run()
    violations = list(reader.violations)
    if book.dropped:
        violations.append(f"the ledger was full: {book.dropped} entries were dropped")
    if reader.lives and not reader.dispatchers:
        violations.append("no dispatcher said that it keeps this ledger")
    return Verdict(
        reader.lives, reader.members, counts, violations, ended, reader.dispatchers, reader.workers
    )


class _Reader:
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


class _Reckoning:
    """What became of each, at the end or so far."""

    def __init__(self, reader: _Reader, ended: bool, dead: set[int]) -> None:
        self._reader = reader
        self._counts = reader.counts
        self._ended = ended
        gone = {one.pid for one in reader.members.values() if one.died and one.pid}
        # A dispatcher is followed by another one only when it is gone.
        self._dead = dead | gone | set(reader.dispatchers[:-1])
        self._granted: Counter[int] = Counter()  # by worker: may have died inside a take

    def run(self) -> None:
        for member in self._reader.members.values():
            if self._worker_gone(member.id) and member.pid:
                self._granted[member.id] = sum(self._reader.takes.get(member.pid, []))
        for life in sorted(self._reader.lives.values(), key=lambda one: one.sent):
            name = self._name(life)
            self._counts[name] += 1
            if name.startswith("lost"):
                life.lost = name
            if name == "lost in hand" and life.first:
                self._counts["of them begun"] += 1

    def _name(self, life: Life) -> str:
        if life.state is State.DONE:
            return "served" if life.first else "closed unanswered"
        if life.state is State.TAKEN:
            return "lost in hand" if self._gone(life.taker) else "open"
        if life.state is State.HAND:
            return "lost in the dispatcher" if self._gone(life.sender) else "in the dispatcher"
        return self._queued(life)

    def _queued(self, life: Life) -> str:
        if self._unsure(life):
            return "lost in the dispatcher"
        if not self._worker_gone(life.worker):
            return "waiting"
        # A channel is first in, first out: what was being received is the oldest.
        if self._granted[life.worker] > 0:
            self._granted[life.worker] -= 1
            return "lost in the take"
        # While the service lives, a dead worker's queue may be on its way to others.
        return "lost queued" if self._ended else "waiting"

    def _unsure(self, life: Life) -> bool:
        """Its dispatcher died between noting and sending: it is in the last message noted."""
        last = self._reader.last.get(life.sender)
        return (
            life.sender in self._dead
            and last is not None
            and last.event == Event.SENT
            and last.ns == life.sent
        )

    def _gone(self, pid: int) -> bool:
        return self._ended or pid in self._dead

    def _worker_gone(self, worker: int) -> bool:
        member = self._reader.members.get(worker)
        return self._ended or member is None or bool(member.died) or member.pid in self._dead
