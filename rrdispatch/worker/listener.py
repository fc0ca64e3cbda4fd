"""A channel that looks like a listening socket: code that accepts needs not know better.

Owns taking: one connection per call, counted, with the peer's address from its message. It never
writes on the channel, never shuts it down, and leaves a connection queued when there is no room
for it in the descriptor table.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from rrdispatch import _core, ledger, mutants
from rrdispatch._core.layout import BATCH_MAX

from . import lifeline
from .connection import Connection, decode_peer, protocol_of
from .counts import Counts, Tally
from .place import Bound

# A full descriptor table: the connection is still queued, so try again, soon at first.
NO_ROOM = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
SHORTEST_PAUSE = 0.01
LONGEST_PAUSE = 0.5
_MOST_REFUSED = 100
GREEDY = mutants.enabled("batch-16")
_opening = threading.Lock()


class ListenerClosed(OSError):
    """Nothing comes any more: the worker drains, or the listener was closed."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, "the worker drains: no more connections")


class Listener(socket.socket):
    """Accepts from a channel. ``family`` and addresses are those of the real listening socket."""

    __slots__ = (
        "_bound",
        "_budget",
        "_counts",
        "_fd",
        "_held",
        "_listening",
        "_refused",
        "_rest",
        "_wake",
    )

    def __init__(self, bound: Bound, counts: Counts, listening: Callable[[], None]) -> None:
        super().__init__(
            bound.family, socket.SOCK_STREAM, protocol_of(bound.family), fileno=bound.fd
        )
        self._bound = bound
        self._counts = counts
        self._listening = listening
        self._fd = bound.fd
        self._held: deque[Connection] = deque()
        self._budget: int | None = None
        self._rest = False
        self._refused = 0
        self._wake: int | None = None

    # ---- taking ---------------------------------------------------------------------------------

    def take(self) -> list[Connection]:
        """What one message brings: one connection, or a batch. Never waits.

        BlockingIOError: none waits; ListenerClosed: drained; EMFILE: it is still queued.
        """
        if super().fileno() < 0 or (self._budget is not None and self._budget <= 0):
            self._refuse()
        try:
            taken = _core.take(self._fd)
        except BlockingIOError:
            if self._budget is not None:
                self._budget = 0
                raise ListenerClosed from None
            raise
        except ConnectionAbortedError:
            self._counts.lost()
            raise
        if taken is None:
            # Every sender is gone: the same as a drain that took the last one.
            self._budget = 0
            lifeline.end_group()
            raise ListenerClosed
        if self._budget is not None:
            self._budget -= 1
        fds, peer = taken.fds, decode_peer(taken.peer)
        family, counts = self._bound.family, self._counts
        if len(fds) == 1 and not ledger.opened():
            counts.received_one()
            return [Connection(family, fds[0], peer, Tally(counts))]
        counts.received(len(fds))
        peers = [peer, *[None] * (len(fds) - 1)]
        if ledger.opened():
            return self._traced(fds, peers)
        return [
            Connection(family, fd, peer, Tally(counts)) for fd, peer in zip(fds, peers, strict=True)
        ]

    def _traced(self, fds: list[int], peers: list[Any]) -> list[Connection]:
        from . import traced

        return [
            traced.connection(self._bound.family, fd, peer, self._counts)
            for fd, peer in zip(fds, peers, strict=True)
        ]

    @property
    def channel(self) -> int:
        """The descriptor to watch, without saying that the worker is ready as fileno() does."""
        return self._fd

    def drain(self) -> None:
        """Take at most what waits at this moment; a thread that waits in accept() is woken."""
        if self._budget is None and super().fileno() >= 0:
            self._budget = _core.pending(self._fd)
            if self._wake is not None:
                os.eventfd_write(self._wake, 1)

    @property
    def waiting(self) -> int:
        """Messages in the channel."""
        return _core.pending(self._fd)

    @property
    def drained(self) -> bool:
        """Nothing will be taken any more."""
        return super().fileno() < 0 or (self._budget is not None and self._budget <= 0)

    def _refuse(self) -> NoReturn:
        self._refused += 1
        if self._refused == _MOST_REFUSED and super().fileno() >= 0:
            # A loop that does not want to know: what it polls shall not be readable for ever.
            lifeline.silence(self._fd)
        raise ListenerClosed

    # ---- as a listening socket ------------------------------------------------------------------

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection and its peer's address, waiting as the socket's timeout says."""
        if self._wake is None and self.gettimeout() != 0:
            self._open_wake()
        self._listening()
        if self._held:
            connection = self._held.popleft()
        else:
            first, *others = self._wait() if self.gettimeout() != 0 else self._poll()
            if GREEDY:
                others += self._greedily()
            self._held.extend(others)
            connection = first
        return connection, self._address(connection)

    def _open_wake(self) -> None:
        with _opening:
            # Two threads may come at once: one that waited on a lost one would never be woken.
            if self._wake is None:
                self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def _accept(self) -> tuple[int, Any]:
        """The bare descriptor; its end can't be seen, so it counts as closed."""
        connection, address = self.accept()
        return connection.detach(), address

    def __iter__(self) -> Iterator[tuple[socket.socket, Any]]:
        """Connections until the worker drains."""
        with contextlib.suppress(ListenerClosed):
            while True:
                yield self.accept()

    def _greedily(self) -> list[Connection]:
        more: list[Connection] = []
        with contextlib.suppress(BlockingIOError, ListenerClosed):
            while len(more) < BATCH_MAX - 1:
                more += self.take()
        return more

    def _poll(self) -> list[Connection]:
        """Once per wake-up: event loops accept until nothing waits, and what is taken dies with us.

        So every second call says that nothing waits; the loop comes back as the channel is still
        readable.
        """
        self._rest = not self._rest
        if not self._rest:
            raise BlockingIOError(errno.EAGAIN, "one connection per wake-up")
        try:
            return self.take()
        except ListenerClosed:
            # An event loop would log anything else at every turn.
            self._rest = False
            raise BlockingIOError(errno.EAGAIN, "drained") from None
        except OSError:
            self._rest = False
            raise

    def _wait(self) -> list[Connection]:
        timeout = self.gettimeout()
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = SHORTEST_PAUSE
        while True:
            try:
                return self.take()
            except (BlockingIOError, ConnectionAbortedError):  # noqa: PERF203
                self._until_readable(deadline)
            except OSError as error:
                if super().fileno() < 0:
                    raise ListenerClosed from None  # by another thread, just now
                if error.errno not in NO_ROOM:
                    raise
                if deadline is not None and time.monotonic() >= deadline:
                    raise
                # It is still queued, and the dispatcher may move it to another worker meanwhile.
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _until_readable(self, deadline: float | None) -> None:
        wake = self._wake
        if wake is None or super().fileno() < 0:
            return  # closed meanwhile
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(wake, select.POLLIN)
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        if not poll.poll(left):
            raise TimeoutError("timed out")

    def _address(self, connection: Connection) -> Any:
        try:
            return connection.getpeername()
        except OSError:
            # The client is gone and its address was not told: a server learns it by reading.
            return "" if self._bound.family == socket.AF_UNIX else ("", 0)

    def fileno(self) -> int:
        fd = super().fileno()
        if fd >= 0:
            self._listening()
        return fd

    def listen(self, backlog: int = 0, /) -> None:  # noqa: ARG002 (the primary's listener has one)
        self._listening()

    def getsockname(self) -> Any:
        return self._bound.address

    def getpeername(self) -> Any:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    def bind(self, address: Any, /) -> None:  # noqa: ARG002 (the signature is socket's)
        raise OSError(errno.EINVAL, f"the listener is bound to {self._bound} already")

    def shutdown(self, how: int, /) -> None:
        """Nothing: the primary and the dispatcher hold the same channel."""

    def getsockopt(self, level: int, option: int, size: int = 0, /) -> Any:
        value = _OPTIONS.get((level, option))
        if (level, option) == (socket.SOL_SOCKET, socket.SO_DOMAIN):
            value = int(self._bound.family)
        elif (level, option) == (socket.SOL_SOCKET, socket.SO_PROTOCOL):
            value = protocol_of(self._bound.family)
        elif value is None and level == socket.SOL_SOCKET:
            return super().getsockopt(level, option, *([size] if size else []))
        return struct.pack("i", value or 0)[:size] if size else value or 0

    def setsockopt(self, *args: Any) -> None:
        """Nothing: options of the real listener are the primary's, and a channel bears none.

        SO_PASSCRED on it would push connections out of their messages.
        """

    def dup(self) -> Listener:
        twin = Listener(
            Bound(os.dup(self._fd), self._bound.family, self._bound.address),
            self._counts,
            self._listening,
        )
        twin.settimeout(self.gettimeout())
        twin._budget = self._budget
        return twin

    def __repr__(self) -> str:
        # socket's own asks for fileno(), which would say that the worker is ready.
        return f"<rrdispatch.Listener {self._bound} fd={self._fd}>"

    def _real_close(self, *args: Any) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            os.eventfd_write(wake, 1)
            os.close(wake)
        while self._held:
            self._held.popleft().close()
        super()._real_close(*args)  # type: ignore[misc]


_OPTIONS = {
    (socket.SOL_SOCKET, socket.SO_ACCEPTCONN): 1,
    (socket.SOL_SOCKET, socket.SO_TYPE): int(socket.SOCK_STREAM),
    (socket.SOL_SOCKET, socket.SO_REUSEADDR): 1,
}
