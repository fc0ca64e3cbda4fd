"""What the benchmark is made of: compiled helpers, takers, dispatchers, a backlog, CPU clocks."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rrdispatch import _core
from rrdispatch._core.layout import ControlKind, Field, SpawnRequest
from rrdispatch.dispatch.process import DispatcherHandle

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
TAKER_SOURCES = ("bench/taker.c", "fdpass.c", "scoreboard.c", "ledger.c", "os_linux.c")
TIMES_OFFSET, TIMES = 1024, 128
WAIT_S = 60.0


def compile_helpers(directory: Path) -> tuple[Path, Path]:
    """The floor and the taker, by the compiler that the benchmark of a C program needs anyway."""
    floor, taker = directory / "floor", directory / "taker"
    flags = ["cc", "-std=gnu11", "-O2", "-D_GNU_SOURCE", f"-I{CSRC}"]
    subprocess.run([*flags, "-o", floor, CSRC / "bench/floor.c"], check=True)
    subprocess.run([*flags, "-o", taker, *(CSRC / name for name in TAKER_SOURCES)], check=True)
    return floor, taker


def cpu_ns(pid: int) -> int:
    """CPU time that a process has used, exact while it sleeps."""
    # The clock id of another process' CPU time: what clock_getcpuclockid(3) computes.
    return time.clock_gettime_ns((~pid << 3) | 2)


def pss_kib(pid: int) -> int:
    """Memory of a process, pages that are shared counted by their share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def children(parent: int) -> list[int]:
    """Processes that this one started and that still run."""
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
    return [int(pid) for pid in listed.split()]


class Backlog:
    """A listening socket with connections that nobody has accepted."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listener.setblocking(False)
        self.clients: list[socket.socket] = []

    def fill(self, size: int) -> None:
        """Clients that are reset at their close, so that no port is left in TIME_WAIT."""
        for _ in range(size):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.connect(self.listener.getsockname())
            self.clients.append(client)

    def empty(self) -> None:
        for client in self.clients:
            client.close()
        self.clients.clear()

    def close(self) -> None:
        self.empty()
        self.listener.close()


@dataclass
class Worker:
    """What a dispatcher holds of a worker, and the worker's page."""

    pidfd: int
    board_fd: int
    sender: int
    receiver: int
    lifeline: tuple[socket.socket, socket.socket]
    board: _core.Scoreboard
    page: mmap.mmap

    @classmethod
    def prepare(cls, slot: int) -> Worker:
        """All but the process."""
        sender, receiver = _core.channel_pair()
        fd = _core.scoreboard_create(slot, 0)
        page = mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ)
        board = _core.Scoreboard(fd)
        return cls(-1, fd, sender, receiver, socket.socketpair(), board, page)

    def received(self) -> int:
        return self.board.load(Field.RECEIVED)

    def latest(self, taken: int) -> tuple[int, int]:
        """When its `taken`-th connection was accepted, and when it took it."""
        accepted, at = struct.unpack_from(
            "=QQ", self.page, TIMES_OFFSET + 16 * ((taken - 1) % TIMES)
        )
        return accepted, at

    def close(self) -> None:
        self.page.close()
        self.board.close()
        for fd in (self.pidfd, self.board_fd, self.sender, self.receiver):
            os.close(fd)
        for end in self.lifeline:
            end.close()


