"""A primary and a dispatcher in one thread, for tests of the shim alone.

It serves RRDISPATCH_SOCKET, makes the real listeners and the channels, and hands connections to
the one worker that there is, once that has said that it waits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrdispatch import _core
from rrdispatch._core.layout import Field, Kind

ROOT = Path(__file__).resolve().parents[2]
SHIM = ROOT / "rrdispatch" / "_core" / "rr-shim.so"

MAGIC = 0x48535252
REQUEST = struct.Struct("=IIII16siiiiiII128s64s")
ANSWER = struct.Struct("=IIiI")
MESSAGE = struct.Struct("=BBBBIQ48s")
LISTEN, READY, OPTION = 1, 2, 3
WORKER = 7


@dataclass(frozen=True)
class Request:
    """What the shim asked for."""

    kind: int
    worker: int
    key: bytes
    pid: int
    backlog: int
    v6only: int
    level: int
    option: int
    address: bytes
    value: bytes

    @classmethod
    def read(cls, data: bytes) -> Request:
        (magic, version, kind, worker, key, pid, backlog, v6only, level, option, size, length,
         address, value) = REQUEST.unpack(data)  # fmt: skip
        assert (magic, version) == (MAGIC, 1)
        return cls(kind, worker, key, pid, backlog, v6only, level, option,
                   address[:size], value[:length])  # fmt: skip


@dataclass
class Place:
    """A real listener, and the channel that stands for it."""

    listener: socket.socket
    sending: int
    receiving: int
    sent: int = 0


@dataclass
class Behaviour:
    """What it does wrong on purpose."""

    refuse: int = 0
    answer: Callable[[bytes], bytes] = bytes
    silent: bool = False
    without_fds: bool = False
    hang_up: int = 0  # requests whose connection is closed without an answer


def sockaddr(address: tuple[Any, ...], family: int) -> bytes:
    host, port = address[:2]
    raw = socket.inet_pton(family, host.partition("%")[0])
    if family == socket.AF_INET:
        return struct.pack("=H", family) + struct.pack("!H", port) + raw + bytes(8)
    return struct.pack("=H", family) + struct.pack("!HI", port, 0) + raw + struct.pack("=I", 0)


def host_and_port(raw: bytes) -> tuple[int, tuple[str, int]]:
    family = struct.unpack_from("=H", raw)[0]
    (port,) = struct.unpack_from("!H", raw, 2)
    host = raw[4:8] if family == socket.AF_INET else raw[8:24]
    return family, (socket.inet_ntop(family, host), port)


@dataclass
class FakePrimary:
    """Start it, run programs with ``environment``, stop it."""

    folder: Path
    abstract: bool = False  # its socket has a name without a path
    gated: bool = True  # connections wait until READY, as they do for a real dispatcher
    behaviour: Behaviour = field(default_factory=Behaviour)
    requests: list[Request] = field(default_factory=list)
    places: dict[bytes, Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.path = f"@rr-shim-{os.urandom(8).hex()}" if self.abstract else f"{self.folder}/s"
        self.key = os.urandom(16)
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._door.bind(self.path.replace("@", "\0") if self.abstract else self.path)
        self._door.listen(16)
        self._board_fd = _core.scoreboard_create(0, 1)
        self.board = _core.Scoreboard(self._board_fd)
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._door, selectors.EVENT_READ, self._asked)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._silenced: list[socket.socket] = []
        self.changed = threading.Condition()
        self._commands: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # ---- for tests ----------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if "PRELOAD" not in name},
            "RRDISPATCH_SOCKET": self.path,
            "RRDISPATCH_KEY": f"{WORKER}:{self.key.hex()}",
        }

    @property
    def preloaded(self) -> dict[str, str]:
        return {**self.environment, "LD_PRELOAD": str(SHIM)}

    def asked(self, kind: int) -> list[Request]:
        return [request for request in self.requests if request.kind == kind]

    def wait(self, condition: Callable[[], bool], limit: float = 60) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, limit), self.requests

    def count(self, what: Field) -> int:
        return self.board.load(what)

    def send_probe(self) -> None:
        """To every channel."""

        def probe() -> None:
            null = os.open(os.devnull, os.O_RDWR)
            for place in self.places.values():
                _core.send(place.sending, MESSAGE.pack(1, Kind.PROBE, 1, 0, 0, 0, b""), [null])
            os.close(null)

        self.do(probe)

    def end_channels(self) -> None:
        """As if primary and dispatcher were gone."""

        def end() -> None:
            for place in self.places.values():
                self._drop(place)
            self.places.clear()

        self.do(end)

    def do(self, action: Callable[[], None]) -> None:
        """In its thread; returns when done."""
        done = threading.Event()

        def command() -> None:
            action()
            done.set()

        self._commands.append(command)
        self._wake.send(b".")
        assert done.wait(60)

    def stop(self) -> None:
        self._commands.append(self._selector.close)
        self._wake.send(b"x")
        self._thread.join(60)
        for place in self.places.values():
            place.listener.close()
            os.close(place.sending)
            os.close(place.receiving)
        for held in (self._door, self._wake, self._woken, *self._silenced):
            held.close()
        self.board.close()
        os.close(self._board_fd)

    # ---- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while self._selector.get_map():
            for key, _ in self._selector.select():
                if key.data is None:
                    self._woken.recv(64)
                    while self._commands:
                        self._commands.pop(0)()
                    break
                key.data()
            with self.changed:
                self.changed.notify_all()

    def _asked(self) -> None:
        connection, _ = self._door.accept()
        if self.behaviour.silent:
            self._silenced.append(connection)
            return
        with connection:
            connection.settimeout(60)
            data = connection.recv(1024)
            if not data:  # its process was ended meanwhile
                return
            request = Request.read(data)
            self.requests.append(request)
            if self.behaviour.hang_up > 0:
                self.behaviour.hang_up -= 1
                return
            result, fds = self._result(request)
            if self.behaviour.without_fds:
                fds = []
            answer = self.behaviour.answer(ANSWER.pack(MAGIC, 1, result, 0))
            # The client may be gone: a test ended it.
            with contextlib.suppress(ConnectionError):
                socket.send_fds(connection, [answer], fds)
        if request.kind == READY and self.gated:
            self._open_gates()

    def _result(self, request: Request) -> tuple[int, list[int]]:
        if self.behaviour.refuse:
            return -self.behaviour.refuse, []
        if (request.worker, request.key) != (WORKER, self.key):
            return -errno.EPERM, []
        try:
            if request.kind == LISTEN:
                return 0, self._listen(request)
            if request.kind == OPTION:
                place = self.places[request.address]
                place.listener.setsockopt(request.level, request.option, request.value)
        except OSError as error:
            return -(error.errno or errno.EIO), []
        return 0, []

    def _listen(self, request: Request) -> list[int]:
        place = self.places.get(request.address)
        if place is None:
            place = self.places[request.address] = self._make(request)
            if not self.gated or self.asked(READY):
                self._watch(place)
        return [place.receiving, self._board_fd]

    def _make(self, request: Request) -> Place:
        family, address = host_and_port(request.address)
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, request.v6only)
            listener.bind(address)
            listener.listen(4096)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        sending, receiving = _core.channel_pair()
        with socket.socket(fileno=os.dup(receiving)) as end:
            end.bind(b"\0rrdispatch.1/%08x/%s/%s" % (
                WORKER, os.urandom(12).hex().encode(), request.address.hex().encode()))  # fmt: skip
        return Place(listener, sending, receiving)

    def _open_gates(self) -> None:
        for place in self.places.values():
            self._watch(place)

    def _watch(self, place: Place) -> None:
        with contextlib.suppress(KeyError):  # it is watched already
            self._selector.register(
                place.listener, selectors.EVENT_READ, lambda: self._dispatch(place)
            )

    def _dispatch(self, place: Place) -> None:
        try:
            connection, peer = place.listener.accept()
        except BlockingIOError:
            return
        with connection:
            raw = sockaddr(peer, place.listener.family)
            message = MESSAGE.pack(1, Kind.CONNECTION, 1, 0, len(raw), time.monotonic_ns(), raw)
            connection.setblocking(True)
            room = select.poll()
            room.register(place.sending, select.POLLOUT)
            while True:
                try:
                    _core.send(place.sending, message, [connection.fileno()])
                    break
                except BlockingIOError:
                    room.poll()
        place.sent += 1

    def _drop(self, place: Place) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(place.listener)
        place.listener.close()
        os.close(place.sending)
        os.close(place.receiving)


@contextlib.contextmanager
def fake_primary(folder: Path, **options: Any) -> Iterator[FakePrimary]:
    primary = FakePrimary(folder, **options)
    try:
        yield primary
    finally:
        primary.stop()
