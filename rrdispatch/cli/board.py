"""What is known of each slot while a command waits, as one line each. Pure: no terminal, no clock.

It is told events of the primary, and now and then its stats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

WAITS, READY, PARKED, DRAINING, GONE = (
    "waiting for ready", "ready", "parked", "draining", "gone",
)  # fmt: skip
OF_EVENT = {
    "spawned": WAITS, "worker-ready": READY, "unparked": READY, "parked": PARKED,
    "draining": DRAINING, "killed": "killed", "exited": GONE, "errored": GONE,
}  # fmt: skip
OF_STATE = {
    "starting": WAITS, "ready": READY, "parked": PARKED, "draining": DRAINING,
    "stopping": DRAINING, "killed": "killed", "dead": GONE,
}  # fmt: skip
COLOURS = {WAITS: "34", READY: "32", PARKED: "36", DRAINING: "33", GONE: "2", "killed": "31"}
SHOWN = 2  # workers of a slot: the newest, and the one before


@dataclass
class Worker:
    """One process, as far as it was heard of."""

    id: int
    pid: int
    what: str
    since: float
    inflight: int = 0
    how: str = ""  # it ended

    def text(self, now: float) -> str:
        what = self.what
        if what == WAITS:
            what = f"{what} {now - self.since:.0f} s"
        elif what == DRAINING:
            what = draining(self.inflight)
        elif what == GONE and self.how:
            what = f"{what} ({self.how})"
        return f"{what}, pid {self.pid}"


def draining(inflight: int) -> str:
    return f"draining {inflight} connection" + ("" if inflight == 1 else "s")


@dataclass
class Board:
    """All slots of one app."""

    name: str
    slots: dict[int, dict[int, Worker]] = field(default_factory=dict)

    def event(self, event: Mapping[str, Any], now: float) -> bool:
        """Whether it was about a worker."""
        what = OF_EVENT.get(str(event.get("event")))
        if what is None or not isinstance(event.get("worker"), int):
            return False
        worker = self._worker(event["slot"], event["worker"], event["pid"], what, now)
        worker.inflight = int(event.get("inflight", worker.inflight))
        worker.how = str(event.get("how") or worker.how)
        return True

    def stats(self, stats: Mapping[str, Any], now: float) -> None:
        """Those that are there; of those that are not, the event says how they went."""
        for told in stats.get("workers", ()):
            what = OF_STATE.get(told["state"], str(told["state"]))
            if what == WAITS and told["id"] in self.slots.get(told["slot"], ()):
                continue  # asked before it was ready, answered after
            worker = self._worker(told["slot"], told["id"], told["pid"], what, now)
            worker.inflight = told["inflight"]

    def _worker(self, slot: int, number: int, pid: int, what: str, now: float) -> Worker:
        workers = self.slots.setdefault(slot, {})
        worker = workers.setdefault(number, Worker(number, pid, what, now))
        if worker.what != what and worker.what != GONE:
            worker.what, worker.since = what, now
        if len(workers) > SHOWN:
            gone = [each for each in sorted(workers) if workers[each].what == GONE]
            for each in gone[: len(workers) - SHOWN]:
                del workers[each]
        return worker

    @property
    def drains(self) -> bool:
        return any(w.what == DRAINING for slot in self.slots.values() for w in slot.values())

    def lines(self, now: float, most: int, wide: int, colour: bool) -> list[str]:
        """At most so many; what has come to rest is left out first."""
        order = sorted(self.slots)
        hidden = 0
        if len(order) > most:
            busy = [slot for slot in order if self._moves(slot)]
            rest = [slot for slot in order if slot not in busy]
            order = sorted([*busy, *rest][: max(1, most - 1)])
            hidden = len(self.slots) - len(order)
        widest = max((len(f"{self.name}:{slot}") for slot in order), default=0)
        found = [self._line(slot, widest, now, wide, colour) for slot in order]
        return [*found, f"and {hidden} more"[:wide]] if hidden else found

    def _moves(self, slot: int) -> bool:
        whats = [worker.what for worker in self.slots[slot].values()]
        return any(what not in (READY, GONE) for what in whats)

    def _line(self, slot: int, widest: int, now: float, wide: int, colour: bool) -> str:
        head = f"{self.name}:{slot}".ljust(widest) + "  "
        workers = [self.slots[slot][number] for number in sorted(self.slots[slot], reverse=True)]
        return _fitted(head, [(worker.text(now), worker.what) for worker in workers], wide, colour)


def _fitted(head: str, parts: Sequence[tuple[str, str]], wide: int, colour: bool) -> str:
    """Colour takes no room."""
    out, left = head[:wide], wide - len(head)
    for number, (text, what) in enumerate(parts):
        shown = (("; " if number else "") + text)[: max(0, left)]
        left -= len(shown)
        code = COLOURS.get(what) if colour and shown else None
        out += f"\033[{code}m{shown}\033[0m" if code else shown
    return out
