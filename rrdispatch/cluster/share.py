"""``--share-listener``: workers hold the listening sockets themselves, and the kernel distributes.

For programs that cannot be preloaded. Owns what they are handed, as systemd does it
(sd_listen_fds(3)), and the sockets' last moments. It must not accept anything.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

from rrdispatch import _core
from rrdispatch.cluster.events import Events
from rrdispatch.net.listeners import ListeningSocket, bound_address

FIRST = 3  # SD_LISTEN_FDS_START
OWN_PID = "LISTEN_PID"
QUIET, LOOK_EVERY = 0.15, 0.02
TCP_INFO_UNACKED = 24  # <linux/tcp.h>: of a listening socket, how many connections wait


def variables(told: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Of listeners as net.listeners.describe() tells them. LISTEN_PID is set by the child."""
    names = ":".join(_name(one["address"]) for one in told)
    return {"LISTEN_FDS": str(len(told)), "LISTEN_FDNAMES": names}


def _name(address: Any) -> str:
    """The port, or the file's name: no colon and no control character may be in it."""
    text = str(address[1]) if not isinstance(address, str) else os.path.basename(address)
    plain = "".join(c if c.isascii() and c.isprintable() and c != ":" else "_" for c in text)
    return plain[:255] or "unknown"


class Shared:
    """The sockets, from the first worker to the end of the service."""

    def __init__(self, listeners: Sequence[ListeningSocket], backlog: int, events: Events) -> None:
        self._listeners = listeners
        self._backlog = backlog
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._quiet_since = 0.0
        self._watch = _ends_of(listeners)
        self._loop.add_reader(self._watch, self._shut_down)

    def make_blocking(self) -> None:
        """O_NONBLOCK belongs to the socket, not to the fd: off at first, as sd_listen_fds(3) has
        it. Never again: a worker may have set it, and would hang in accept.
        """
        for sock in self._listeners:
            sock.setblocking(True)

    def fds(self) -> list[int]:
        return [sock.fileno() for sock in self._listeners]

    def _shut_down(self) -> None:
        """shutdown(2) by one holder ends a socket for all: what waited is lost, the rest is not."""
        ended = dict(self._watch.poll(0))
        for sock in self._listeners:
            if sock.fileno() not in ended or self._closing:
                continue
            text = f"a worker shut the shared listener {bound_address(sock)} down for all; "
            hint = "a program that is handed a socket should close it and not shut it down"
            # A unix socket that was shut down stays so.
            if sock.family != socket.AF_UNIX and _listen_again(sock, self._backlog):
                self._events.tell("warning", f"{text}it listens again", hint=hint)
                continue
            self._watch.unregister(sock)
            hint += "; the app serves there again when it is stopped and started"
            self._events.tell("warning", f"{text}nobody can connect any more", hint=hint)

    def close(self, closed: Callable[[], None], within: float) -> None:
        """Nobody new gets in; ``closed`` when what waited was taken, or after so many seconds."""
        self._closing = True
        for sock in self._listeners:
            if not sock.inherited and sock.family != socket.AF_UNIX:
                _gate(sock)
        now = self._loop.time()
        self._quiet_since = now
        self._look(closed, now + within)

    def _look(self, closed: Callable[[], None], limit: float) -> None:
        now = self._loop.time()
        if any(map(_waiting, self._listeners)):
            self._quiet_since = now
        if now >= limit or now - self._quiet_since >= QUIET:
            closed()
        else:
            self._loop.call_later(LOOK_EVERY, self._look, closed, limit)

    def stop_watching(self) -> None:
        """Before the sockets are closed."""
        if not self._watch.closed:
            self._loop.remove_reader(self._watch)
            self._watch.close()


def _ends_of(listeners: Sequence[ListeningSocket]) -> select.epoll:
    """Readable when a listener is none any more: EPOLLHUP is always told, other things not. A unix
    socket that is shut down for reading only accepts nothing either.
    """
    watch = select.epoll()
    for sock in listeners:
        watch.register(sock, select.EPOLLET | select.EPOLLRDHUP)
    return watch


def _listen_again(sock: ListeningSocket, backlog: int) -> bool:
    try:
        sock.listen(backlog)
    except OSError:
        return False  # somebody else has taken the port
    return True


def _gate(sock: ListeningSocket) -> None:
    try:
        _core.gate(sock.fileno())
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.ENOTSUP):
            raise  # socket filters are root's here: who comes now may be reset


def _waiting(sock: ListeningSocket) -> int:
    """Connections in its backlog; 0 where the kernel does not say."""
    if sock.family == socket.AF_UNIX or sock.fileno() < 0:
        return 0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_UNACKED + 4)
    return int(struct.unpack_from("=I", info, TCP_INFO_UNACKED)[0])
