"""What a program may ask the primary for: where to listen, with which options. Pure.

The shim sees to the same in the program itself; but who has a worker's key need not be a shim.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence

# <asm-generic/socket.h>: a filter of the program's would decide for all who connect.
FILTERS = frozenset((26, 27, 44, 50, 51, 52, 68))  # SO_ATTACH_*, SO_DETACH_*, SO_LOCK_FILTER
HARMLESS = {
    socket.SOL_SOCKET: (
        "SO_RCVBUF", "SO_SNDBUF", "SO_KEEPALIVE", "SO_LINGER", "SO_RCVTIMEO", "SO_SNDTIMEO",
        "SO_REUSEADDR",
    ),
    socket.IPPROTO_TCP: (
        "TCP_NODELAY", "TCP_DEFER_ACCEPT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT",
        "TCP_USER_TIMEOUT", "TCP_FASTOPEN", "TCP_CONGESTION", "TCP_MAXSEG", "TCP_QUICKACK",
    ),
    socket.IPPROTO_IPV6: ("IPV6_V6ONLY",),
}  # fmt: skip
OPTIONS = frozenset(
    (level, getattr(socket, name))
    for level, names in HARMLESS.items()
    for name in names
    if hasattr(socket, name)
)
LOCALHOST = ("127.0.0.1", "::1")


def may_set(level: int, option: int, borrowed: bool) -> bool:
    """``borrowed``: we have privileges which who asks has not."""
    if level == socket.SOL_SOCKET and option in FILTERS:
        return False
    return not borrowed or (level, option) in OPTIONS


def may_listen(only: Sequence[str], address: bytes) -> bool:
    """``only``: PORT, HOST:PORT, [v6]:PORT, as the shim reads them; none: everywhere."""
    if not any(only):
        return True
    host, port = _place(address)
    allowed = (pair for text in ",".join(only).split(",") for pair in _places(text.strip()))
    return any(its == port and whose in (host, None) for whose, its in allowed)


def _places(text: str) -> Iterator[tuple[ipaddress.IPv6Address | None, int]]:
    """Host (None: any) and port of one entry; two for "localhost"."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit()) or not 0 < int(port) < 1 << 16:
        return
    if host in ("", "*"):
        yield None, int(port)
        return
    for name in LOCALHOST if host == "localhost" else (host.removeprefix("[").removesuffix("]"),):
        try:
            yield _mapped(ipaddress.ip_address(name)), int(port)
        except ValueError:  # noqa: PERF203 (there are two at most)
            return


def _place(address: bytes) -> tuple[ipaddress.IPv6Address | None, int]:
    """Of a struct sockaddr; port 0 for what is no TCP address."""
    try:
        family, port = struct.unpack("=H", address[:2])[0], int.from_bytes(address[2:4], "big")
        if family == socket.AF_INET:
            return _mapped(ipaddress.IPv4Address(address[4:8])), port
        return ipaddress.IPv6Address(address[8:24]), port
    except (struct.error, ValueError):
        return None, 0


def _mapped(host: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv6Address:
    if isinstance(host, ipaddress.IPv6Address):
        return host
    return ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + host.packed)
