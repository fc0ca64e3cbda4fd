"""Who reset a connection: the kernel before anybody had it, or somebody who had it.

Linux without "inet: Avoid ehash lookup race in inet_ehash_insert()" (commit 1532ed0d0753) takes a
request out of its table and puts the connection in as two steps. Another segment of that client
which another CPU looks up in between finds neither: the listener answers it with a reset, and the
connection is there all the same. Both segments on different CPUs at once: a client of this machine
whose SYN was sent again.

Such a reset answers a segment, so it has no ACK flag; one that a close sends has it. And the
connection lives on: what it sends later is refused by a kernel whose client is gone.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_STATISTICS, PACKET_OUTGOING = 263, 6, 4
ETH_P_IP = 0x0800
RST, ACK = 0x04, 0x10
ESTABLISHED = "01"  # in /proc/net/tcp
# A classic filter: TCP, no fragment, a RST; of such the first 64 bytes.
FILTER = (
    (0x30, 0, 0, 0xFFFFF004),  # SKF_AD_PKTTYPE: the loopback shows each packet twice
    (0x15, 7, 0, PACKET_OUTGOING),
    (0x30, 0, 0, 9),  # the protocol
    (0x15, 0, 5, socket.IPPROTO_TCP),
    (0x28, 0, 0, 6),
    (0x45, 3, 0, 0x1FFF),  # where in the datagram the fragment begins
    (0xB1, 0, 0, 0),  # the length of the IP head
    (0x50, 0, 0, 13),  # the flags
    (0x45, 0, 1, RST),
    (0x06, 0, 0, 64),
    (0x06, 0, 0, 0),
)


class Reset(NamedTuple):
    """Addresses as ``127.0.0.1:8000``."""

    source: str
    to: str
    answers: bool  # a segment, without ACK


class Resets:
    """All resets on the loopback of this network namespace. PermissionError without CAP_NET_RAW."""

    def __init__(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, kind, 0)
        program = b"".join(struct.pack("HBBI", *step) for step in FILTER)
        held = ctypes.create_string_buffer(program)
        head = struct.pack("HP", len(FILTER), ctypes.addressof(held))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, head)
        with suppress(PermissionError):  # else as many as there is room for
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 22)
        self._socket.bind(("lo", ETH_P_IP))
        self.seen: list[Reset] = []
        self.whole = True  # nothing came for which there was no room

    def look(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self.seen.append(parsed(self._socket.recv(64)))
        counted = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self.whole &= not struct.unpack("II", counted)[1]

    def close(self) -> None:
        self._socket.close()


@contextmanager
def watching_resets() -> Iterator[Resets | None]:
    """None: without CAP_NET_RAW nobody can tell."""
    try:
        resets = Resets()
    except PermissionError:
        yield None
        return
    try:
        yield resets
    finally:
        resets.close()


def parsed(packet: bytes) -> Reset:
    tcp = 4 * (packet[0] & 15)
    source, to = (socket.inet_ntoa(packet[at : at + 4]) for at in (12, 16))
    ports = struct.unpack_from("!HH", packet, tcp)
    return Reset(f"{source}:{ports[0]}", f"{to}:{ports[1]}", not packet[tcp + 13] & ACK)


def by_the_kernel(client: str, server: str, seen: list[Reset], alive: set[str]) -> bool:
    """Only the listener can have reset it: the server's end of it was never closed before.

    ``alive``: the clients whose connections the server has still (``established``).
    """
    there = [each for each in seen if (each.source, each.to) == (server, client)]
    if not there or not there[0].answers:
        return False
    after = seen[seen.index(there[0]) :]
    return client in alive or any((each.source, each.to) == (client, server) for each in after)


def established(server: str) -> set[str]:
    """The clients of all connections that are open at the server's end."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    found = [row for row in rows if row[3] == ESTABLISHED]
    return {address(row[2]) for row in found if address(row[1]) == server}


def address(text: str) -> str:
    """As in /proc/net/tcp: the address as the machine's own number, in hex."""
    host, port = text.split(":")
    return f"{socket.inet_ntoa(struct.pack('=I', int(host, 16)))}:{int(port, 16)}"
