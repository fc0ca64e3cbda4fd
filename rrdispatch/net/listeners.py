"""Listening sockets: opened, adopted, described and, for unix sockets, their file removed.

Owns the rules of binding and says what to do when it fails. It must not know who accepts.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrdispatch.errors import BindError
from rrdispatch.net.addresses import Address, InetAddress, InheritedAddress, UnixAddress
from rrdispatch.net.neighbours import somebody_listens

if TYPE_CHECKING:
    import psutil

BACKLOG = 4096
# How the command lines of dispatchers end.
DISPATCHERS = ("rr-dispatcher", "dispatch/__main__.py")
TCP = socket.IPPROTO_TCP
NETNS_COOKIE = 71  # SO_NETNS_COOKIE of <asm-generic/socket.h>

FAMILIES = {
    socket.AF_INET: "inet",
    socket.AF_INET6: "inet6",
    socket.AF_UNIX: "unix",
}


class ListeningSocket(socket.socket):
    """A listening socket; ``identity`` is (device, inode) of the unix socket file that we made.

    ``inherited``: somebody else opened it and may go on with it when we are gone, as systemd does.
    """

    identity: tuple[int, int] | None = None
    inherited = False

    def unlink(self) -> None:
        """Remove our unix socket's file, unless somebody put another one in its place."""
        if self.identity is None:
            return
        path = self.getsockname()
        try:
            if _identity(path) == self.identity:
                Path(path).unlink()
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
        self.identity = None


def bind(address: Address, backlog: int = BACKLOG) -> ListeningSocket:
    """A non-blocking, close-on-exec socket that listens on `address`; BindError says why not."""
    if isinstance(address, InheritedAddress):
        return adopt(address.fd, backlog)
    if isinstance(address, UnixAddress):
        return _bind_unix(address, backlog)
    return _bind_inet(address, backlog)


def adopt(fd: int, backlog: int = BACKLOG) -> ListeningSocket:
    """Take over a listening (or bound) stream socket that was opened elsewhere."""
    try:
        sock = ListeningSocket(fileno=fd)
    except OSError as error:
        raise BindError(
            f"fd://{fd} is not a socket: {error.strerror}",
            hint="pass the descriptor down: systemd's start with 3",
        ) from error
    try:
        if sock.family not in FAMILIES or sock.type != socket.SOCK_STREAM:
            raise BindError(f"fd://{fd} is no TCP or unix stream socket")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.listen(backlog)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.inherited = True
        sock.set_inheritable(False)
        sock.setblocking(False)
    except (OSError, BindError) as error:
        # Not ours after all: whoever opened it keeps it.
        sock.detach()
        if isinstance(error, BindError):
            raise
        raise BindError(f"fd://{fd} cannot listen: {error.strerror}") from error
    return sock


