"""The table of workers: their order, what the policy sees of each, and whose turn it is.

Owns the workers' descriptors and counts. It decides nothing but the order; what a worker wrote into
its scoreboard is a hint, and where it is odd the kernel's count of its queue is asked.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from rrdispatch._core.layout import FIELD_OFFSETS, Candidate, Field, Policy, State
from rrdispatch._core.pure import Scoreboard
from rrdispatch.dispatch.lanes import MS, Lane
from rrdispatch.dispatch.policy import PICKS

INFLIGHT_MAX = 1 << 20

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
    lanes: list[Lane]
    state: State = State.STARTING
    capacity: int = 0
    batch: int = 1
    candidate: Candidate = field(default_factory=Candidate)
    # counts of connections
    sent: int = 0
    given: int = 0  # sent and not taken back
    moved_away: int = 0
    picks: int = 0
    seen: int = 0  # how many it had handled at the last look
    moved_ns: int = -(1 << 62)  # when it took something, or got something into an empty queue
    collected: int = 0  # connections for its next message, not sent yet
    pause_ns: int = 0  # its channel is full: not before
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
    hung: bool = False
    # requests that wait for their answer
    draining: list[int] = field(default_factory=list)
    removing: list[int] = field(default_factory=list)
    moved_lately: int = 0  # since it drains, or since its death

    def handled(self) -> int:
        """Connections that left its queue, if its scoreboard is right."""
        words = self.board.words
        return words[_RECEIVED] + words[_LOST]

    def inflight(self) -> int:
        """Connections received and not closed, if its scoreboard is right."""
        words = self.board.words
        return min(max(words[_RECEIVED] - words[_CLOSED], 0), INFLIGHT_MAX)

    def measure(self) -> None:
        """Ask the kernel what waits in its channels."""
        queued = waiting = 0
        oldest = 0
        for index, lane in enumerate(self.lanes):
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
        return sum(lane.taken() for lane in self.lanes)

    def refresh(self, now: int, settings: Settings) -> None:
        """Bring its candidate up to date."""
        one = self.candidate
        words = self.board.words
        received = words[_RECEIVED]
        one.pending = self.collected
        handled = received + words[_LOST]
        if handled != self.seen:
            self.seen, self.moved_ns = handled, now
        if self.given != handled:
            self.measure()
            one.pending += self.waiting
        inflight = received - words[_CLOSED]
        one.inflight = inflight if 0 <= inflight <= INFLIGHT_MAX else self.inflight()
        one.eligible = (
            not self.stalled_ns and one.pending < settings.queue_limit and now >= self.pause_ns
        )
        one.fresh = now - self.moved_ns < settings.stall_timeout

    def enter(self, state: State) -> None:
        """Change the state, and tell the readers of the scoreboard."""
        self.state = state
        self.board.store(Field.STATE, state)

    def unstall(self) -> None:
        """Back to normal: it took something, or it is dead."""
        self.stalled_ns = self.probe_ns = 0
        self.board.store(Field.STALLED, 0)

    def close(self) -> None:
        """Close everything of it."""
        for lane in self.lanes:
            lane.close()
        self.lanes = []
        self.board.close()
        for fd in (self.pidfd, self.lifeline):
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
        self.refreshed_ns = 0
        self._next_slot = 0

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

    def refresh(self, now: int) -> None:
        """Bring every candidate up to date."""
        settings = self.settings
        limit = settings.queue_limit
        self.refreshed_ns = now
        fewest = room = -1
        for worker in self.ready:
            worker.refresh(now, settings)
            one = worker.candidate
            if one.eligible:
                room += limit - one.pending
                load = one.pending + one.inflight
                if fewest < 0 or load < fewest:
                    fewest = load
        self.fewest = max(fewest, 0)
        self.room = room + 1

    def next(self) -> int:
        """Index in ``ready`` of whoever is next, or -1."""
        settings = self.settings
        return PICKS[settings.policy](self.candidates, self.turn, self.fewest + settings.band)

    def next_for_moved(self) -> int:
        """The same for a connection that was taken back: `strict` does not count those."""
        settings = self.settings
        if settings.policy != Policy.STRICT:
            return self.next()
        turn = self.move_turn if self.move_turn < len(self.ready) else 0
        return PICKS[Policy.ROUND_ROBIN](self.candidates, turn, self.fewest + settings.band)

    def note_given(self, index: int) -> None:
        """One connection more for ready[index], as far as the policy is concerned."""
        one = self.candidates[index]
        if not one.pending:
            self.ready[index].moved_ns = self.refreshed_ns
            one.fresh = True
        one.pending += 1
        if one.pending >= self.settings.queue_limit:
            one.eligible = False
        self.room -= 1
