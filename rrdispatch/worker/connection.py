"""A connection that came through a channel: a socket that counts its end and knows its peer.

It owns its descriptor. The peer's address is the one that the dispatcher saw at accept:
``getpeername`` fails for a client that is gone.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from .counts import Tally

_TCP_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def protocol_of(family: int) -> int:
    """asyncio sets TCP_NODELAY only on sockets that say they are TCP."""
    return socket.IPPROTO_TCP if family in _TCP_FAMILIES else 0


def decode_peer(peer: bytes) -> Any:
    """A ``struct sockaddr`` as Python writes addresses; None if it is not known."""
    if len(peer) < 2:
        return None
    family = int.from_bytes(peer[:2], sys.byteorder)
    if family == socket.AF_INET and len(peer) >= 8:
        return socket.inet_ntop(family, peer[4:8]), int.from_bytes(peer[2:4], "big")
    if family == socket.AF_INET6 and len(peer) >= 28:
        port, flow = struct.unpack("!HI", peer[2:8])
        scope = int.from_bytes(peer[24:28], sys.byteorder)
        return socket.inet_ntop(family, peer[8:24]), port, flow, scope
    if family == socket.AF_UNIX:
        return peer[2:].split(b"\0", 1)[0].decode(errors="surrogateescape")
    return None


class Connection(socket.socket):
    """An accepted connection. Closed once on the scoreboard, however it ends."""

    __slots__ = ("_peer", "_tally", "family", "on_closed")

    # Loops ask for both several times, and socket's own are looked up in an enumeration each time.
    family: socket.AddressFamily
    type = socket.SOCK_STREAM

    def __init__(self, family: socket.AddressFamily, fd: int, peer: Any, tally: Tally) -> None:
        super().__init__(family, socket.SOCK_STREAM, protocol_of(family), fileno=fd)
        self.family = family
        self._peer = peer
        self._tally: Tally | None = tally
        self.on_closed: Callable[[], None] | None = None

    @property
    def peer(self) -> Any:
        """The address that the dispatcher saw, or None."""
        return self._peer

    def getpeername(self) -> Any:
        return super().getpeername() if self._peer is None else self._peer

    def _real_close(self, *args: Any) -> None:
        # close() comes here when the last makefile() is closed too.
        self.count_closed()
        super()._real_close(*args)  # type: ignore[misc]

    def detach(self) -> int:
        """Give the descriptor away. Its end can't be seen any more, so it counts as closed now."""
        self.count_closed()
        return super().detach()

    def hand_over(self) -> tuple[int, Tally]:
        """Give the descriptor away together with the duty to count its end."""
        tally, self._tally = self._tally, None
        assert tally is not None
        return super().detach(), tally

    def dup(self) -> socket.socket:  # type: ignore[override]
        """A plain socket: the end of this one is what counts."""
        return socket.socket(self.family, self.type, self.proto, fileno=socket.dup(self.fileno()))

    def count_closed(self) -> None:
        """It is about to be closed: say so before the client can see it. Once is enough."""
        tally, self._tally = self._tally, None
        if tally is not None:
            tally.close()
            if self.on_closed is not None:
                self.on_closed()

    def __del__(self) -> None:
        # Collected without close(): the C finalizer closes the descriptor, so it is counted here.
        if getattr(self, "_tally", None) is not None:
            self.count_closed()
        super().__del__()  # type: ignore[misc]
