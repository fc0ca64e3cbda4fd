"""Is a program at work? By the connections that its processes hold, as the kernel tells them.

For programs that know nothing of us: what they serve is seen from outside only. A connection on
which no byte moved for some seconds counts as idle (keep-alive). Linux: proc(5), sock_diag(7).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

IDLE_AFTER = 3.0  # seconds without a byte
ESTABLISHED, CLOSE_WAIT = 1, 8
# <linux/inet_diag.h>, <linux/sock_diag.h>, <linux/tcp.h>
SOCK_DIAG, SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, DONE, ERROR = 4, 20, 0x301, 3, 2
HEAD = struct.Struct("=IHHII")
ASK = struct.Struct("=BBBBI48x")
DIAG_HEAD, DIAG_INODE, DIAG_SIZE = struct.Struct("=BBBB"), 68, 72
DIAG_INFO, LAST_SENT, LAST_RECEIVED, LAST_SEND_OR_ACK = 2, 44, 52, 60


def at_work(leader: int, ports: Collection[int]) -> int:
    """Connections of these local ports, not idle, that processes of a session hold."""
    moving = {inode for inode, idle in connections(ports) if idle < IDLE_AFTER}
    if not moving:
        return 0
    return len({inode for pid in session(leader) for inode in sockets(pid)} & moving)


def connections(ports: Collection[int]) -> Iterator[tuple[int, float]]:
    """(inode, seconds without a byte) of each open TCP connection that came to one of the ports."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, SOCK_DIAG) as diag:
        for family in (socket.AF_INET, socket.AF_INET6):
            states = 1 << ESTABLISHED | 1 << CLOSE_WAIT
            ask = ASK.pack(family, socket.IPPROTO_TCP, 1 << (DIAG_INFO - 1), 0, states)
            head = HEAD.pack(HEAD.size + len(ask), SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, 1, 0)
            diag.send(head + ask)
            for message in _messages(diag):
                (port,) = struct.unpack_from("!H", message, DIAG_HEAD.size)
                (inode,) = struct.unpack_from("=I", message, DIAG_INODE)
                if port in ports and inode:
                    yield inode, _idle(message)


def _messages(diag: socket.socket) -> Iterator[bytes]:
    while True:
        data = diag.recv(1 << 16)
        while len(data) >= HEAD.size:
            length, kind, *_ = HEAD.unpack_from(data)
            if kind in (DONE, ERROR) or length < HEAD.size:
                return
            yield data[HEAD.size : length]
            data = data[(length + 3) & ~3 :]


def _idle(message: bytes) -> float:
    """By tcp_info: how long ago data was sent or received last."""
    at = DIAG_SIZE
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == DIAG_INFO and length >= 4 + LAST_SEND_OR_ACK:
            (sent,) = struct.unpack_from("=I", message, at + 4 + LAST_SENT)
            (received,) = struct.unpack_from("=I", message, at + 4 + LAST_RECEIVED)
            return float(min(sent, received)) / 1000
        at += max(4, (length + 3) & ~3)
    return 0.0


def session(leader: int) -> Iterator[int]:
    """Processes of the session that a worker began."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and _session_of(entry.name) == leader:
            yield int(entry.name)


def _session_of(pid: str) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[3])


def sockets(pid: int) -> Iterator[int]:
    """Inodes of the sockets that a process holds."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            yield int(target[8:-1])
