"""The primary as a script sees it: Node's semantics over facts. Effects are the engine's.

Everything here runs in the thread that takes the facts, or is called by the script.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple, Protocol

from rrdispatch.node import wire
from rrdispatch.node.emitter import Emitter

WORKER_EVENTS = frozenset(("online", "listening", "message", "disconnect", "exit", "error"))
FAMILIES = {"inet": 4, "inet6": 6, "unix": -1}


class Address(NamedTuple):
    """Where a worker listens. ``address_type``: 4, 6, or -1 for a unix socket."""

    address: str
    port: int
    address_type: int
    fd: int | None = None


class Asked(Protocol):
    """What a worker needs of the primary."""

    def send(self, worker: int, data: bytes) -> bool: ...
    def leave(self, workers: list[Worker]) -> None: ...
    def let_go(self, worker: int) -> None: ...
    def kill(self, worker: int, number: int) -> bool: ...
    def hang_up(self, worker: int) -> None: ...


class ChildProcess:
    """``worker.process``; its three files where ``silent`` or ``stdio`` made pipes of them."""

    def __init__(self, asked: Asked, worker: int) -> None:
        self._asked, self._worker = asked, worker
        self.pid = 0
        self.exit_code: int | None = None
        self.signal_code: str | None = None
        self.connected = True
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.stderr: IO[bytes] | None = None

    def kill(self, number: int | str = "SIGTERM") -> bool:
        """False if it is dead."""
        return self._asked.kill(self._worker, signal_number(number))

    def send(self, message: Any) -> bool:
        return self.connected and self._asked.send(self._worker, wire.message(message))

    def disconnect(self) -> None:
        """Its messages end; a worker that did not expect that finishes what it has, and exits."""
        if self.connected:
            self.connected = False
            self._asked.hang_up(self._worker)


class Worker(Emitter):
    """One worker. ``state``: none, online, listening, disconnected, dead."""

    EVENTS = WORKER_EVENTS

    def __init__(self, asked: Asked, number: int) -> None:
        super().__init__()
        self._asked = asked
        self.id = number
        self.state = "none"
        self.exited_after_disconnect: bool | None = None
        self.process = ChildProcess(asked, number)

    def send(self, message: Any) -> bool:
        """Never waits. False: it is not connected, or much waits already that it has not read."""
        return self.process.send(message)

    def kill(self, number: int | str = "SIGTERM") -> None:
        self.process.kill(number)

    destroy = kill

    def disconnect(self) -> Worker:
        """It gets nothing more, finishes what it has, and exits."""
        self._asked.leave([self])
        return self

    def is_connected(self) -> bool:
        return self.process.connected

    def is_dead(self) -> bool:
        return self.process.exit_code is not None or self.process.signal_code is not None

    def __repr__(self) -> str:
        return f"<Worker {self.id} pid={self.process.pid} {self.state}>"


class Primary:
    """What became of the workers, as facts tell it."""

    def __init__(self, emit: Callable[..., object], settled: Callable[[], None]) -> None:
        """``emit`` is the cluster's; ``settled`` is called when the script has heard of an end."""
        self._emit = emit
        self._settled = settled
        self.workers: dict[int, Worker] = {}
        self.alive: dict[int, Worker] = {}  # also those that were disconnected
        self._awaited: list[tuple[set[int], Callable[[], object] | None]] = []

    def add(self, worker: Worker) -> None:
        self.workers[worker.id] = self.alive[worker.id] = worker

    def forget(self, worker: Worker) -> None:
        """It could not be started."""
        self.workers.pop(worker.id, None)
        self.alive.pop(worker.id, None)

    def take(self, what: str, *facts: Any) -> None:
        """A fact: its name, and what it is about."""
        if what == "error":
            raise facts[0]
        if what in ("setup", "call"):
            facts[0]() if what == "call" else self._emit("setup", facts[0])
            return
        number, *rest = facts
        worker = self.alive.get(number)
        if worker is not None:
            getattr(self, "_" + what)(worker, *rest)

    def when_gone(self, workers: list[Worker], then: Callable[[], object]) -> bool:
        """Calls ``then`` when all of them have ended; False if there is nothing to wait for."""
        left = {worker.id for worker in workers if worker.id in self.alive}
        if left:
            self._awaited.append((left, then))
        return bool(left)

    def _fork(self, worker: Worker) -> None:
        self._emit("fork", worker)

    def _both(self, event: str, worker: Worker, *facts: Any) -> None:
        worker.emit(event, *facts)
        self._emit(event, worker, *facts)

    def _act(self, worker: Worker, line: bytes) -> None:
        try:
            told = wire.read(line)
        except ValueError:
            return  # whoever writes there that is not us is not heard
        if told.get("act") == "online":
            worker.state = "online"
            self._both("online", worker)
        elif told.get("act") == "exited_after_disconnect":
            worker.exited_after_disconnect = True
            if not told.get("now"):
                worker._asked.let_go(worker.id)

    def _message(self, worker: Worker, line: bytes) -> None:
        try:
            told = wire.read(line)
        except ValueError:
            return
        self._both("message", worker, told)

    def _listening(self, worker: Worker, told: Mapping[str, Any]) -> None:
        where = told["address"]
        host, port = (where, -1) if isinstance(where, str) else where[:2]
        worker.state = "listening"
        self._both("listening", worker, Address(host, port, FAMILIES[told["family"]]))

    def _disconnect(self, worker: Worker) -> None:
        worker.process.connected = False
        worker.exited_after_disconnect = bool(worker.exited_after_disconnect)
        worker.state = "disconnected"
        self._both("disconnect", worker)

    def _exit(self, worker: Worker, code: int | None, name: str | None) -> None:
        worker.process.exit_code, worker.process.signal_code = code, name
        if code is None and name is None:
            worker.process.exit_code = -1  # somebody else reaped it
        self.workers.pop(worker.id, None)
        del self.alive[worker.id]
        try:
            for then in self._count_down(worker.id):
                then()
            worker.exited_after_disconnect = bool(worker.exited_after_disconnect)
            worker.state = "dead"
            self._both("exit", worker, code, name)
        finally:
            self._settled()

    def _count_down(self, worker: int) -> list[Callable[[], object]]:
        for left, _ in self._awaited:
            left.discard(worker)
        ready = [then for left, then in self._awaited if not left and then is not None]
        self._awaited = [one for one in self._awaited if one[0]]
        return ready


