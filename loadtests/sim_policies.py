"""The policies that others have: textbook turn, hash, racing workers, Node's cluster.

Ours are in sim_ours. Handing over and waking take no time here: what is compared is where requests
wait, not what a dispatcher costs (`make bench` measures that).
"""

from __future__ import annotations

import random
from collections import deque

from .sim_engine import Clock, Kind, Record, Worker
from .sim_work import Connection


class Base:
    """What all of them hold."""

    name = ""
    greedy = False  # event loops take all that waits in one iteration

    def begin(self, clock: Clock, workers: list[Worker], kind: Kind, record: Record) -> None:
        self.clock, self.workers, self.kind, self.record = clock, workers, kind, record
        self.start()

    def start(self) -> None:
        """Once the workers are known."""

    def closed(self, worker: Worker) -> None:
        """Nobody counts."""

    def idle(self, worker: Worker) -> None:
        """Nobody minds."""


class Textbook(Base):
    """Worker after worker, whatever they do. What was given stays where it is."""

    name = "textbook turn"

    def start(self) -> None:
        self.queues: list[deque[Connection]] = [deque() for _ in self.workers]
        self.turn = 0

    def pick(self, source: int) -> int:  # noqa: ARG002
        turn = self.turn
        self.turn = (turn + 1) % len(self.workers)
        return turn

    def arrive(self, connection: Connection) -> None:
        index = self.pick(connection.source)
        self.queues[index].append(connection)
        self.workers[index].wake()

    def take(self, worker: Worker) -> Connection | None:
        queue = self.queues[worker.index]
        return queue.popleft() if queue else None


class Hash(Textbook):
    """By the client: SO_REUSEPORT hashes address and port, sticky balancers the address only.

    With as many sources as connections this is the former, with few the latter.
    """

    name = "hash"
    greedy = True

    def start(self) -> None:
        super().start()
        self.rng = random.Random(len(self.workers))
        self.table: dict[int, int] = {}

    def pick(self, source: int) -> int:
        if source not in self.table:
            self.table[source] = self.rng.randrange(len(self.workers))
        return self.table[source]


class Racing(Base):
    """One shared queue: gunicorn, uvicorn and granian with a listening socket for all.

    `bias` is the share of wake-ups that go to whoever is first in the kernel's list of waiters, as
    with epoll; the others go to who has waited longest, as with a blocking accept. It decides the
    split, and with one thread per worker nothing else.
    """

    name = "racing"
    greedy = True

    def __init__(self, bias: float = 1.0) -> None:
        self.bias = bias

    def start(self) -> None:
        self.queue: deque[Connection] = deque()
        self.waiting: dict[int, None] = {worker.index: None for worker in self.workers}
        self.rng = random.Random(0)

    def arrive(self, connection: Connection) -> None:
        self.queue.append(connection)
        while self.queue and self.waiting:
            first = self.rng.random() < self.bias
            index = min(self.waiting) if first else next(iter(self.waiting))
            # One that is busy with a connection that it has looks by itself when it is done.
            del self.waiting[index]
            self.workers[index].wake()

    def take(self, worker: Worker) -> Connection | None:
        if not self.queue:
            return None
        self.waiting.pop(worker.index, None)
        return self.queue.popleft()

    def idle(self, worker: Worker) -> None:
        # A thread pool that took something and has a thread left waits anew, behind the others.
        self.waiting.setdefault(worker.index, None)


class Node(Base):
    """Node's cluster (lib/internal/cluster/round_robin_handle.js).

    A list of workers in the order in which they became free; each holds at most one connection that
    it has not acknowledged, which it does when its event loop turns. The others wait outside.
    """

    name = "node"

    def start(self) -> None:
        self.handles: deque[Connection] = deque()
        self.free: deque[Worker] = deque(self.workers)
        self.sent: list[Connection | None] = [None] * len(self.workers)

    def arrive(self, connection: Connection) -> None:
        self.handles.append(connection)
        if self.free:
            self._handoff(self.free.popleft())

    def _handoff(self, worker: Worker) -> None:
        if not self.handles:
            self.free.append(worker)
            return
        self.sent[worker.index] = self.handles.popleft()
        worker.wake()

    def take(self, worker: Worker) -> Connection | None:
        connection = self.sent[worker.index]
        if connection is not None:
            self.sent[worker.index] = None
            self._handoff(worker)
        return connection
