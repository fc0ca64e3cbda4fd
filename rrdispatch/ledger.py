"""The accounting ledger: what became of each connection, by SO_COOKIE, in every process.

A debugging aid for tests: ``RRDISPATCH_LEDGER=/path`` in the primary's environment. Dispatchers,
reclaimers and workers append to one file; whoever reads it may make it before (``create``), and may
read it at any time, also while they append and after any of them was killed. It knows no meaning
of what is noted: that is the reader's business.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import NamedTuple

from rrdispatch import _core
from rrdispatch._core.layout import (
    LEDGER_ENTRY,
    LEDGER_ENTRY_SIZE,
    LEDGER_HEAD,
    LEDGER_HEAD_SIZE,
    LEDGER_MAGIC,
    LEDGER_VERSION,
    LedgerEvent,
    LedgerRole,
)
from rrdispatch.errors import ConfigError

VARIABLE = "RRDISPATCH_LEDGER"
CAPACITY = 1 << 20

_opened = False


def create(path: str | os.PathLike[str], capacity: int = CAPACITY) -> None:
    """An empty ledger. Its pages are there from the start: a full disk would kill who maps it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, LEDGER_HEAD_SIZE + capacity * LEDGER_ENTRY_SIZE)
        os.pwrite(fd, LEDGER_HEAD.pack(LEDGER_MAGIC, LEDGER_VERSION, capacity, 0), 0)
    finally:
        os.close(fd)


def prepare(environ: MutableMapping[str, str] | None = None) -> None:
    """The primary's part: the file exists and its name is good from any folder."""
    source = os.environ if environ is None else environ
    path = source.get(VARIABLE)
    if not path:
        return
    source[VARIABLE] = path = os.path.abspath(path)
    try:
        if not os.path.exists(path):
            create(path)
    except OSError as error:
        raise ConfigError(f"{VARIABLE}: {path}: {error.strerror}") from error


def join(
    role: LedgerRole,
    slot: int = 0,
    generation: int = 0,
    environ: MutableMapping[str, str] | None = None,
) -> None:
    """Append from now on, if the environment says so; children of this process do not."""
    global _opened  # noqa: PLW0603 (one per process)
    path = (os.environ if environ is None else environ).pop(VARIABLE, None)
    if path and not _opened:
        _core.ledger_open(path, role, slot, generation)
        _opened = True


def leave() -> None:
    """Append nothing more."""
    global _opened  # noqa: PLW0603
    _core.ledger_close()
    _opened = False


def opened() -> bool:
    """Is anything noted in this process?"""
    return _opened


class Entry(NamedTuple):
    """What was noted. ``worker`` is 0 where the writer does not know its own id."""

    cookie: int
    ns: int
    worker: int
    pid: int
    generation: int
    slot: int
    detail: int
    event: int


@dataclass(frozen=True)
class Book:
    """What a ledger held when it was read, in the order of time."""

    entries: list[Entry]
    dropped: int = 0  # noted when it was full
    unsaid: int = 0  # begun and not finished: by a writer that was killed, or at work just now


def read(path: str | os.PathLike[str]) -> Book:
    """All that is in it by now."""
    with open(path, "rb") as file:
        magic, version, capacity, reserved = LEDGER_HEAD.unpack(file.read(LEDGER_HEAD.size))
        if (magic, version) != (LEDGER_MAGIC, LEDGER_VERSION):
            raise ValueError(f"{os.fspath(path)} is not a ledger of this version")
        used = min(reserved, capacity)
        file.seek(LEDGER_HEAD_SIZE)
        data = file.read(used * LEDGER_ENTRY_SIZE)
        file.seek(LEDGER_HEAD_SIZE + capacity * LEDGER_ENTRY_SIZE)
        tail = file.read()
    tail_full = len(tail) >= capacity * LEDGER_ENTRY_SIZE
    data += tail[: len(tail) - len(tail) % LEDGER_ENTRY_SIZE]
    rows = [row for row in LEDGER_ENTRY.iter_unpack(data) if row[8]]
    rows.sort(key=lambda row: row[1])
    entries = [Entry._make((*row[:7], row[8])) for row in rows]
    unsaid = len(data) // LEDGER_ENTRY_SIZE - len(rows)
    return Book(entries, max(0, reserved - capacity) + int(tail_full), unsaid)


def note(event: LedgerEvent, cookie: int) -> None:
    """Append one entry in this process' own name."""
    _core.ledger_note(event, cookie)


cookie = _core.ledger_cookie
