"""The way of a connection from a hand into a worker's channel, and the accounting of it.

Owns the connections that could not be placed and what is collected for batch workers. It must not
know where a connection came from.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import chain

from rrdispatch._core.layout import FLAG_MOVED, Policy, State
from rrdispatch.dispatch.lanes import MS, Hand
from rrdispatch.dispatch.peers import Letter, peer_of
from rrdispatch.dispatch.slots import SENT, Slots, Worker

_close = os.close


@dataclass(slots=True)
class Totals:
    """What PING tells."""

    accepted: int = 0
    sent: int = 0
    moved: int = 0
    accept_errors: int = 0
    lost: int = 0
    abandoned: int = 0
    rounds: int = 0


@dataclass(slots=True)
class Sender:
    """Gives connections to workers; ``held`` are those for whom nobody has room, and ``aside``, by
    listener, those that only some have a channel for: they don't keep the others waiting.
    """

    slots: Slots
    totals: Totals
    held: list[Hand] = field(default_factory=list)
    aside: dict[int, list[Hand]] = field(default_factory=dict)
    collected: dict[Worker, Hand] = field(default_factory=dict)
    # Something was sent since the watch looked: it has to look again.
    sent_ns: int = 0

    def give(self, index: int, fd: int, now: int, letter: Letter, lane: int) -> None:
        """An accepted connection for ready[index]; if that is full for another, else it is held."""
        worker = self.slots.ready[index]
        if worker.batch > 1:
            self._collect(worker, Hand([fd], now, letter.peer(), lane))
        else:
            try:
                worker.lanes[lane].send_one(fd, now, letter.parts)
            except OSError:
                self._pause(worker, now)
                self.place(Hand([fd], now, letter.peer(), lane), now)
                return
            os.close(fd)
            self._note_sent(worker, 1, now)
        worker.picks += 1
        self._next_turn(index, lane)

    def give_in_turn(self, worker: Worker, fd: int, now: int, letter: Letter, lane: int) -> None:
        """The same where it is sure whose turn it is, one of ``Slots.in_turn`` after another.

        OSError leaves everything as it was. ``note_in_turn`` has to follow.
        """
        worker.lanes[lane].send_one(fd, now, letter.parts)
        _close(fd)
        worker.picks += 1
        worker.given += 1
        worker.sent = sent = worker.sent + 1
        worker.words[SENT] = sent
        one = worker.candidate
        if not one.pending:
            worker.moved_ns = now
        one.pending += 1

    def note_in_turn(self, count: int, now: int) -> None:
        """So many were given in turn; counts have to be read again now."""
        slots = self.slots
        slots.turn = (slots.turn + count) % len(slots.ready)
        self.totals.sent += count
        self.sent_ns = now

    def _next_turn(self, index: int, lane: int) -> None:
        self.slots.note_given(index)
        self.slots.advance(lane, index)

    def _note_sent(self, worker: Worker, count: int, now: int) -> None:
        worker.sent += count
        worker.given += count
        worker.words[SENT] = worker.sent
        self.totals.sent += count
        self.sent_ns = now

    def _pause(self, worker: Worker, now: int) -> None:
        """Full for now (also ETOOMANYREFS): EPOLLOUT would lie, so ask again soon.

        A worker that broke its own channel is treated alike: that is its loss only.
        """
        worker.pause_ns = now + MS
        worker.candidate.eligible = False

    def _collect(self, worker: Worker, hand: Hand) -> None:
        """For a worker that starts all connections of a message at once: up to `batch` in one."""
        waiting = self.collected.get(worker)
        if waiting is not None and (waiting.lane != hand.lane or len(waiting.fds) >= worker.batch):
            self._flush_one(worker, self.collected.pop(worker), hand.accepted_ns)
            waiting = None
        if waiting is None:
            self.collected[worker] = hand
        else:
            waiting.fds += hand.fds
        worker.collected += 1

    def _flush_one(self, worker: Worker, hand: Hand, now: int) -> None:
        worker.collected = 0
        try:
            worker.lanes[hand.lane].send_hand(hand, now)
        except OSError:
            self._pause(worker, now)
            self.place(hand, now)
            return
        for fd in hand.fds:
            os.close(fd)
        self._note_sent(worker, len(hand.fds), now)

    def flush(self, now: int) -> None:
        """Send what was collected in this round."""
        while self.collected:
            self._flush_one(*self.collected.popitem(), now)

    def place(self, hand: Hand, now: int) -> None:
        """One by one to whoever is next; what finds no room is held."""
        while hand.fds:
            if not self._place_first(hand, now):
                partial = self.slots.partial(hand.lane)
                (self.aside.setdefault(hand.lane, []) if partial else self.held).append(hand)
                return

    def _place_first(self, hand: Hand, now: int) -> bool:
        """The first connection of the hand; the peer is known of that one only."""
        slots = self.slots
        moved = bool(hand.flags & FLAG_MOVED)
        peer = peer_of(hand.fds[0]) if slots.sticky and not hand.peer else hand.peer
        while (index := slots.next_of(hand.lane, peer, moved)) >= 0:
            worker = slots.ready[index]
            first = Hand(hand.fds[:1], hand.accepted_ns, hand.peer, hand.lane, hand.flags)
            try:
                worker.lanes[hand.lane].send_hand(first, now)
            except OSError:
                self._pause(worker, now)
                continue
            os.close(hand.fds.pop(0))
            hand.peer = b""
            self._note_sent(worker, 1, now)
            self._note_placed(worker, index, hand.lane, moved)
            return True
        return False

    def _note_placed(self, worker: Worker, index: int, lane: int, moved: bool) -> None:
        slots = self.slots
        if moved:
            self.totals.moved += 1
        else:
            worker.picks += 1
        if moved and slots.settings.policy == Policy.STRICT:
            slots.note_given(index)
            slots.move_turn = index + 1
        else:
            self._next_turn(index, lane)

    def _let_go(self) -> list[Hand]:
        hands = [*self.held, *chain(*self.aside.values())]
        self.held, self.aside = [], {}
        return hands

    def retry_held(self, now: int) -> None:
        """Try again to place what is held."""
        for hand in self._let_go():
            self.place(hand, now)

    def return_moved(self, now: int) -> None:
        """With nobody ready to have it, what was taken back returns to its channel: its worker may
        take it.
        """
        for hand in [*self.held, *chain(*self.aside.values())]:
            source = self.slots.workers.get(hand.source)
            if source is None or self.slots.served >> hand.lane & 1:
                continue
            try:
                source.lanes[hand.lane].send_hand(hand, now)
            except OSError:
                continue
            for fd in hand.fds:
                os.close(fd)
            self._forget(hand)
            source.given += len(hand.fds)
            source.moved_away -= len(hand.fds)
            source.moved_lately -= len(hand.fds)
            self.sent_ns = now

    def _forget(self, hand: Hand) -> None:
        if hand in self.held:
            self.held.remove(hand)
            return
        self.aside[hand.lane].remove(hand)
        if not self.aside[hand.lane]:
            del self.aside[hand.lane]

    def put_back(self, now: int) -> None:
        """At the end: what is held goes into any living worker's channel, whatever its limit."""
        self.flush(now)
        held = self._let_go()
        order = (State.READY, State.PARKED, State.STARTING, State.DRAINING, State.DEAD)
        workers = sorted(self.slots.workers.values(), key=lambda one: order.index(one.state))
        for hand in held:
            while hand.fds and self._push(hand, workers, now):
                os.close(hand.fds.pop(0))
                hand.peer = b""
            self.totals.lost += len(hand.fds)
            for fd in hand.fds:
                os.close(fd)

    def _push(self, hand: Hand, workers: list[Worker], now: int) -> bool:
        first = Hand(hand.fds[:1], hand.accepted_ns, hand.peer, hand.lane, hand.flags)
        for worker in workers:
            if hand.lane not in worker.lanes:
                continue
            try:
                worker.lanes[hand.lane].send_hand(first, now)
            except OSError:
                continue
            return True
        return False
