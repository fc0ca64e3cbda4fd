"""rrdispatch's own policies, after csrc/policy.c, candidates.c and watch.c, with the same names.

Not in the model: the time that a hand-over and a reclaimer take (microseconds, and about one
millisecond), batches, deaths, and the kernel's time slices: here every worker has a core.
"""

from __future__ import annotations

from collections import deque
from itertools import chain

from .sim_engine import Worker
from .sim_policies import Base
from .sim_work import Connection

LOOK_S = 0.001  # as often as that at most the watch looks
INTERVAL_MOST_S = 0.01
RETRY_MOST_S = 0.01
AHEAD, LATELY_S = 1, 0.002  # what may wait at a busy worker: so much, and what it took lately
IDLE_PATIENCE, STUCK_PATIENCE, STUCK_TAKES = 5, 20, 8


class Watched:
    """What the dispatcher knows of a worker."""

    __slots__ = (
        "index", "inflight", "moved_at", "probing", "progress_at", "progress_then", "progressed",
        "queue", "stalled", "taken", "taken_seen", "took", "worker",
    )  # fmt: skip

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.index = worker.index
        self.queue: deque[tuple[Connection, float]] = deque()
        self.took: deque[float] = deque()  # when, lately
        self.inflight = self.taken = self.taken_seen = 0
        self.stalled = self.probing = self.progressed = False
        self.moved_at = self.progress_at = -1.0
        self.progress_then = 0


