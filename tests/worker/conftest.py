"""A listener over a channel in this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from rrdispatch import _core
from rrdispatch._core.layout import Field, Kind, Message
from rrdispatch.worker import lifeline
from rrdispatch.worker.counts import Counts
from rrdispatch.worker.listener import Listener
from rrdispatch.worker.place import Bound

from .fake_primary import sockaddr


@dataclass
class Bench:
    """A channel with its listener, and a real listening socket whose connections it brings."""

    front: socket.socket
    sending: int
    listener: Listener
    board: _core.Scoreboard
    counts: Counts
    said: list[str] = field(default_factory=list)
    clients: list[socket.socket] = field(default_factory=list)

    def connect(
        self, *, peer: bytes | None = None, kept: list[socket.socket] | None = None
    ) -> socket.socket:
        """A client whose connection waits in the channel; ``kept``: a duplicate of that, too."""
        client = socket.socket(self.front.family)
        self.clients.append(client)
        client.settimeout(10)
        client.connect(self.front.getsockname())
        connection, address = self.front.accept()
        with connection:
            known = sockaddr(connection.family, address) if peer is None else peer
            message = Message(accepted_ns=_core.now_ns(), peer=known)
            _core.send(self.sending, message.pack(), [connection.fileno()])
            if kept is not None:
                kept.append(connection.dup())
        return client

    def probe(self) -> None:
        null = os.open("/dev/null", os.O_RDONLY)
        _core.send(self.sending, Message(kind=Kind.PROBE).pack(), [null])
        os.close(null)

    def numbers(self) -> tuple[int, int]:
        return self.board.load(Field.RECEIVED), self.board.load(Field.CLOSED)

    def cut(self) -> None:
        os.close(self.sending)
        self.sending = -1


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    with ExitStack() as stack:

        def make(front: socket.socket) -> Bench:
            front.listen(100)
            sending, receiving = _core.channel_pair()
            fd = _core.scoreboard_create(0, 1)
            counts = Counts(fd)
            board = _core.Scoreboard(fd)
            os.close(fd)
            said: list[str] = []
            listener = Listener(
                Bound(receiving, front.family, front.getsockname()),
                counts,
                lambda: said.append("ready"),
            )
            bench = Bench(front, sending, listener, board, counts, said)
            stack.callback(_end, bench)
            return bench

        yield make


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    front = socket.socket()
    front.bind(("127.0.0.1", 0))
    return make_bench(front)


@pytest.fixture(autouse=True)
def signals(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the worker would have done to its group."""
    sent: list[int] = []
    monkeypatch.setattr(lifeline, "_told", False)
    monkeypatch.setattr(os, "killpg", lambda group, number: sent.append(number))
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    return sent


def _end(bench: Bench) -> None:
    for client in bench.clients:
        client.close()
    bench.listener.close()
    bench.front.close()
    if bench.sending >= 0:
        os.close(bench.sending)
    bench.board.close()
