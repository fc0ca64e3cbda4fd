"""What people type after ``--bind``: parsed, and written back in one form.

Pure text: nothing here opens a socket or asks a resolver.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rrdispatch.errors import ConfigError

FORMS = "HOST:PORT, [IPV6]:PORT, :PORT, PORT, unix:PATH, fd://N"
LOOPBACK = "127.0.0.1"
# sun_path has 108 bytes, the last one 0.
UNIX_PATH_MAX = 107

_DIGITS = re.compile(r"[0-9]{1,10}\Z")
_SCHEME = re.compile(r"\w+://")


@dataclass(frozen=True, slots=True)
class InetAddress:
    """A TCP address; an empty host is every IPv4 address, port 0 any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix socket's path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class InheritedAddress:
    """A listening socket that the caller's caller opened (systemd, a test)."""

    fd: int

    def __str__(self) -> str:
        return f"fd://{self.fd}"


Address = InetAddress | UnixAddress | InheritedAddress


def same_place(one: Address, other: Address) -> bool:
    """Not both can be listened on, if one cannot: the same path, or the same port."""
    if isinstance(one, InetAddress) and isinstance(other, InetAddress):
        return one.port == other.port
    return one == other


def parse(text: str) -> Address:
    """The address that `text` means; ConfigError names the text and the right forms."""
    stripped = text.strip()
    if stripped.startswith("unix:"):
        return _unix(text, stripped[len("unix:") :])
    if stripped.startswith("fd://"):
        return InheritedAddress(_number(text, stripped[len("fd://") :], "fd", 1 << 20))
    if stripped.startswith("fd:"):
        raise _error(text, "a descriptor is written as fd://N")
    if scheme := _SCHEME.match(stripped):
        raise _error(text, f"an address is written without {scheme[0]!r}")
    if stripped.startswith("["):
        return _inet6(text, stripped)
    return _inet(text, stripped)


def _error(text: str, reason: str) -> ConfigError:
    return ConfigError(f"bind address {text!r}: {reason}", hint=f"right forms are {FORMS}")


def _number(text: str, digits: str, what: str, limit: int) -> int:
    if not _DIGITS.match(digits) or int(digits) > limit:
        raise _error(text, f"{digits!r} is not a {what} (0 to {limit})")
    return int(digits)


def _port(text: str, digits: str) -> int:
    return _number(text, digits, "port", 65535)


def _unix(text: str, path: str) -> UnixAddress:
    if not path or "\0" in path:
        raise _error(text, "there is no path after 'unix:'")
    if path.startswith("///"):
        # The URL form unix:///path, as other servers write it.
        path = path[2:]
    if len(path.encode(errors="surrogateescape")) > UNIX_PATH_MAX:
        raise _error(text, f"the path has more than {UNIX_PATH_MAX} bytes, the system's limit")
    return UnixAddress(path)


def _inet6(text: str, stripped: str) -> InetAddress:
    host, bracket, port = stripped[1:].partition("]")
    if not bracket or not port.startswith(":"):
        raise _error(text, "an IPv6 address is written as [ADDRESS]:PORT")
    if ":" not in host or not re.fullmatch(r"[0-9A-Fa-f:.]+(%[\w.-]+)?", host):
        raise _error(text, f"{host!r} is not an IPv6 address")
    return InetAddress(host, _port(text, port[1:]))


def _inet(text: str, stripped: str) -> InetAddress:
    if _DIGITS.match(stripped):
        return InetAddress(LOOPBACK, _port(text, stripped))
    host, colon, port = stripped.rpartition(":")
    if not colon:
        raise _error(text, "there is no port")
    if ":" in host:
        raise _error(text, "an IPv6 address is written as [ADDRESS]:PORT")
    if host and not re.fullmatch(r"[\w.-]+", host):
        raise _error(text, f"{host!r} is not a host")
    return InetAddress(host, _port(text, port))