class Takers:
    """Workers that only take, in a few processes.

    In one process each, they sleep again after every take, and most of what grows with their number
    is the kernel waking them; workers with work to do are awake while a backlog is given out.
    """

    def __init__(self, program: Path, workers: int, processes: int) -> None:
        first, *others = sorted(os.sched_getaffinity(0))
        self.workers = [Worker.prepare(slot) for slot in range(workers)]
        self.pids = []
        for number in range(processes):
            mine = self.workers[number::processes]
            fds = [fd for worker in mine for fd in (worker.receiver, worker.board_fd)]
            pid, pidfd = _core.spawn(
                SpawnRequest(
                    program=str(program),
                    arguments=[program.name, str(len(mine))],
                    environment={},
                    fds=[(fd, 3 + index) for index, fd in enumerate(fds)],
                    cores=others or [first],
                )
            )
            self.pids.append(pid)
            for worker in mine:
                worker.pidfd = os.dup(pidfd)
            os.close(pidfd)

    def wait(self, total: int) -> None:
        """Until they have counted `total` connections, by looking now and then."""
        deadline = time.monotonic() + WAIT_S
        while sum(worker.received() for worker in self.workers) < total:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{total} connections were not taken")
            select.select([], [], [], 0.001)

    def close(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for worker in self.workers:
            worker.close()


class Dispatcher:
    """A dispatcher with its takers, used for many backlogs."""

    def __init__(self, kind: str, takers: Takers, batch: int) -> None:
        self.takers = takers
        self.handle = DispatcherHandle.start(kind)
        os.sched_setaffinity(self.handle.pid, [min(os.sched_getaffinity(0))])
        self.total = 0
        self.poll = select.poll()
        self.poll.register(self.handle, select.POLLIN)
        self._wait(ControlKind.STARTED)
        self.backlog = Backlog()
        self.ask(ControlKind.LISTENER_ADD, fds=[self.backlog.listener.fileno()])
        self.ask(ControlKind.SETTINGS, values=(0, 32, 1_000_000_000, 8, 0, 0, 0))
        for slot, worker in enumerate(self.takers.workers):
            fds = [worker.pidfd, worker.board_fd, worker.lifeline[0].fileno()]
            fds += [worker.sender, worker.receiver]
            self.ask(ControlKind.WORKER_ADD, worker=slot + 1, values=(slot, 0), fds=fds)
            self.ask(ControlKind.WORKER_READY, worker=slot + 1, values=(0, batch))

    def ask(self, kind: ControlKind, **message: object) -> None:
        sequence = self.handle.request(kind, **message)  # type: ignore[arg-type]
        self._wait(kind, sequence)

    def _wait(self, kind: ControlKind, sequence: int = 0) -> None:
        while True:
            self.poll.poll(WAIT_S * 1000)
            for answer in self.handle.receive():
                if (answer.kind, answer.sequence) == (kind, sequence):
                    if answer.result < 0:
                        raise OSError(-answer.result, f"{kind.name} of {self.handle.kind}")
                    return

    def run(self, size: int) -> float:
        """CPU nanoseconds per connection of a backlog."""
        os.kill(self.handle.pid, signal.SIGSTOP)
        self.backlog.fill(size)
        before = cpu_ns(self.handle.pid)
        os.kill(self.handle.pid, signal.SIGCONT)
        self.total += size
        self.takers.wait(self.total)
        used = cpu_ns(self.handle.pid) - before
        self.backlog.empty()
        return used / size

    def latencies(self, count: int, pause_s: float) -> tuple[list[int], list[int]]:
        """ns from accept to taken, and from connect to taken, one connection at a time."""
        from_accept, from_connect = [], []
        for _ in range(count):
            before = [worker.received() for worker in self.takers.workers]
            select.select([], [], [], pause_s)
            started = time.monotonic_ns()
            self.backlog.fill(1)
            self.total += 1
            self.takers.wait(self.total)
            self.backlog.empty()
            pairs = zip(self.takers.workers, before, strict=True)
            worker = next(w for w, count in pairs if w.received() > count)
            accepted, taken = worker.latest(worker.received())
            from_accept.append(taken - accepted)
            from_connect.append(taken - started)
        return from_accept, from_connect

    def close(self) -> None:
        self.ask(ControlKind.STOP)
        self.backlog.close()
        self.handle.close()
        os.waitpid(self.handle.pid, 0)
        self.takers.close()


NAIVE = """
import json, os, socket, struct, sys, time
senders = [socket.socket(fileno=int(fd)) for fd in sys.argv[1:]]
listener = socket.socket(fileno=3)
listener.setblocking(False)
messages = [struct.pack("=BBBBIQ48s", 1, 1, 1, 0, 0, 0, b"")]
turn = count = 0
before = time.process_time_ns()
while True:
    try:
        connection, address = listener.accept()
    except BlockingIOError:
        break
    socket.send_fds(senders[turn], messages, [connection.fileno()])
    connection.close()
    turn = (turn + 1) % len(senders)
    count += 1
print(json.dumps([count, time.process_time_ns() - before]))
"""


class Naive:
    """What one writes first: accept, send_fds, close, in turn. Started anew for each backlog."""

    def __init__(self, takers: Takers) -> None:
        self.core = min(os.sched_getaffinity(0))
        self.takers = takers
        self.total = 0

    def run(self, size: int) -> float:
        backlog = Backlog()
        backlog.fill(size)
        workers = self.takers.workers
        numbers = [10 + slot for slot in range(len(workers))]
        pairs = [(w.sender, n) for w, n in zip(workers, numbers, strict=True)]
        count, used = _run_alone(
            [sys.executable, "-I", "-S", "-c", NAIVE, *map(str, numbers)],
            backlog,
            self.core,
            pairs,
        )
        self.total += count
        self.takers.wait(self.total)
        backlog.close()
        return used / count

    def close(self) -> None:
        self.takers.close()


class Floor:
    """accept4 alone."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.core = min(os.sched_getaffinity(0))

    def run(self, size: int) -> float:
        backlog = Backlog()
        backlog.fill(size)
        count, used = _run_alone([str(self.program)], backlog, self.core, [])
        backlog.close()
        return used / count

    def close(self) -> None:
        """Nothing is kept between backlogs."""


def _run_alone(
    command: list[str], backlog: Backlog, core: int, pairs: list[tuple[int, int]]
) -> tuple[int, int]:
    """Run a program with the listener on fd 3; it prints connections and CPU nanoseconds."""
    reading, writing = os.pipe()
    try:
        pid, pidfd = _core.spawn(
            SpawnRequest(
                program=command[0],
                arguments=command,
                environment={},
                fds=[(backlog.listener.fileno(), 3), (writing, 1), (2, 2), *pairs],
                cores=[core],
            )
        )
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb") as output:
        said = output.read()
    os.waitpid(pid, 0)
    os.close(pidfd)
    count, used = json.loads(said) if said.startswith(b"[") else map(int, said.split())
    return count, used


@contextlib.contextmanager
def closing_all(things: list[Floor | Naive | Dispatcher]) -> Iterator[None]:
    """Close what was started, also when starting or measuring failed."""
    try:
        yield
    finally:
        for thing in things:
            thing.close()
