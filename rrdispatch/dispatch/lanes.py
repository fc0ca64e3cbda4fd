"""One channel as the dispatcher uses it: it sends, counts what waits and since when.

Owns both ends' descriptors. It must not know workers or policies. O_NONBLOCK is shared with the
worker, so nothing here sets it: every call says MSG_DONTWAIT.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import termios
from collections import deque
from dataclasses import dataclass

from rrdispatch._core.layout import MESSAGE, MESSAGE_SIZE, PEER_SIZE, PROTOCOL, Kind

MS = 1_000_000

# More messages than ever wait in a channel with the default send buffer: time to forget some.
RING = 1024

_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_ONE = struct.Struct("i")
_NO_COUNT = b"\0\0\0\0"
# One descriptor as sendmsg wants it, written anew for each connection.
_DESCRIPTOR = array.array("i", [0])
_ONE_RIGHT = [(int(socket.SOL_SOCKET), int(socket.SCM_RIGHTS), _DESCRIPTOR)]


@dataclass(slots=True)
class Hand:
    """Connections that have no place yet; whoever holds it owns the fds."""

    fds: list[int]
    accepted_ns: int
    peer: bytes
    lane: int
    flags: int = 0
    source: int = -1  # id of the worker that it was taken back from


class Lane:
    """The sending end, a duplicate of the receiving end, and the send times of what may wait.

    ``waiting`` is the number of connections in there, as of the last ``queued``.
    """

    __slots__ = ("left", "receiver", "reclaimed", "ring", "sender", "sendmsg", "waiting")

    def __init__(self, sender: int, receiver: int, now: int) -> None:
        self.sender = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=sender)
        self.receiver = receiver
        self.sendmsg = self.sender.sendmsg
        waiting = self._waiting()
        # (send time, connections) of each message that may wait. What is found here was sent by a
        # dispatcher before us: it counts as sent now.
        self.ring: deque[tuple[int, int]] = deque([(now, 1)] * waiting)
        self.waiting = waiting
        self.left = 0  # messages that are not in there any more
        self.reclaimed = 0  # and those of them that a helper took

    def _waiting(self) -> int:
        count = fcntl.ioctl(self.receiver, termios.FIONREAD, _NO_COUNT)
        return int(_ONE.unpack(count)[0]) // MESSAGE_SIZE

    def queued(self) -> int:
        """Messages that wait, exactly; forgets the send times of those that left."""
        ring = self.ring
        if not ring:
            return 0
        waiting = self._waiting()
        gone = len(ring) - waiting
        for _ in range(gone):
            self.waiting -= ring.popleft()[1]
        if gone > 0:
            self.left += gone
        return waiting

    def oldest(self) -> int:
        """When the connection that waits longest was sent, as of the last ``queued``; 0: none."""
        if self.ring and self.ring[0][1]:
            return self.ring[0][0]
        return next((sent_ns for sent_ns, count in self.ring if count), 0)

    def taken(self) -> int:
        """Messages that the worker took itself, as of the last ``queued``."""
        return self.left - self.reclaimed

    def send_one(self, fd: int, accepted_ns: int, message: list[bytearray]) -> None:
        """Send one connection; the fd stays the caller's. OSError leaves everything as it was."""
        _DESCRIPTOR[0] = fd
        self.sendmsg(message, _ONE_RIGHT, _FLAGS)
        ring = self.ring
        ring.append((accepted_ns, 1))
        self.waiting += 1
        if len(ring) > RING:
            self.queued()

    def send_hand(self, hand: Hand, now: int) -> None:
        """Send all connections of a hand in one message; the fds stay the caller's."""
        self._send(Kind.CONNECTION, hand, now, len(hand.fds))

    def send_probe(self, null: int, now: int) -> None:
        """Send a duplicate of /dev/null, which the receiver closes when it takes again."""
        self._send(Kind.PROBE, Hand([null], now, b"", 0), now, 0)

    def _send(self, kind: Kind, hand: Hand, now: int, connections: int) -> None:
        length = min(len(hand.peer), PEER_SIZE)
        head = (PROTOCOL, kind, len(hand.fds), hand.flags, length, hand.accepted_ns, hand.peer)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", hand.fds))]
        self.sendmsg([MESSAGE.pack(*head)], rights, _FLAGS)
        self.ring.append((now, connections))
        self.waiting += connections

    def close(self) -> None:
        """Close both ends."""
        self.sender.close()
        os.close(self.receiver)
