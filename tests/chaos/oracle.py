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

from rrdispatch._core.layout import LedgerEvent as Event
from rrdispatch.ledger import Book, create, read
from tests.chaos.kit import Result
from tests.chaos.ways import Life, Member, Reader, State
from tests.harness.records import Record

__all__ = ["Ledger", "Life", "State", "Verdict", "judge"]

QUEUED = "ledger: 0 lost that were queued"
ONCE = "ledger: each connection once in each state"
WHOLE = "ledger: nothing left out"
RESCUED = "ledger: what was queued at a death was rescued, as told"


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
    reader = Reader()
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


class _Reckoning:
    """What became of each, at the end or so far."""

    def __init__(self, reader: Reader, ended: bool, dead: set[int]) -> None:
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