def describe(sock: socket.socket) -> dict[str, Any]:
    """``family`` and ``address`` as a worker finds them in RRDISPATCH_LISTENERS."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return {"family": "unix", "address": os.fsdecode(name)}
    return {"family": FAMILIES[sock.family], "address": [name[0], name[1]]}


def bound_address(sock: socket.socket) -> InetAddress | UnixAddress:
    """Where it really listens: port 0 has become a number."""
    return address_of(describe(sock))


def address_of(told: Mapping[str, Any]) -> InetAddress | UnixAddress:
    """What ``describe`` told, as an address."""
    where = told["address"]
    return UnixAddress(where) if isinstance(where, str) else InetAddress(where[0], where[1])


# ---- TCP ----------------------------------------------------------------------------------------


def _resolve(address: InetAddress) -> tuple[int, Any]:
    try:
        found = socket.getaddrinfo(
            address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise BindError(
            f"cannot listen on {address}: {address.host!r} is no address of any host",
            hint="write an address of this machine, 127.0.0.1 for local use or 0.0.0.0 for all",
        ) from error
    # IPv4 first: localhost means 127.0.0.1 to most clients.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return found[0][0], found[0][4]


def _bind_inet(address: InetAddress, backlog: int) -> ListeningSocket:
    family, name = _resolve(address)
    sock = ListeningSocket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by what is accepted; asyncio does not set it on sockets that were passed to it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(name)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise _inet_error(address, error) from error
    return sock


def _inet_error(address: InetAddress, error: OSError) -> BindError:
    if error.errno == errno.EADDRINUSE:
        holder = port_holder(address.port)
        by = f" by {holder}" if holder else ""
        hint = "stop it, or choose another port; port 0 takes a free one"
        found = BindError(f"cannot listen on {address}: the port is in use{by}", hint=hint)
        found.holder = holder.pid if holder else None
        return found
    hints = {
        errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: "the address is not one of this machine; 0.0.0.0 means all of them",
    }
    message = f"cannot listen on {address}: {error.strerror}"
    return BindError(message, hint=hints.get(error.errno or 0))


@dataclass(frozen=True)
class Holder:
    """A process that listens."""

    name: str
    pid: int

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


def port_holder(port: int) -> Holder | None:
    """Who listens on a TCP port, where this user may see it."""
    import psutil

    try:
        for entry in psutil.net_connections(kind="tcp"):
            if entry.status != psutil.CONN_LISTEN or not entry.laddr or not entry.pid:
                continue
            if entry.laddr.port == port:
                return _told(psutil.Process(entry.pid))
    except (psutil.Error, OSError):
        # A help for the message only.
        return None
    return None


def _told(holder: psutil.Process) -> Holder:
    """Of a dispatcher its primary, which is who can be stopped: it would replace a dispatcher."""
    if _command(holder).endswith(DISPATCHERS):
        near = [one for one in (holder.parent(), *holder.children()) if one is not None]
        primary = next((one for one in near if "rrdispatch" in _command(one)), holder)
        return Holder("rrdispatch", primary.pid)
    return Holder(holder.name(), holder.pid)


def _command(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


# ---- unix sockets -------------------------------------------------------------------------------


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _bind_unix(address: UnixAddress, backlog: int) -> ListeningSocket:
    sock = ListeningSocket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        try:
            sock.bind(address.path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_stale(address)
            sock.bind(address.path)
        sock.identity = _identity(address.path)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise _unix_error(address, error) from error
    except BindError:
        sock.close()
        raise
    return sock


def _unix_error(address: UnixAddress, error: OSError) -> BindError:
    hints = {
        errno.ENOENT: "its directory does not exist; make it first",
        errno.EACCES: "this user may not write in its directory",
        errno.EPERM: "nobody may make a socket in its directory; choose another path",
        errno.EROFS: "its file system is read-only; choose another path",
    }
    message = f"cannot listen on {address}: {error.strerror}"
    return BindError(message, hint=hints.get(error.errno or 0))


def _remove_stale(address: UnixAddress) -> None:
    """Remove the file of a listener that is gone: only ECONNREFUSED proves that nobody listens."""
    if not stat.S_ISSOCK(os.lstat(address.path).st_mode):
        raise BindError(
            f"cannot listen on {address}: the file exists and is no socket",
            hint="choose another path, or remove the file yourself",
        )
    before = _identity(address.path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(address.path)
    if code != errno.ECONNREFUSED:
        raise BindError(
            f"cannot listen on {address}: another process listens there",
            hint="stop it, or choose another path",
        )
    if _identity(address.path) == before:
        Path(address.path).unlink()


# ---- listeners for programs that bind by themselves -------------------------------------------


def bind_beside(
    name: bytes, v6only: bool, backlog: int = BACKLOG, uid: int = -1
) -> ListeningSocket:
    """A listener on the address of a bound socket that will never listen: both say SO_REUSEPORT.

    ``name`` is its struct sockaddr, ``uid`` whose it may be. OSError as listen(2) would give it to
    the program; EADDRINUSE also where somebody else listens there who said SO_REUSEPORT too, and
    would share the port.
    """
    family, where = _sockaddr(name)
    sock = ListeningSocket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, TCP)
    try:
        # The kernel shares a port among sockets of one user only: that of their inodes.
        if uid not in (-1, os.geteuid()):
            os.fchown(sock.fileno(), uid, -1)
        _listen_beside(sock, where, v6only, backlog)
    except OSError:
        sock.close()
        raise
    return sock


def _listen_beside(
    sock: ListeningSocket, where: tuple[Any, ...], v6only: bool, backlog: int
) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.setsockopt(TCP, socket.TCP_NODELAY, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6only))
    sock.bind(where)
    if somebody_listens(sock.family, where[0], where[1], v6only):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    sock.listen(backlog)


def network() -> int:
    """The network namespace that our sockets are in, by its cookie; 0 where the kernel does not
    say (before Linux 5.14).
    """
    with socket.socket() as probe:
        try:
            return int(struct.unpack("=Q", probe.getsockopt(socket.SOL_SOCKET, NETNS_COOKIE, 8))[0])
        except OSError:
            return 0


def _sockaddr(name: bytes) -> tuple[int, tuple[Any, ...]]:
    (family,) = struct.unpack_from("=H", name)
    if family == socket.AF_INET and len(name) >= 8:
        port, host = struct.unpack_from("!H4s", name, 2)
        return family, (socket.inet_ntop(family, host), port)
    if family == socket.AF_INET6 and len(name) >= 28:
        port, flow, host = struct.unpack_from("!HI16s", name, 2)
        (scope,) = struct.unpack_from("=I", name, 24)
        return family, (socket.inet_ntop(family, host), port, flow, scope)
    raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))


def sockaddr(sock: socket.socket) -> bytes:
    """struct sockaddr of where a TCP socket is bound, as programs compare it."""
    name = sock.getsockname()
    host = socket.inet_pton(sock.family, name[0].partition("%")[0])
    if sock.family == socket.AF_INET:
        return struct.pack("=H", sock.family) + struct.pack("!H4s8x", name[1], host)
    head = struct.pack("=H", sock.family) + struct.pack("!HI16s", name[1], name[2], host)
    return head + struct.pack("=I", name[3])
