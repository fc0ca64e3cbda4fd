"""Is a program at work? By the connections that its processes hold, as the kernel tells them.

For programs that know nothing of us: what they serve is seen from outside only. A connection on
which no byte moved for some seconds counts as idle (keep-alive); when little time is left, one
whose last request was answered does at once. Linux: proc(5), sock_diag(7).
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

IDLE_AFTER = 3.0  # seconds without a byte
HURRY = 0.75  # the part of the time after which a pause is enough, and how long that has to be
PAUSE, SHORTEST = 0.05, 0.01  # then, and at the end
LOOK_EVERY, LOOK_SOON, LOOK_LATE = 0.1, 0.01, 0.5
MOST_COST = 0.1  # of the primary's time
HELD_FOR = 1.0  # who holds what is asked so often: each costs milliseconds
OPEN = ESTABLISHED, CLOSE_WAIT = 1, 8
TABLES = "/proc/net/tcp", "/proc/net/tcp6"
# <linux/inet_diag.h>, <linux/sock_diag.h>, <linux/tcp.h>
SOCK_DIAG, SOCK_DIAG_BY_FAMILY, REQUEST, DUMP, DONE, ERROR = 4, 20, 1, 0x300, 3, 2
HEAD = struct.Struct("=IHHII")
ASK = struct.Struct("=BBBBI48s")
DIAG_SIZE, DIAG_ID = 72, slice(4, 52)
DIAG_QUEUES, DIAG_INODE = 56, 68
DIAG_INFO, LAST_SENT, LAST_RECEIVED, SEGMENTS_IN, SEGMENTS_OUT = 2, 44, 52, 152, 156


@dataclass(frozen=True, slots=True)
class Connection:
    """One of a program's, at one moment."""

    family: int
    name: bytes  # struct inet_diag_sockid
    inode: int
    silent: float  # seconds without a byte
    owes: bool  # what came last is not answered: it is read or waits to be
    unsent: bool  # or not acknowledged

    def is_idle(self, pause: float, answers_later: bool) -> bool:
        """``answers_later``: the program goes on with an answer after it was asked to stop."""
        if self.owes:
            return answers_later and self.silent >= IDLE_AFTER
        return self.silent >= (IDLE_AFTER if self.unsent else pause)


class Watch:
    """Over one worker that is given nothing any more, until it is told to stop at ``by``."""

    def __init__(self, leader: int, ports: Collection[int], signal: int, by: float) -> None:
        self._leader, self._ports = leader, ports
        self._answers_later = catches(leader, signal)
        self._began, self._by = time.monotonic(), by
        self._held: list[Connection] = []
        self._asked_at = float("-inf")
        self.next_look = LOOK_EVERY

    def at_work(self) -> int:
        """Connections, not idle, that processes of its session hold."""
        if not can_look():
            self.next_look = LOOK_LATE
            return 1
        now, spent = time.monotonic(), time.thread_time()
        pause = enough((now - self._began) / max(self._by - self._began, SHORTEST))
        if now - self._asked_at >= HELD_FOR:
            self._held = list(held(self._leader, self._ports))
            self._asked_at = now
        else:
            self._held = list(again(self._held))
        spent = time.thread_time() - spent
        wanted = LOOK_EVERY if pause == IDLE_AFTER else LOOK_SOON
        self.next_look = min(max(wanted, spent / MOST_COST), LOOK_LATE)
        return sum(not one.is_idle(pause, self._answers_later) for one in self._held)


def can_look() -> bool:
    """There are descriptors to look with: without, nobody would seem to hold anything."""
    try:
        for fd in os.pipe():
            os.close(fd)
    except OSError:
        return False
    return True


def enough(passed: float) -> float:
    """Seconds without a byte after an answer, when so much of the time is over."""
    if passed < HURRY:
        return IDLE_AFTER
    return PAUSE - (PAUSE - SHORTEST) * min((passed - HURRY) / (1 - HURRY), 1.0)


