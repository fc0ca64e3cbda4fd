"""The message of a connection just accepted, with its peer as the ``struct sockaddr`` it was.

accept takes the address apart; it is put together in place, in a buffer where all that never
changes stands already. Owns that buffer. It must not know listeners, channels or workers.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from rrdispatch._core.layout import MESSAGE, MESSAGE_SIZE, PEER_SIZE, PROTOCOL, Kind

Write = Callable[[int, Any], None]

# From the time of accept on: time, family, port, and what comes then.
_TIME = 8
_PEER = 16
_INET = struct.Struct("=QHH4s")
_INET6 = struct.Struct("=QHHI16sI")
_INET_LENGTH, _INET6_LENGTH = 16, 28
_UNIX_HEAD = struct.pack("=H", socket.AF_UNIX)


def _fill(buffer: bytearray, length: int, accepted_ns: int = 0, peer: bytes = b"") -> None:
    MESSAGE.pack_into(buffer, 0, PROTOCOL, Kind.CONNECTION, 1, 0, length, accepted_ns, peer)


def _inet(buffer: bytearray) -> Write:
    _fill(buffer, _INET_LENGTH)
    pack_into, family = _INET.pack_into, int(socket.AF_INET)
    htons, aton = socket.htons, socket.inet_aton

    def write(accepted_ns: int, address: Any) -> None:
        pack_into(buffer, _TIME, accepted_ns, family, htons(address[1]), aton(address[0]))

    return write


def _inet6(buffer: bytearray) -> Write:
    _fill(buffer, _INET6_LENGTH)
    pack_into, family = _INET6.pack_into, int(socket.AF_INET6)
    htons, htonl, pton = socket.htons, socket.htonl, socket.inet_pton

    def write(accepted_ns: int, address: Any) -> None:
        host, port, flow, scope = address
        packed = pton(family, host.partition("%")[0])
        pack_into(buffer, _TIME, accepted_ns, family, htons(port), htonl(flow), packed, scope)

    return write


def _unix(buffer: bytearray) -> Write:
    def write(accepted_ns: int, address: Any) -> None:
        peer = _UNIX_HEAD + (os.fsencode(address) if address else b"")
        _fill(buffer, min(len(peer), PEER_SIZE), accepted_ns, peer)

    return write


_FAMILIES: dict[int, Callable[[bytearray], Write]] = {
    socket.AF_INET: _inet,
    socket.AF_INET6: _inet6,
    socket.AF_UNIX: _unix,
}


def known(family: int) -> bool:
    """Connections of this family can be told of."""
    return family in _FAMILIES


class Letter:
    """The message of one connection after another. ``write(accepted_ns, address)`` is the next."""

    __slots__ = ("_buffer", "parts", "write")

    def __init__(self, family: int) -> None:
        self._buffer = bytearray(MESSAGE_SIZE)
        self.parts = [self._buffer]  # as sendmsg wants it
        self.write = _FAMILIES[family](self._buffer)

    def peer(self) -> bytes:
        """The peer's address in the message written last."""
        return bytes(self._buffer[_PEER : _PEER + self._buffer[4]])


def peer_of(fd: int) -> bytes:
    """The same of a connection that nobody wrote of; nothing if its client is gone (ENOTCONN)."""
    try:
        connection = socket.socket(fileno=fd)
    except OSError:
        return b""
    try:
        address, family = connection.getpeername(), int(connection.family)
    except OSError:
        return b""
    finally:
        connection.detach()
    if not known(family):
        return b""
    letter = Letter(family)
    letter.write(0, address)
    return letter.peer()
