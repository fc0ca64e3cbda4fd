"""The table of workers: their order, what the policy sees of each, and whose turn it is.

Owns the workers' descriptors and counts. It decides nothing but the order; what a worker wrote into
its scoreboard is a hint, and where it is odd the kernel's count of its queue is asked.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import chain

from rrdispatch._core.layout import (
    FIELD_OFFSETS,
    QUEUE_LIMIT_MAX,
    Candidate,
    Field,
    Policy,
    State,
)
from rrdispatch._core.pure import Scoreboard
from rrdispatch.dispatch import tracing
from rrdispatch.dispatch.lanes import MS, Lane
from rrdispatch.dispatch.policy import PICKS, goes_in_turn, pick, pick_source, source

INFLIGHT_MAX = 1 << 20

# In place of the sequence of a request whose asker is dead.
ORPHANED = -1

# For so long a worker's own count is believed.
BELIEVED = MS

# Few workers are not looked at more often than once per so many picks.
LOOK_EVERY = 8

# What may wait at a busy worker that took nothing lately.
AHEAD = 1

# Twice as long as a full dispatcher sleeps before it looks again.
LATELY = 2 * MS

# Where the counts are among the scoreboard's words.
_RECEIVED, _CLOSED, _LOST, SENT = (
    FIELD_OFFSETS[one][0] // 8 for one in (Field.RECEIVED, Field.CLOSED, Field.LOST, Field.SENT)
)


@dataclass(slots=True)
class Settings:
    """What SETTINGS may change."""

    policy: int = Policy.ROUND_ROBIN
    queue_limit: int = 32
    stall_timeout: int = 10 * MS
    band: int = 8
    heartbeat_timeout: int = 0
    round: int = 64
    take_back: bool = True
    probe: bool = True


@dataclass(slots=True, eq=False)
class Worker:
    """One worker: who it is, its channels, its counts, and how it keeps up."""

    id: int
    slot: int
    generation: int
    pidfd: int
    lifeline: int
    board: Scoreboard
    lanes: dict[int, Lane]  # by listener
    state: State = State.STARTING
    capacity: int = 0
    batch: int = 1
    candidate: Candidate = field(default_factory=Candidate)
    # counts of connections
    sent: int = 0
    given: int = 0  # sent and not taken back
    agreed_ns: int = 0  # when what it has to handle yet was what waited
    moved_away: int = 0
    picks: int = 0
    seen: int = 0  # how many it had handled at the last look
    moved_ns: int = -(1 << 62)  # when it took something, or got something into an empty queue
    collected: int = 0  # connections for its next message, not sent yet
    pause_ns: int = 0  # its channel is full: not before
    limit: int = 0  # of its queue, at the last look
    lately: tuple[int, int, int] = (0, 0, 0)  # when it was counted, handled then, at the one before
    # as measured last, exactly
    queued: int = 0  # messages, a probe included
    waiting: int = 0  # connections
    oldest_ns: int = 0
    oldest_lane: int = 0
    # stalled, hung
    stalled_ns: int = 0  # 0 = not stalled
    probe_ns: int = 0  # 0 = no probe is in its channel
    taken_at_stall: int = 0
    taken_seen: int = 0
    progress_ns: int = 0
    progress_then: int = 0
    progressed: bool = False
    hung: bool = False
    # sequences of requests that wait for their answer, or ORPHANED
    draining: int | None = None
    removing: int | None = None
    moved_lately: int = 0  # since it drains, or since its death
    # for an heir of the primary
    board_fd: int = -1
    kept: dict[int, list[int]] = field(default_factory=dict)  # by tag
    words: memoryview = field(init=False)  # the scoreboard's

    def __post_init__(self) -> None:
        self.words = self.board.words
        self.candidate.slot = self.slot & 0xFFFF
        tracing.joined(self)

    @property
    def drain_awaited(self) -> bool:
        """Somebody waits for the end of its drain."""
        return self.draining is not None and self.draining != ORPHANED

    @property
    def mask(self) -> int:
        """The listeners that it has a channel for, one bit each."""
        return sum(1 << lane for lane in self.lanes)

    def handled(self) -> int:
        """Connections that left its queue, if its scoreboard is right."""
        return int(self.words[_RECEIVED] + self.words[_LOST])

    def taken_lately(self, handled: int, now: int) -> int:
        """In the last one or two periods, of those in which somebody looked."""
        at, then, before = self.lately
        if now - at >= LATELY:
            before = then if now - at < 2 * LATELY else handled
            self.lately = now, handled, before
        return handled - before

    def inflight(self) -> int:
        """Connections received and not closed, if its scoreboard is right."""
        return min(max(self.words[_RECEIVED] - self.words[_CLOSED], 0), INFLIGHT_MAX)

    def measure(self) -> None:
        """Ask the kernel what waits in its channels."""
        queued = waiting = 0
        oldest = 0
        for index, lane in self.lanes.items():
            messages = lane.queued()
            if not messages:
                continue
            queued += messages
            waiting += lane.waiting
            sent_ns = lane.oldest()
            if sent_ns and (not oldest or sent_ns < oldest):
                oldest, self.oldest_lane = sent_ns, index
        self.queued, self.waiting, self.oldest_ns = queued, waiting, oldest

    def taken(self) -> int:
        """Messages that it took itself, as measured last."""
        return sum(lane.taken() for lane in self.lanes.values())

    def pending(self, handled: int, now: int) -> int:
        """Connections that wait, where it has not handled all that it was given.

        Its own count saves a system call per connection; it is believed for a moment after it was
        found to be what the kernel says.
        """
        left = self.given - handled
        if now - self.agreed_ns < BELIEVED and 0 < left <= QUEUE_LIMIT_MAX:
            return left
        self.measure()
        self.agreed_ns = now if left == self.waiting else 0
        return self.waiting

    def enter(self, state: State) -> None:
        """Change the state, and tell the readers of the scoreboard."""
        if state == State.DEAD:
            tracing.dead(self)
        self.state = state
        self.board.store(Field.STATE, state)

    def unstall(self) -> None:
        """Back to normal: it took something, or it is dead."""
        self.stalled_ns = self.probe_ns = 0
        self.board.store(Field.STALLED, 0)

    def close(self) -> None:
        """Close everything of it."""
        for lane in self.lanes.values():
            lane.close()
        self.lanes = {}
        self.board.close()
        for fd in (self.pidfd, self.lifeline, self.board_fd, *chain(*self.kept.values())):
            if fd >= 0:
                os.close(fd)


class Slots:
    """All workers by id, and the READY ones in the order of the turn."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.workers: dict[int, Worker] = {}
        self.ready: list[Worker] = []
        self.candidates: list[Candidate] = []
        self.turn = 0
        self.move_turn = 0
        self.fewest = 0
        self.room = 0  # connections that the eligible can take together
        self.short_queues = False  # somebody's is shorter than the limit
        self.refreshed_ns = 0
        self._next_slot = 0
        self._rounds = LOOK_EVERY
        self._one_by_one = True  # no READY one takes more than one per message
        self._in_turn = False
        # Bits of listeners: one of the READY, or all of them, have a channel for it; or none of
        # those who are READY has one. With nobody READY the last two say nothing.
        self.served, self.common, self.unserved = 0, -1, 0
        # A listener that not all of the READY have a channel for has its own turn, so that whoever
        # has more of them keeps its share of each: who got its last one, the slot after that.
        self._turns: dict[int, tuple[int, int]] = {}

    def rebuild(self) -> None:
        """Order the READY ones anew; the turn goes on at the slot whose turn it was."""
        if self.ready:
            self._next_slot = self.ready[self.turn if self.turn < len(self.ready) else 0].slot
        self.ready = sorted(
            (worker for worker in self.workers.values() if worker.state == State.READY),
            key=lambda worker: (worker.slot, worker.generation, worker.id),
        )
        self.candidates = [worker.candidate for worker in self.ready]
        later = (i for i, one in enumerate(self.ready) if one.slot >= self._next_slot)
        self.turn = next(later, 0)
        self._rounds = -(-LOOK_EVERY // max(len(self.ready), 1))
        self._one_by_one = all(worker.batch == 1 for worker in self.ready)
        self.cover()

    def cover(self) -> None:
        """Who has a channel for what has changed, and nothing else."""
        served, common = 0, -1
        for worker in self.ready:
            mask = worker.mask
            served |= mask
            common &= mask
        self.served, self.common = served, common
        self.unserved = ~served if self.ready else 0

    def partial(self, lane: int) -> bool:
        """Only some of the READY, or none, have a channel for that listener."""
        return not self.common >> lane & 1

    def refresh(self, now: int) -> None:
        """Bring every candidate up to date."""
        settings, rounds = self.settings, self._rounds
        timeout = settings.stall_timeout
        self.refreshed_ns = now
        fewest, most, room = INFLIGHT_MAX << 1, -1, 0
        all_eligible = keep_up = True
        self.short_queues = False
        for worker in self.ready:
            words, one = worker.words, worker.candidate
            received = words[_RECEIVED]
            handled = received + words[_LOST]
            if handled != worker.seen:
                worker.seen, worker.moved_ns = handled, now
            pending = worker.collected
            if handled != worker.given:
                pending += worker.pending(handled, now)
            inflight = received - words[_CLOSED]
            if not 0 <= inflight <= INFLIGHT_MAX:
                inflight = worker.inflight()
            one.pending, one.inflight = pending, inflight
            one.fresh = fresh = now - worker.moved_ns < timeout
            limit = worker.limit = self._limit_of(worker, handled, inflight)
            if pending >= limit or worker.stalled_ns or now < worker.pause_ns:
                one.eligible = all_eligible = False
                continue
            one.eligible = True
            room += limit - pending
            load = pending + inflight
            if load < fewest:
                fewest = load
            if load > most:
                most = load
            if pending + rounds > limit:
                all_eligible = False
            if (pending and not fresh) or 0 < one.capacity < load + rounds:
                keep_up = False
        self.fewest = fewest if most >= 0 else 0
        self.room = room
        self._in_turn = (all_eligible and self._one_by_one) and goes_in_turn(
            settings.policy, keep_up, most - fewest, rounds, settings.band
        )

    def _limit_of(self, worker: Worker, handled: int, inflight: int) -> int:
        """How many may wait there. A worker that said how many it serves at a time is given what it
        has places for, what it took lately, and a little more: who waits behind a request that
        takes long has no part in the place that becomes free elsewhere, while the backlog goes to
        whoever is first.
        """
        most = self.settings.queue_limit
        if not worker.capacity or self.settings.policy != Policy.ROUND_ROBIN:
            return most
        places = max(worker.capacity - inflight, 0)
        limit = min(AHEAD + worker.taken_lately(handled, self.refreshed_ns) + places, most)
        self.short_queues |= limit < most
        return limit

    def in_turn(self, lane: int) -> list[Worker]:
        """Whom the next picks are, in this order, until counts are read again; [] = not known."""
        if not self._in_turn or not self.common >> lane & 1:
            return []
        turn = self.turn
        return (self.ready[turn:] + self.ready[:turn]) * self._rounds

    def next(self, lane: int) -> int:
        """Index in ``ready`` of whoever is next for that listener, or -1."""
        settings = self.settings
        if not self.common >> lane & 1:
            return self._next_among(lane, settings.policy, self._turn_of(lane))
        return PICKS[settings.policy](self.candidates, self.turn, self.fewest + settings.band)

    @property
    def sticky(self) -> bool:
        """Where a connection comes from says who is next."""
        return self.settings.policy == Policy.SOURCE_HASH

    def next_of(self, lane: int, peer: bytes, moved: bool = False) -> int:
        """The same for a connection from there: with `source-hash` its address says who."""
        client = source(peer) if self.sticky else 0
        if not client:
            return self.next_for_moved(lane) if moved else self.next(lane)
        some = [i for i, one in enumerate(self.ready) if lane in one.lanes]
        picked = pick_source([self.candidates[i] for i in some], client)
        return some[picked] if picked >= 0 else -1

    def next_for_moved(self, lane: int) -> int:
        """The same for a connection that was taken back: `strict` does not count those."""
        if self.settings.policy != Policy.STRICT:
            return self.next(lane)
        return self._next_among(lane, Policy.ROUND_ROBIN, self.move_turn)

    def _next_among(self, lane: int, policy: int, turn: int) -> int:
        some = [i for i, one in enumerate(self.ready) if lane in one.lanes]
        few = [self.candidates[i] for i in some]
        fewest = min((one.pending + one.inflight for one in few if one.eligible), default=0)
        first = sum(i < turn for i in some)
        picked = pick(policy, few, first, fewest, self.settings.band)
        return some[picked] if picked >= 0 else -1

    def _turn_of(self, lane: int) -> int:
        """Behind whoever got its last connection; if that one is gone, behind its slot's place."""
        last, slot = self._turns.get(lane, (-1, 0))
        for index, one in enumerate(self.ready):
            if one.id == last:
                return index + 1
        return next((i for i, one in enumerate(self.ready) if one.slot >= slot), 0)

    def advance(self, lane: int, index: int) -> None:
        """The turn goes to the one after `index`."""
        if self.common >> lane & 1:
            self.turn = index + 1 if index + 1 < len(self.ready) else 0
        else:
            self._turns[lane] = (self.ready[index].id, self.ready[index].slot + 1)

    def has_room(self) -> bool:
        """Somebody can take something."""
        return any(one.eligible for one in self.candidates)

    def room_for(self, lane: int) -> int:
        """Connections of that listener that can be taken."""
        if self.common >> lane & 1:
            return self.room
        return sum(
            one.limit - one.candidate.pending
            for one in self.ready
            if one.candidate.eligible and lane in one.lanes
        )

    def note_given(self, index: int) -> None:
        """One connection more for ready[index], as far as the policy is concerned."""
        one = self.candidates[index]
        if not one.pending:
            self.ready[index].moved_ns = self.refreshed_ns
            one.fresh = True
        one.pending += 1
        if one.pending >= self.ready[index].limit:
            one.eligible = False
        self.room -= 1
