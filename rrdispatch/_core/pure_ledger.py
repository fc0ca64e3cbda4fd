"""The ledger without the C core: entries appended behind the part of the file that the C maps.

Python has no atomic add between processes. An append by ``write`` with O_APPEND is whole or absent
wherever its writer is killed, so no lock is needed; it costs a system call per entry. Owns the
descriptor. Everything here does nothing while no ledger is open.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Sequence
from typing import NamedTuple

from .layout import (
    LEDGER_ENTRY,
    LEDGER_ENTRY_SIZE,
    LEDGER_HEAD,
    LEDGER_HEAD_SIZE,
    LEDGER_MAGIC,
    LEDGER_VERSION,
    LedgerEvent,
    LedgerRole,
)

_SO_COOKIE = 57


class Who(NamedTuple):
    """A worker as the ledger names it; id 0 = not known here."""

    id: int = 0
    slot: int = 0
    generation: int = 0


class _Journal(NamedTuple):
    fd: int
    limit: int  # of the file's size
    role: int
    who: Who


_journal: _Journal | None = None


def opened() -> bool:
    """Is anything noted in this process?"""
    return _journal is not None


def fds() -> list[int]:
    """What a helper that closes everything has to keep."""
    return [] if _journal is None else [_journal.fd]


def ledger_open(path: str, role: int, slot: int = 0, generation: int = 0) -> None:
    """Append to this ledger from now on."""
    global _journal  # noqa: PLW0603 (one per process)
    if _journal is not None:
        raise OSError(errno.EBUSY, "a ledger is open already")
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        head = os.pread(fd, LEDGER_HEAD.size, 0).ljust(LEDGER_HEAD.size, b"\0")
        magic, version, capacity, _ = LEDGER_HEAD.unpack(head)
        fixed = LEDGER_HEAD_SIZE + capacity * LEDGER_ENTRY_SIZE
        if (magic, version) != (LEDGER_MAGIC, LEDGER_VERSION) or os.fstat(fd).st_size < fixed:
            raise OSError(errno.EINVAL, "not a ledger of this version")
    except OSError:
        os.close(fd)
        raise
    limit = fixed + capacity * LEDGER_ENTRY_SIZE
    _journal = _Journal(fd, limit, role, Who(0, slot, generation))
    ledger_note(LedgerEvent.OPENED, 0, role)


def ledger_close() -> None:
    """Note nothing more; a second close does nothing."""
    global _journal  # noqa: PLW0603
    if _journal is not None:
        os.close(_journal.fd)
        _journal = None


def ledger_cookie(fd: int) -> int:
    """The kernel's number of a socket, the same in every process; 0 if it cannot be read."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return 0  # or the duplicate would stay open
        sock = socket.socket(fileno=os.dup(fd))
    except OSError:
        return 0
    with sock:
        try:
            return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), "little")
        except OSError:
            return 0


def ledger_note(event: int, cookie: int = 0, detail: int = 0) -> None:
    """Append one entry in this process' own name."""
    if _journal is not None:
        append(event, time.monotonic_ns(), cookie, _journal.who, detail)


def append(event: int, ns: int, cookie: int, who: Who, detail: int = 0) -> None:
    """Append one entry. A ledger that is full stays as it is: its size says so."""
    journal = _journal
    if journal is None or os.fstat(journal.fd).st_size >= journal.limit:
        return
    entry = LEDGER_ENTRY.pack(
        cookie, ns, who.id, os.getpid(), who.generation & 0xFFFF, who.slot & 0xFFFF,
        detail & 0xFFFF, 0, event,
    )  # fmt: skip
    os.write(journal.fd, entry)


def reclaims_for(who: Who) -> None:
    """This process takes back from that worker from now on."""
    global _journal  # noqa: PLW0603
    if _journal is not None:
        _journal = _journal._replace(role=LedgerRole.RECLAIMER, who=who)


def dispatches() -> None:
    """It is the dispatcher again: it has taken back without a helper."""
    global _journal  # noqa: PLW0603
    if _journal is not None:
        _journal = _journal._replace(role=LedgerRole.DISPATCHER, who=Who())


def taking(count: int) -> None:
    """About to receive a message: a process that was killed then has left this alone."""
    ledger_note(LedgerEvent.TAKING, 0, count)


def took(fds: Sequence[int]) -> None:
    """What came of it; the last one of a message closes what ``taking`` has opened."""
    if _journal is None:
        return
    if not fds:
        ledger_note(LedgerEvent.TOOK_NOTHING)
    moved = _journal.role == LedgerRole.RECLAIMER
    event = LedgerEvent.MOVED if moved else LedgerEvent.TAKEN
    for number, fd in enumerate(fds, 1):
        ledger_note(event, ledger_cookie(fd), int(number == len(fds)))
