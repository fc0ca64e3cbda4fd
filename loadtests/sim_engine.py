"""The clock, the workers and the record of what each request waited. Knows no policy.

A heap of (time, number, action, argument) and nothing else: there are two events per request, and
what a policy decides is a call within one of them.
"""

from __future__ import annotations

import heapq
import itertools
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .sim_work import Connection, Work

DONE = -1.0  # what is left of a request that has only its answer to send


class Policy(Protocol):
    """Where connections wait, and who gets them."""

    name: str
    greedy: bool  # event loops take all that waits in one iteration

    def begin(self, clock: Clock, workers: list[Worker], kind: Kind, record: Record) -> None:
        """Before the first connection."""

    def arrive(self, connection: Connection) -> None:
        """A client has connected."""

    def take(self, worker: Worker) -> Connection | None:
        """What this worker finds when it looks for a connection."""

    def closed(self, worker: Worker) -> None:
        """One of its connections has ended."""

    def idle(self, worker: Worker) -> None:
        """It found nothing, and will not look again until it is woken."""


class Clock:
    """Actions in order of time; of the same moment, in the order in which they were planned."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._number = itertools.count()

    def at(self, when: float, action: Callable[[Any], None], argument: Any = None) -> None:
        heapq.heappush(self._heap, (when, next(self._number), action, argument))

    def run(self) -> None:
        heap, pop = self._heap, heapq.heappop
        while heap:
            self.now, _, action, argument = pop(heap)
            action(argument)


@dataclass
class Record:
    """What came out of a run. Waiting = time until the answer, less the request's own work."""

    waits: array[float]  # seconds, by number of the request
    connections: list[int]  # per worker
    moved: int = 0
    seconds: float = 0.0


class Worker:
    """One process. Its kinds differ in how many requests they work on, and when they take."""

    def __init__(self, index: int, clock: Clock, policy: Policy, record: Record) -> None:
        self.index = index
        self.clock = clock
        self.policy = policy
        self.record = record
        self.inside: deque[tuple[Connection, float]] = deque()  # requests that wait in here
        self._turning = False

    def wake(self) -> None:
        """Work and take as long as there is something that it can do now."""
        if self._turning:
            return
        self._turning = True
        self._turn()
        self._turning = False

    def _turn(self) -> None:
        raise NotImplementedError

    def _take(self) -> Connection | None:
        connection = self.policy.take(self)
        if connection is not None:
            self.record.connections[self.index] += 1
        return connection

    def _answer(self, connection: Connection) -> None:
        """The request under way is answered; the client asks again, or the connection ends."""
        at, keep = connection.at, len(connection.demands)
        own = connection.demands[at] + connection.awaits[at]
        waited = self.clock.now - connection.asked - own
        self.record.waits[connection.number * keep + at] = waited if waited > 0 else 0.0
        connection.at = at + 1
        if at + 1 == keep:
            self.policy.closed(self)
        else:
            self.clock.at(self.clock.now + connection.pauses[at], self._ask, connection)

    def _ask(self, connection: Connection) -> None:
        connection.asked = self.clock.now
        self.inside.append((connection, connection.demands[connection.at]))
        self.wake()


class Threads(Worker):
    """A thread per request, `count` of them; takes only while one is free. WSGI, `def serve`.

    A connection that is kept alive holds no thread between its requests, as in waitress.
    """

    def __init__(self, *parts: Any, count: int = 1) -> None:
        super().__init__(*parts)
        self.free = count

    def _turn(self) -> None:
        while self.free:
            if self.inside:
                connection, demand = self.inside.popleft()
            else:
                taken = self._take()
                if taken is None:
                    self.policy.idle(self)
                    return
                connection, demand = taken, taken.demands[0]
            self.free -= 1
            # A thread that waits for others is as busy as one that computes.
            ends = self.clock.now + demand + connection.awaits[connection.at]
            self.clock.at(ends, self._end, connection)

    def _end(self, connection: Connection) -> None:
        self.free += 1
        self._turning = True  # its close must not make it look twice
        self._answer(connection)
        self._turning = False
        self.wake()


class Loop(Worker):
    """An event loop: an iteration runs all that is ready, and takes up to `greed` connections.

    What it took it starts in the next iteration: while a handler blocks, that is in the loop's
    hand, out of anybody's reach. While a handler awaits, the loop goes on and takes more.
    """

    def __init__(self, *parts: Any, greed: int = 1) -> None:
        super().__init__(*parts)
        self.greed = greed
        self.busy = False
        self._ready: deque[tuple[Connection, float]] = deque()

    def _turn(self) -> None:
        while not self.busy:
            if self._ready:
                self._step(*self._ready.popleft())
                continue
            self._ready, self.inside = self.inside, self._ready
            for _ in range(self.greed):
                taken = self._take()
                if taken is None:
                    break
                self.inside.append((taken, taken.demands[0]))
            if not self._ready and not self.inside:
                self.policy.idle(self)
                return

    def _step(self, connection: Connection, demand: float) -> None:
        if demand == DONE:
            self._answer(connection)
            return
        self.busy = True
        self.clock.at(self.clock.now + demand, self._blocked, connection)

    def _blocked(self, connection: Connection) -> None:
        """The blocking part is over."""
        self.busy = False
        awaits = connection.awaits[connection.at]
        if awaits:
            self.clock.at(self.clock.now + awaits, self._resume, connection)
        else:
            self._turning = True
            self._answer(connection)
            self._turning = False
        self.wake()

    def _resume(self, connection: Connection) -> None:
        self.inside.append((connection, DONE))
        self.wake()


@dataclass(frozen=True)
class Kind:
    """What the workers are: `threads` each, or event loops (0 threads)."""

    threads: int = 1

    @property
    def servers(self) -> int:
        """Requests that one of them works on at once."""
        return self.threads or 1

    @property
    def capacity(self) -> int:
        """What it says to the dispatcher; event loops don't know theirs."""
        return self.threads

    def build(self, index: int, clock: Clock, policy: Policy, record: Record) -> Worker:
        if self.threads:
            return Threads(index, clock, policy, record, count=self.threads)
        return Loop(index, clock, policy, record, greed=1_000_000 if policy.greedy else 1)


def simulate(work: Work, workers: int, kind: Kind, policy: Policy) -> Record:
    """Run the whole stream, until its last request is answered."""
    clock = Clock()
    record = Record(array("d", [-1.0]) * (work.count * work.keep), [0] * workers)
    built = [kind.build(index, clock, policy, record) for index in range(workers)]
    policy.begin(clock, built, kind, record)
    arrivals = work.connections()

    def arrive(connection: Connection | None) -> None:
        if connection is not None:
            connection.asked = clock.now
            policy.arrive(connection)
        following = next(arrivals, None)
        if following is not None:
            clock.at(following[0], arrive, following[1])

    arrive(None)
    clock.run()
    record.seconds = clock.now
    if min(record.waits) < 0:
        lost = sum(each < 0 for each in record.waits)
        raise RuntimeError(f"{policy.name}: {lost} requests were never answered")
    return record
