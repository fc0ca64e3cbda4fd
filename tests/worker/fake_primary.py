"""A primary and dispatcher of a few lines, for tests of one worker.

Owns real listening sockets, the channels, the scoreboard, the notify socket and the process. It
hands over connections by ``_core.send`` when a test says so; nothing happens by itself.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rrdispatch import _core
from rrdispatch._core.layout import Field, Message
from rrdispatch.net.listeners import describe
from tests.harness.readable import readable

ROOT = Path(__file__).resolve().parents[2]
BOOT = ROOT / "rrdispatch" / "serve" / "boot.py"
PATIENCE = 60.0


@dataclass
class Said:
    """One datagram of a worker."""

    lines: dict[str, str]

    def error(self) -> dict[str, Any]:
        return dict(json.loads(self.lines["ERROR"]))


@dataclass
class Front:
    """One bound address and its channel."""

    listener: socket.socket
    sending: int
    receiving: int


@dataclass
class FakePrimary:
    """Starts one worker. Use as a context manager."""

    app: dict[str, Any]
    cwd: Path
    binds: list[str] = field(default_factory=lambda: ["inet"])
    python: str = sys.executable
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    program: list[str] | None = None
    folder: Path | None = None  # of unix sockets

    def __enter__(self) -> FakePrimary:
        self.fronts = [self._front(kind, number) for number, kind in enumerate(self.binds)]
        self.scoreboard_fd = _core.scoreboard_create(0, 1)
        self.board = _core.Scoreboard(self.scoreboard_fd)
        self.notify, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.lifeline, theirs_lifeline = socket.socketpair()
        self.heard: list[Said] = []
        self.clients: list[socket.socket] = []
        given = self.given = [self.scoreboard_fd, theirs.fileno(), theirs_lifeline.fileno()]
        given += [front.receiving for front in self.fronts]
        program = self.program or [self.python, *self.arguments, str(BOOT)]
        self.process = subprocess.Popen(
            program,
            cwd=self.cwd,
            env=self._environment(theirs.fileno(), theirs_lifeline.fileno()),
            pass_fds=given,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        theirs.close()
        theirs_lifeline.close()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        out, err = self.process.communicate(timeout=PATIENCE)
        if kind is not None:
            sys.stderr.write(
                f"--- worker's stdout\n{out.decode()}--- worker's stderr\n{err.decode()}"
            )
        self.board.close()
        for client in self.clients:
            client.close()
        self.cut()
        for front in self.fronts:
            front.listener.close()
            os.close(front.receiving)
        os.close(self.scoreboard_fd)
        self.notify.close()
        self.lifeline.close()

    def _front(self, kind: str, number: int) -> Front:
        if kind == "unix":
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str((self.folder or self.cwd) / f"{number}.sock"))
        else:
            inet6 = kind == "inet6"
            listener = socket.socket(socket.AF_INET6 if inet6 else socket.AF_INET)
            listener.bind(("::1" if inet6 else "127.0.0.1", 0))
        listener.listen(512)
        return Front(listener, *_core.channel_pair())

    def _environment(self, notify: int, lifeline: int) -> dict[str, str]:
        listeners = [{"fd": front.receiving, **describe(front.listener)} for front in self.fronts]
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith("RRDISPATCH_")},
            **({"RRDISPATCH_PURE": "1"} if os.environ.get("RRDISPATCH_PURE") == "1" else {}),
            "RRDISPATCH_PROTOCOL": "1",
            "RRDISPATCH_NAME": "test",
            "RRDISPATCH_SLOT": "0",
            "RRDISPATCH_GENERATION": "1",
            "RRDISPATCH_WORKERS": "1",
            "RRDISPATCH_LISTENERS": json.dumps(listeners),
            "RRDISPATCH_SCOREBOARD": str(self.scoreboard_fd),
            "RRDISPATCH_NOTIFY": str(notify),
            "RRDISPATCH_LIFELINE": str(lifeline),
            "RRDISPATCH_APP": json.dumps(self.app),
            **self.environment,
        }

    # ---- what the worker says -------------------------------------------------------------------

    def hear(self, key: str, patience: float = PATIENCE) -> Said:
        """The next datagram with ``key`` in it; fails if the worker ends without it."""
        deadline = time.monotonic() + patience
        while True:
            left = deadline - time.monotonic()
            ready = readable(self.notify, left)
            data = self.notify.recv(65536) if ready else b""
            if not data:
                out, err = self._ended()
                raise AssertionError(f"the worker never said {key}\n{out}\n{err}")
            said = Said(dict(line.split("=", 1) for line in data.decode().split("\n")))
            self.heard.append(said)
            if key in said.lines:
                return said

    def ready(self) -> FakePrimary:
        self.hear("READY")
        return self

    def _ended(self) -> tuple[str, str]:
        self.process.kill()
        out, err = self.process.communicate(timeout=PATIENCE)
        return out.decode(), err.decode()

    # ---- connections ----------------------------------------------------------------------------

    def connect(self, front: int = 0) -> socket.socket:
        """A client's socket; its connection is in the channel when this returns."""
        client = self.knock(front)
        self.hand_over(front)
        return client

    def knock(self, front: int = 0) -> socket.socket:
        """A client's socket, whose connection is still in the kernel's backlog."""
        listener = self.fronts[front].listener
        client = socket.socket(listener.family)
        self.clients.append(client)
        client.settimeout(PATIENCE)
        client.connect(listener.getsockname())
        return client

    def hand_over(self, front: int = 0) -> None:
        connection, peer = self.fronts[front].listener.accept()
        with connection:
            message = Message(accepted_ns=_core.now_ns(), peer=sockaddr(connection.family, peer))
            _core.send(self.fronts[front].sending, message.pack(), [connection.fileno()])

    def connect_many(self, count: int, front: int = 0) -> list[socket.socket]:
        """So many clients, whose connections travel in one message."""
        clients = [self.knock(front) for _ in range(count)]
        pairs = [self.fronts[front].listener.accept() for _ in clients]
        first, peer = pairs[0]
        message = Message(count=count, peer=sockaddr(first.family, peer))
        _core.send(self.fronts[front].sending, message.pack(), [one.fileno() for one, _ in pairs])
        for connection, _ in pairs:
            connection.close()
        return clients

    def pending(self, front: int = 0) -> int:
        return _core.pending(self.fronts[front].receiving)

    def take_back(self, front: int = 0) -> int:
        """Take one message as a reclaimer does; its connections are closed. How many there were."""
        taken = _core.take(self.fronts[front].receiving)
        assert taken is not None
        for fd in taken.fds:
            os.close(fd)
        return len(taken.fds)

    def cut(self) -> None:
        """Every sender is gone."""
        for front in self.fronts:
            if front.sending >= 0:
                os.close(front.sending)
                front.sending = -1

    # ---- the process ----------------------------------------------------------------------------

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        return self.process.wait(patience)

    def output(self) -> tuple[str, str]:
        """stdout and stderr of a worker that has ended or will."""
        out, err = self.process.communicate(timeout=PATIENCE)
        self.process.stdout = self.process.stderr = None
        return out.decode(), err.decode()

    def load(self, name: Field) -> int:
        return self.board.load(name)

    def until(self, name: Field, value: int, patience: float = PATIENCE) -> None:
        """Wait for a number on the scoreboard: a page in memory tells nobody when it changes."""
        deadline = time.monotonic() + patience
        while self.board.load(name) != value:
            if time.monotonic() > deadline:
                raise AssertionError(f"{name.name} is {self.board.load(name)}, not {value}")
            select.select([], [], [], 0.005)


def sockaddr(family: int, peer: Any) -> bytes:
    """``struct sockaddr`` of a peer, as accept4 gives it."""
    head = int(family).to_bytes(2, sys.byteorder)
    if family == socket.AF_INET:
        return head + peer[1].to_bytes(2, "big") + socket.inet_aton(peer[0]) + bytes(8)
    if family == socket.AF_INET6:
        host = socket.inet_pton(family, peer[0])
        return head + peer[1].to_bytes(2, "big") + bytes(4) + host + bytes(4)
    return head