def catches(pid: int, signal: int) -> bool:
    """Whether a program has a handler for it: else it ends in the middle of what it does."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    _, _, mask = text.partition("\nSigCgt:")
    return bool(int(mask.split(maxsplit=1)[0], 16) >> (signal - 1) & 1) if mask else True


def held(leader: int, ports: Collection[int]) -> Iterator[Connection]:
    """Connections to these ports that processes of a session hold."""
    found = {one.inode: one for port in ports for one in connections(port)}
    if found:
        mine = {inode for pid in session(leader) for inode in sockets(pid)}
        yield from (one for inode, one in found.items() if inode in mine)


def connections(port: int) -> Iterator[Connection]:
    """All open TCP connections that came to a port. The kernel looks at its whole table."""
    try:
        found = list(_dumped(port))
    except OSError:  # it was built without, or a sandbox has none
        found = list(listed(port))
    yield from found


def _dumped(port: int) -> Iterator[Connection]:
    with _diag() as diag:
        for family in (socket.AF_INET, socket.AF_INET6):
            _ask(diag, family, port.to_bytes(2, "big"), DUMP)
            kind = 0
            while kind != DONE:
                for kind, message in _read(diag):
                    if kind == ERROR:
                        raise OSError("no sock_diag")
                    if kind == SOCK_DIAG_BY_FAMILY:
                        yield from _connection(message)


def listed(port: int) -> Iterator[Connection]:
    """The same by proc(5), which knows no times: each is at work until it is closed."""
    for table in TABLES:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for _, local, _, state, _, _, _, _, _, inode, *_ in map(str.split, lines):
            if int(local.rpartition(":")[2], 16) == port and int(state, 16) in OPEN:
                yield Connection(0, b"", int(inode), 0.0, owes=True, unsent=False)


def again(known: Collection[Connection]) -> Iterator[Connection]:
    """Those that are still open, as they are now; without a name, those that were."""
    named = [one for one in known if one.name]
    yield from (one for one in known if not one.name)
    if not named:
        return
    with _diag() as diag:
        for one in named:
            _ask(diag, one.family, one.name)
            for kind, message in _read(diag):
                if kind == SOCK_DIAG_BY_FAMILY:
                    yield from _connection(message)


def _diag() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, SOCK_DIAG)


def _ask(diag: socket.socket, family: int, name: bytes, flags: int = 0) -> None:
    states = 1 << ESTABLISHED | 1 << CLOSE_WAIT
    ask = ASK.pack(family, socket.IPPROTO_TCP, 1 << (DIAG_INFO - 1), 0, states, name)
    head = HEAD.pack(HEAD.size + len(ask), SOCK_DIAG_BY_FAMILY, REQUEST | flags, 1, 0)
    diag.send(head + ask)


def _read(diag: socket.socket) -> list[tuple[int, bytes]]:
    """(kind, content) of the messages of one datagram."""
    data, found = diag.recv(1 << 16), []
    while len(data) >= HEAD.size:
        length, kind, *_ = HEAD.unpack_from(data)
        if length < HEAD.size:
            break
        found.append((kind, data[HEAD.size : length]))
        data = data[(length + 3) & ~3 :]
    return found


def _connection(message: bytes) -> Iterator[Connection]:
    """None if it is in another state. Times are of the kernel's clock, whose ticks are up to 10 ms:
    what came within one after an answer counts as answered.
    """
    family, state = message[0], message[1]
    unread, unsent = struct.unpack_from("=II", message, DIAG_QUEUES)
    (inode,) = struct.unpack_from("=I", message, DIAG_INODE)
    if inode and state in OPEN:
        fin = int(state == CLOSE_WAIT)  # it is counted as unread, and never is read
        silent, asked = _last(message)
        owes = asked or unread > fin
        yield Connection(family, message[DIAG_ID], inode, silent, owes, bool(unsent))


def _last(message: bytes) -> tuple[float, bool]:
    """By tcp_info: how long ago the last byte went or came, and whether it came."""
    at = DIAG_SIZE
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == DIAG_INFO and length >= 4 + SEGMENTS_OUT + 4:
            info = struct.Struct("=I")
            fields = LAST_SENT, LAST_RECEIVED, SEGMENTS_IN, SEGMENTS_OUT
            sent, received, count_in, count_out = (
                info.unpack_from(message, at + 4 + field)[0] for field in fields
            )
            # Both times begin with the connection.
            asked = received < sent or count_out == 0 < count_in
            return min(sent, received) / 1000, asked
        at += max(4, (length + 3) & ~3)
    return 0.0, False


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