def signal_number(given: int | str) -> int:
    """ValueError for what is no signal; 0 asks whether it lives."""
    if isinstance(given, str):
        try:
            return int(signal.Signals["SIG" + given.upper().removeprefix("SIG")])
        except KeyError:
            raise ValueError(f"{given!r} is no signal") from None
    return int(given)


class Pipes:
    """A worker's 0, 1 and 2, and what is to be closed of them after the spawn."""

    def __init__(self, process: ChildProcess, wanted: list[Any]) -> None:
        self.fds: list[int] = []
        self._its: list[int] = []
        try:
            for number, what in enumerate([*wanted, *["inherit"] * 3][:3]):
                self.fds.append(self._open(process, number, what))
        except BaseException:
            self.close()
            raise

    def _open(self, process: ChildProcess, number: int, what: Any) -> int:
        if what in ("inherit", None):
            return number if is_open(number) else self._null(number)
        if what == "ignore":
            return self._null(number)
        if what == "pipe":
            return self._pipe(process, number)
        fd: int = what if isinstance(what, int) else what.fileno()
        return fd

    def _null(self, number: int) -> int:
        self._its.append(os.open(os.devnull, os.O_RDWR if number else os.O_RDONLY))
        return self._its[-1]

    def _pipe(self, process: ChildProcess, number: int) -> int:
        read, write = os.pipe2(os.O_CLOEXEC)
        if number == 0:
            self._its.append(read)
            process.stdin = os.fdopen(write, "wb", 0)
            return read
        self._its.append(write)
        ours = os.fdopen(read, "rb")
        if number == 1:
            process.stdout = ours
        else:
            process.stderr = ours
        return write

    def close(self) -> None:
        """Its ends, which it has now."""
        for fd in self._its:
            os.close(fd)
        self._its.clear()


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
