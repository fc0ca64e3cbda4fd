"""Which fds a process holds, by kind: a leak shows as a number, a wrong holder as a name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.harness.servers import wait_until

_UNIX_TYPES = {"0001": "stream", "0002": "dgram", "0005": "seqpacket"}
_LISTENING = {"0A"}
LOOKS = 4  # alike: each reads every socket of the machine
_ACCEPTS = 1 << 16  # __SO_ACCEPTCON in the flags of /proc/net/unix


@dataclass(frozen=True)
class Fd:
    """One descriptor; ``identity`` is equal for two descriptors of one socket or pipe."""

    number: int
    kind: str
    identity: str


def fds(pid: int) -> list[Fd]:
    """All descriptors of a process; those that close while we look are left out."""
    sockets = _sockets(pid)
    found: list[Fd] = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue
        found.append(Fd(int(entry.name), _kind(target, sockets), target))
    return sorted(found, key=lambda each: each.number)


def kinds(pid: int) -> Counter[str]:
    """How many descriptors of each kind a process holds."""
    return Counter(each.kind for each in fds(pid))


def resting(pid: int) -> Counter[str]:
    """The same, when it has not changed for a while: what has just ended is closed soon after."""
    seen: list[Counter[str]] = []

    def same() -> bool:
        seen.append(kinds(pid))
        return len(seen) >= LOOKS and all(one == seen[-1] for one in seen[-LOOKS:])

    wait_until(same, 30.0, f"the descriptors of {pid} stay as they are")
    return seen[-1]


def _kind(target: str, sockets: dict[str, str]) -> str:
    if target.startswith("socket:["):
        return sockets.get(target[8:-1], "socket other")
    if target.startswith("pipe:["):
        return "pipe"
    if target.startswith("anon_inode:"):
        return target.partition(":")[2].strip("[]")
    if target.startswith("/memfd:"):
        return "memfd"
    return target


def _sockets(pid: int) -> dict[str, str]:
    """Kind of each socket in the network namespace of the process, by inode."""
    known: dict[str, str] = {}
    for name in ("tcp", "tcp6"):
        for row in _rows(pid, name):
            known[row[9]] = f"{name} listener" if row[3] in _LISTENING else f"{name} connection"
    for row in _rows(pid, "unix"):
        listener = " listener" if int(row[3], 16) & _ACCEPTS else ""
        known[row[6]] = f"unix {_UNIX_TYPES.get(row[4], row[4])}{listener}"
    return known


def _rows(pid: int, name: str) -> Iterator[list[str]]:
    try:
        lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()
    except FileNotFoundError:  # no IPv6 on this machine
        return
    for line in lines[1:]:
        yield line.split()
