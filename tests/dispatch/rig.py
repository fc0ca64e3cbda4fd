"""A primary, clients and workers for one dispatcher, all in the hands of a test.

The test is the primary. Every wait is for an event and ends with an error after ``LIMIT``.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

from rrdispatch import _core
from rrdispatch._core.layout import Control, ControlKind, Policy
from rrdispatch.dispatch.process import DispatcherHandle
from rrdispatch.net.addresses import UnixAddress, parse
from rrdispatch.net.channels import Channel
from rrdispatch.net.listeners import ListeningSocket, bind

from .workers import LIMIT, Worker, wait_readable

MS = 1_000_000
SECOND = 1000 * MS
# A stall timeout for tests that are not about stalls: the machine may be slow.
NEVER = 600 * SECOND


class Ping(NamedTuple):
    """The values of PING."""

    now: int
    accepted: int
    sent: int
    moved: int
    accept_errors: int
    lost: int
    abandoned: int
    workers: int
    rounds: int


class Stats(NamedTuple):
    """The values of STATS."""

    sent: int
    pending: int
    inflight: int
    state: int
    stalled: int
    moved_away: int
    picks: int
    capacity: int


class Rig:
    """One dispatcher and everything around it."""

    def __init__(self, kind: str, *, nofile: tuple[int, int] | None = None) -> None:
        self.kind = kind
        self.dispatcher = DispatcherHandle.start(kind, nofile=nofile)
        self.listeners: list[ListeningSocket] = []
        self.workers: list[Worker] = []
        self.clients: list[socket.socket] = []
        self.events: list[Control] = []
        self._answers: dict[int, Control] = {}
        self._fds: dict[int, list[int]] = {}
        self._fds_before: list[int] = []
        self._ids = 0
        self._settings: tuple[int, ...] = ()
        self.ended = False
        started = self.event(ControlKind.STARTED)
        assert started.values[0] == self.dispatcher.pid

    # ---- asking -----------------------------------------------------------------------------

    def pump(self, what: str, deadline: float) -> None:
        """Receive until something came."""
        wait_readable(self.dispatcher.fileno(), what, max(deadline - time.monotonic(), 0.001))
        for message in self.dispatcher.receive():
            if message.sequence == 0 and message.kind >= ControlKind.STARTED:
                self.events.append(message)
            else:
                self._answers[message.sequence] = message
                # An heir counts from 1 again.
                self._fds_before += self._fds.get(message.sequence, [])
                self._fds[message.sequence] = self.dispatcher.take_fds(message.sequence)

    def answer(self, sequence: int) -> Control:
        """The answer to a request."""
        deadline = time.monotonic() + LIMIT
        while sequence not in self._answers:
            self.pump(f"answer {sequence}", deadline)
        return self._answers.pop(sequence)

    def fds_of(self, sequence: int) -> list[int]:
        """What came with an answer; closed with the rig."""
        return self._fds.get(sequence, [])

    def answered(self, sequence: int) -> bool:
        """An answer is there already (a PING's round trip later)."""
        self.ping()
        return sequence in self._answers

    def request(self, kind: ControlKind, **more: Any) -> int:
        """Send a request; the sequence to ask `answer` with."""
        return self.dispatcher.request(kind, **more)

    def ask(self, kind: ControlKind, **more: Any) -> Control:
        """A request that has to succeed."""
        answer = self.answer(self.request(kind, **more))
        assert answer.result == 0, f"{kind.name}: {os.strerror(-answer.result)}"
        return answer

    def refused(self, kind: ControlKind, **more: Any) -> int:
        """The errno of a request that has to fail."""
        answer = self.answer(self.request(kind, **more))
        assert answer.result < 0
        return -answer.result

    def event(self, kind: ControlKind, worker: Worker | None = None) -> Control:
        """The next event of a kind (and worker), which has to come."""
        deadline = time.monotonic() + LIMIT
        while True:
            for event in self.events:
                if event.kind == kind and (worker is None or event.worker == worker.id):
                    self.events.remove(event)
                    return event
            self.pump(kind.name, deadline)

    def count(self, kind: ControlKind) -> int:
        """Events of a kind that have come and were not asked for."""
        self.ping()
        return sum(event.kind == kind for event in self.events)

    def ping(self) -> Ping:
        """The dispatcher's totals."""
        return Ping(*self.ask(ControlKind.PING).values[:9])

    def stats(self, worker: Worker) -> Stats:
        """A worker's numbers."""
        return Stats(*self.ask(ControlKind.STATS, worker=worker.id).values[:8])

    def until(self, condition: Callable[[], bool], what: str = "the condition") -> None:
        """Ask again and again, one round trip of the dispatcher each time."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come true"
            self.ping()

    # ---- setting up -------------------------------------------------------------------------

    def settings(
        self,
        policy: Policy = Policy.ROUND_ROBIN,
        *,
        queue_limit: int = 32,
        stall: int = NEVER,
        band: int = 8,
        heartbeat: int = 0,
        switches: int = 0,
    ) -> None:
        """SETTINGS."""
        self._settings = (policy, queue_limit, stall, band, heartbeat, 0, switches)
        self.ask(ControlKind.SETTINGS, values=self._settings)

    def listen(self, family: str = "inet", *, shared: bool = False) -> ListeningSocket:
        """One listener more."""
        address = {"inet": "127.0.0.1:0", "inet6": "[::1]:0"}.get(family)
        sock = bind(parse(address) if address else UnixAddress(family))
        sock.inherited = shared
        self.hand_over_listener(sock)
        self.listeners.append(sock)
        return sock

    def hand_over_listener(self, sock: ListeningSocket) -> None:
        """LISTENER_ADD."""
        index = self.listeners.index(sock) if sock in self.listeners else len(self.listeners)
        values = (int(sock.inherited),)
        self.ask(ControlKind.LISTENER_ADD, listener=index, values=values, fds=[sock.fileno()])

    def new_worker(
        self,
        slot: int | None = None,
        generation: int = 1,
        *,
        listeners: Iterable[int] | None = None,
    ) -> Worker:
        """A worker that the dispatcher does not know yet; the test takes by itself."""
        numbers = range(len(self.listeners)) if listeners is None else listeners
        self._ids += 1
        slot = len(self.workers) if slot is None else slot
        left, right = os.pipe()
        worker = Worker(
            id=self._ids,
            slot=slot,
            generation=generation,
            channels={number: Channel.create() for number in numbers},
            board_fd=_core.scoreboard_create(slot, generation),
            lifeline=(left, right),
            pidfd=os.pidfd_open(os.getpid()),
        )
        self.workers.append(worker)
        return worker

    def hand_over(self, worker: Worker) -> None:
        """WORKER_ADD."""
        values = (worker.slot, worker.generation, worker.mask())
        self.ask(ControlKind.WORKER_ADD, worker=worker.id, values=values, fds=worker.fds())

    def add_channel(self, worker: Worker, listener: int) -> None:
        """CHANNEL_ADD."""
        channel = worker.channels[listener] = Channel.create()
        fds = [channel.sender, channel.receiver]
        self.ask(ControlKind.CHANNEL_ADD, worker=worker.id, listener=listener, fds=fds)

    def ready(self, worker: Worker, capacity: int = 0, batch: int = 1) -> None:
        """WORKER_READY."""
        self.ask(ControlKind.WORKER_READY, worker=worker.id, values=(capacity, batch))

    def add(
        self,
        count: int = 1,
        *,
        capacity: int = 0,
        batch: int = 1,
        process: bool = False,
        listeners: Collection[int] | None = None,
    ) -> list[Worker]:
        """Workers that are ready."""
        added = []
        for _ in range(count):
            worker = self.new_worker(listeners=listeners)
            if process:
                worker.start()
            self.hand_over(worker)
            self.ready(worker, capacity, batch)
            added.append(worker)
        return added

    # ---- clients ----------------------------------------------------------------------------

    def connect(self, listener: int = 0) -> socket.socket:
        """One client, connected."""
        sock = self.listeners[listener]
        client = socket.socket(sock.family, socket.SOCK_STREAM)
        client.settimeout(LIMIT)
        self.clients.append(client)
        client.connect(sock.getsockname())
        return client

    def connect_fresh(self) -> socket.socket:
        """One client that is accepted by counts which are read after all that was done before."""
        self.ping()
        return self.connect()

    def connect_many(self, count: int, listener: int = 0) -> list[socket.socket]:
        """Clients, connected one after another without waiting for anything."""
        return [self.connect(listener) for _ in range(count)]

    def accepted(self, count: int) -> None:
        """Until so many connections were accepted."""
        self.until(lambda: self.ping().accepted >= count, f"{count} accepted")

    def fds(self) -> list[int]:
        """The numbers of the dispatcher's open descriptors."""
        return sorted(int(name) for name in os.listdir(f"/proc/{self.dispatcher.pid}/fd"))

    def raw(self) -> socket.socket:
        """The control socket, to say nonsense on."""
        duplicate = os.dup(self.dispatcher.fileno())
        return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=duplicate)

    # ---- the end ----------------------------------------------------------------------------

    def wait_end(self) -> int:
        """The exit code of the dispatcher, which has to end."""
        wait_readable(self.dispatcher.pidfd, "the end of the dispatcher")
        _, status = os.waitpid(self.dispatcher.pid, 0)
        self.ended = True
        return os.waitstatus_to_exitcode(status)

    def hang_up(self) -> None:
        """The end of the control socket, as when the primary dies."""
        pidfd, self.dispatcher.pidfd = self.dispatcher.pidfd, -1
        self.dispatcher.close()
        self.dispatcher.pidfd = pidfd

    def kill_dispatcher(self) -> None:
        """SIGKILL; what it held is in the test's hands as well."""
        signal.pidfd_send_signal(self.dispatcher.pidfd, signal.SIGKILL)
        assert self.wait_end() == -signal.SIGKILL
        self.dispatcher.close()

    def replace(self) -> None:
        """Another dispatcher, which gets everything that the old one had."""
        self.dispatcher = DispatcherHandle.start(self.kind)
        self.ended = False
        self.event(ControlKind.STARTED)
        self.ask(ControlKind.SETTINGS, values=self._settings)
        for sock in self.listeners:
            self.hand_over_listener(sock)
        for worker in self.workers:
            self.hand_over(worker)
            if not worker.dead:
                self.ready(worker)

    def close(self) -> None:
        """STOP; the dispatcher has to end with 0. Nothing is left open."""
        try:
            if not self.ended:
                self.ask(ControlKind.STOP)
                assert self.wait_end() == 0
        finally:
            if not self.ended:
                self.kill_dispatcher()
            self.dispatcher.close()
            for fd in chain(self._fds_before, *self._fds.values()):
                os.close(fd)
            things: list[Any] = [*self.clients, *self.workers, *self.listeners]
            for thing in things:
                thing.close()


@contextmanager
def rig(kind: str, **more: Any) -> Iterator[Rig]:
    """A Rig that is taken down whatever happens."""
    made = Rig(kind, **more)
    try:
        yield made
    finally:
        made.close()


def read_all(client: socket.socket) -> bytes:
    """What a client gets until the end."""
    parts = []
    while part := client.recv(100):
        parts.append(part)
    return b"".join(parts)


def answer_of(clients: Sequence[socket.socket]) -> list[str]:
    """The answers of several clients, in order."""
    return [read_all(client).decode() for client in clients]
