"""What a worker's connections are while a ledger is kept: they note their first byte and their end.

Nothing here is loaded or made otherwise, so that an ordinary connection costs what it did.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from rrdispatch import ledger
from rrdispatch._core.layout import LedgerEvent

from .connection import Connection
from .counts import Counts, Tally


class NotedTally(Tally):
    """A connection on the scoreboard and in the ledger. Uvloop closes the descriptor first, so its
    cookie is read at once.
    """

    __slots__ = ("_answered", "_cookie")

    def __init__(self, counts: Counts, fd: int) -> None:
        super().__init__(counts)
        self._cookie = ledger.cookie(fd)
        self._answered = False

    def answers(self) -> None:
        """A first byte was given to the kernel."""
        if not self._answered:
            self._answered = True
            ledger.note(LedgerEvent.FIRST, self._cookie)

    def close(self) -> None:
        if self._counts is not None and self._pid == os.getpid():
            ledger.note(LedgerEvent.DONE, self._cookie)
        super().close()


class TracedConnection(Connection):
    """A connection whose sending is noted, whoever sends by it."""

    __slots__ = ()

    def answers(self) -> None:
        tally = self._tally
        if tally is not None:
            tally.answers()

    def send(self, *args: Any) -> int:
        sent = super().send(*args)
        self.answers()
        return sent

    def sendall(self, *args: Any) -> None:
        super().sendall(*args)
        self.answers()

    def sendmsg(self, *args: Any) -> int:
        sent = super().sendmsg(*args)
        self.answers()
        return sent


class TracedTransport:
    """A transport that sends past the socket object, as uvloop's do."""

    def __init__(self, transport: Any, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: Any) -> None:
        self._transport.write(data)
        if isinstance(self._connection, TracedConnection):
            self._connection.answers()


def connection(family: socket.AddressFamily, fd: int, peer: Any, counts: Counts) -> Connection:
    """One that was taken just now."""
    return TracedConnection(family, fd, peer, NotedTally(counts, fd))
