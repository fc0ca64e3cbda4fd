"""Who else listens on a port: SO_REUSEPORT lets sockets of one user share it, and bind is silent.

By proc(5), net/tcp; that an IPv6 listener leaves IPv4 alone is told by sock_diag(7) only.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

LISTEN = 10
LISTENING = f"{LISTEN:02X}"
ACCEPTS = 1 << 16
ANY: dict[int, str] = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}  # noqa: S104 (compared, not bound)
# <linux/inet_diag.h>, <linux/sock_diag.h>
SOCK_DIAG, SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, DONE, ERROR = 4, 20, 0x301, 3, 2
HEAD = struct.Struct("=IHHII")
ASK = struct.Struct("=BBBBI48x")
DIAG_INODE, DIAG_SIZE, DIAG_SIX_ONLY = 68, 72, 11


def somebody_listens(family: int, host: str, port: int, six_only: bool = False) -> bool:
    """A listener is there on an address that overlaps with this one."""
    for other, theirs, its_port, inode in _listeners():
        if its_port != port:
            continue
        if other == family:
            overlaps = theirs == host or ANY[other] in (host, theirs)
        elif family == socket.AF_INET6:
            overlaps = host == ANY[family] and not six_only
        else:
            overlaps = theirs == ANY[other] and inode not in _six_only()
        if overlaps:
            return True
    return False


def listening_on(inodes: Collection[int]) -> list[str]:
    """The addresses of those of these sockets that listen: TCP and unix."""
    found = []
    for family, host, port, inode in _listeners():
        if inode in inodes:
            found.append(f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}")
    return sorted(found) + sorted(_unix_listeners(inodes))


def _unix_listeners(inodes: Collection[int]) -> Iterator[str]:
    """proc(5), net/unix: the fourth field has __SO_ACCEPTCON, the seventh is the inode."""
    for row in _rows("unix"):
        fields = row.split(maxsplit=7)
        if int(fields[3], 16) & ACCEPTS and int(fields[6]) in inodes:
            yield f"unix:{fields[7]}" if len(fields) > 7 else "unix:"


def _rows(name: str) -> list[str]:
    try:
        text = Path(f"/proc/self/net/{name}").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[1:]


def _listeners() -> Iterator[tuple[int, str, int, int]]:
    """(family, host, port, inode) of those of TCP."""
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for row in _rows(name):
            fields = row.split()
            address, _, digits = fields[1].partition(":")
            if fields[3] == LISTENING:
                yield family, _host(address, family), int(digits, 16), int(fields[9])


def _host(digits: str, family: int) -> str:
    """Words of four bytes, each in the machine's order."""
    words = struct.unpack(f"!{len(digits) // 8}I", bytes.fromhex(digits))
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))


def _six_only() -> set[int]:
    """Inodes of the listeners that have IPV6_V6ONLY; none where the kernel does not say."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    ask = ASK.pack(socket.AF_INET6, socket.IPPROTO_TCP, 0, 0, 1 << LISTEN)
    head = HEAD.pack(HEAD.size + len(ask), SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, 1, 0)
    try:
        with socket.socket(socket.AF_NETLINK, kind, SOCK_DIAG) as diag:
            diag.send(head + ask)
            return {inode for inode, only in _told(diag) if only}
    except OSError:
        return set()


def _told(diag: socket.socket) -> Iterator[tuple[int, bool]]:
    """(inode, whether it has IPV6_V6ONLY) of each listener."""
    while True:
        data = diag.recv(1 << 16)
        while len(data) >= HEAD.size:
            length, kind, *_ = HEAD.unpack_from(data)
            if kind in (DONE, ERROR) or length < HEAD.size:
                return
            (inode,) = struct.unpack_from("=I", data, HEAD.size + DIAG_INODE)
            yield inode, _attribute(data[HEAD.size + DIAG_SIZE : length])
            data = data[(length + 3) & ~3 :]


def _attribute(attributes: bytes) -> bool:
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == DIAG_SIX_ONLY and length > 4:
            return attributes[4] != 0
        attributes = attributes[max(4, (length + 3) & ~3) :]
    return False