class Ours(Base):
    """Watched channels: a stalled worker's queue is moved, and a probe stays in its place."""

    def __init__(
        self, name: str, *, stall_timeout: float = 0.01, band: int = 8, queue_limit: int = 32
    ) -> None:
        self.name = name
        self.stall_timeout, self.band, self.queue_limit = stall_timeout, band, queue_limit

    def start(self) -> None:
        self.all = [Watched(worker) for worker in self.workers]
        self.load = [0] * len(self.all)  # waiting and open
        self.room = [True] * len(self.all)  # neither stalled nor full
        self.full = 0  # those without room
        self.backlog: deque[Connection] = deque()
        self.turn = self.move_turn = self.progress = 0
        self.watch_at = -1.0
        self.full_since = -1.0

    # Whose turn it is

    def pick(self, turn: int, name: str) -> int:
        """The index, or -1 if nobody has room."""
        self._refresh()
        if self.full == len(self.all):
            return -1
        if name == "round-robin":
            return self._pick_round_robin(turn)
        if name == "strict":
            order = range(turn, turn + len(self.all))
            return next(i % len(self.all) for i in order if self.room[i % len(self.all)])
        least = self._fewest()
        for i in range(turn, turn + len(self.all)):
            at = i % len(self.all)
            if self.load[at] == least and self.room[at]:
                return at
        return -1

    def _refresh(self) -> None:
        """Who has room changes with time alone where workers said how many they serve at a time."""
        if self._in_places():
            for one in self.all:
                self._set_room(one)

    def _in_places(self) -> bool:
        return self.name == "round-robin" and self.kind.capacity > 0

    def _limit(self, one: Watched) -> int:
        if not self._in_places():
            return self.queue_limit
        while one.took and one.took[0] < self.clock.now - LATELY_S:
            one.took.popleft()
        places = max(self.kind.capacity - one.inflight, 0)
        return min(AHEAD + len(one.took) + places, self.queue_limit)

    def _fewest(self) -> int:
        if not self.full:
            return min(self.load)
        return min(load for load, room in zip(self.load, self.room, strict=True) if room)

    def _pick_round_robin(self, turn: int) -> int:
        limit, capacity = self._fewest() + self.band, self.kind.capacity
        best: dict[int, int] = {}
        least = self.queue_limit
        for i in chain(range(turn, len(self.all)), range(turn)):
            if not self.room[i]:
                continue
            rank, waiting = self._rank(i, limit, capacity)
            if rank == 0:
                return i
            if rank < 5:
                best.setdefault(rank, i)
            elif waiting < least:
                best[5], least = i, waiting
        return best[min(best)]

    def _rank(self, i: int, limit: int, capacity: int) -> tuple[int, int]:
        """0 keeps up, 1 fresh, 2 moving, 3 empty and near, 4 empty, 5 something waits."""
        one, load = self.all[i], self.load[i]
        waiting = len(one.queue)
        fresh = self.clock.now - one.moved_at < self.stall_timeout
        if waiting and (not fresh or load > limit):
            return 5, waiting
        if load > limit:
            return 4, waiting
        if capacity == 0 or load < capacity:
            return 0, waiting
        if waiting:
            return 2, waiting
        return (1 if fresh else 3), waiting

    # The way of a connection

    def arrive(self, connection: Connection) -> None:
        self.backlog.append(connection)
        if self.full_since < 0:
            self._accept()

    def _accept(self) -> None:
        while self.backlog:
            index = self.pick(self.turn, self.name)
            if index < 0:
                self._become_full()
                return
            self.turn = (index + 1) % len(self.all)
            self._send(index, self.backlog.popleft())

    def _become_full(self) -> None:
        """A worker that takes tells nobody: the dispatcher looks for room again and again."""
        now = self.clock.now
        if self.full_since < 0:
            self.full_since = now
        longest = LOOK_S if self._in_places() else RETRY_MOST_S
        pause = min(max((now - self.full_since) / 16, LOOK_S), longest)
        self.clock.at(now + pause, self._retry)

    def _retry(self, _: None) -> None:
        self._refresh()
        if self.full < len(self.all):
            self.full_since = -1.0
        self._accept()

    def _send(self, index: int, connection: Connection) -> None:
        one = self.all[index]
        if not one.queue:
            one.moved_at = self.clock.now
        one.queue.append((connection, self.clock.now))
        self.load[index] += 1
        if len(one.queue) >= self._limit(one):
            self._set_room(one)
        one.worker.wake()
        if one.queue:
            self._watch_soon(self.clock.now + self.stall_timeout)

    def _set_room(self, one: Watched) -> None:
        room = not one.stalled and len(one.queue) < self._limit(one)
        if room != self.room[one.index]:
            self.room[one.index] = room
            self.full += -1 if room else 1

    def take(self, worker: Worker) -> Connection | None:
        one = self.all[worker.index]
        if not one.queue and not one.probing:
            return None
        one.taken += 1
        one.moved_at = self.clock.now
        one.stalled = one.probing = False  # it takes again: the probe lies before all else
        if not one.queue:
            self._set_room(one)
            return None
        connection, _ = one.queue.popleft()
        one.inflight += 1
        if self._in_places():
            one.took.append(self.clock.now)
        if not self.room[one.index]:
            self._set_room(one)
        return connection

    def closed(self, worker: Worker) -> None:
        self.all[worker.index].inflight -= 1
        self.load[worker.index] -= 1

    # What only time shows

    def _watch_soon(self, when: float) -> None:
        if self.watch_at < 0 or when < self.watch_at:
            self.watch_at = when
            self.clock.at(when, self._watch, when)

    def _watch(self, planned: float) -> None:
        if planned != self.watch_at:
            return  # an earlier look has made it needless
        self.watch_at = -1.0
        turning = empty = 0
        for one in self.all:
            self._note_progress(one)
            if not one.stalled:
                turning += 1
                empty += not one.queue
        for one in reversed(self.all):
            self._look_at(one, turning, empty)
        self._look_again()

    def _note_progress(self, one: Watched) -> None:
        one.progressed = one.taken != one.taken_seen or (not one.stalled and not one.queue)
        if one.progressed:
            self.progress += one.taken - one.taken_seen
            one.taken_seen = one.taken
            one.progress_at = self.clock.now

    def _look_at(self, one: Watched, turning: int, empty: int) -> None:
        if one.progressed:
            one.progress_then = self.progress
        overdue = not one.stalled and bool(one.queue) and self._overdue(one)
        if overdue and (empty or self._is_stuck(one, turning - 1)):
            one.stalled = True
            self._set_room(one)
        if one.stalled:
            self._take_back(one)

    def _overdue(self, one: Watched) -> bool:
        patience = self.stall_timeout * (1 if one.inflight else IDLE_PATIENCE)
        # A real timer is a little late; this one is not.
        return self.clock.now - one.queue[0][1] > patience - 1e-9

    def _is_stuck(self, one: Watched, others: int) -> bool:
        """Nobody's queue is empty, and it took nothing while each of the others took several."""
        since = max(one.progress_at, one.queue[0][1])
        return (
            others > 0
            and self.clock.now - since > STUCK_PATIENCE * self.stall_timeout
            and self.progress - one.progress_then >= STUCK_TAKES * others
        )

    def _take_back(self, one: Watched) -> None:
        name = "round-robin" if self.name == "strict" else self.name
        while one.stalled and one.queue:
            turn = self.move_turn if self.name == "strict" else self.turn
            index = self.pick(turn, name)
            if index < 0:
                return
            connection, _ = one.queue.popleft()
            self.load[one.index] -= 1
            self.record.moved += 1
            if self.name == "strict":
                self.move_turn = (index + 1) % len(self.all)
            else:
                self.turn = (index + 1) % len(self.all)
            self._send(index, connection)
        one.probing = one.stalled

    def _look_again(self) -> None:
        queued = [one.queue[0][1] for one in self.all if one.queue and not one.stalled]
        if not queued and not any(one.stalled for one in self.all):
            return
        now = self.clock.now
        when = now + max(min(self.stall_timeout, INTERVAL_MOST_S), LOOK_S)
        overdue = min(queued, default=when) + self.stall_timeout
        self._watch_soon(max(overdue, now + LOOK_S) if now < overdue < when else when)
