"""Unmodified programs: what their shims ask for, and what their workers' environment says of it.

A listener is opened when the first worker's program listens; each worker gets its own channel for
it. Owns those listeners' bookkeeping and the door; must not decide when a worker is ready or stops.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rrdispatch import _core
from rrdispatch._core.layout import MAX_LISTENERS
from rrdispatch.cluster import door, news, quiet
from rrdispatch.cluster.dispatching import Dispatching
from rrdispatch.cluster.door import Answer, Door, Request
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.spawn import Shim
from rrdispatch.net.channels import Channel
from rrdispatch.net.listeners import (
    ListeningSocket,
    bind_beside,
    bound_address,
    describe,
    network,
    sockaddr,
)

KEY_SIZE = 16
BACKLOG = 4096
LOOK_EVERY = 0.1
NAME = "\0rrdispatch.1/{worker:08x}/{random}/{address}"  # csrc/shim_protocol.h


@dataclass(slots=True)
class AskedBy:
    """Whom it works for."""

    handles: Mapping[int, WorkerHandle]
    tell: Callable[[news.News], None]
    events: Events
    dispatching: Callable[[], Dispatching]


class Programs:
    """The door and what was opened through it."""

    def __init__(
        self,
        only: tuple[str, ...],
        listeners: list[ListeningSocket],
        told: list[dict[str, Any]],
        asked_by: AskedBy,
    ) -> None:
        """``listeners`` and ``told`` are the owner's, and grow."""
        self._only = only
        self._listeners = listeners
        self._told = told
        self._asked_by = asked_by
        self._loop = asyncio.get_running_loop()
        self._door = Door(self._answer)

    def shim(self, worker: int) -> Shim:
        """For a worker that is about to be spawned."""
        key = secrets.token_bytes(KEY_SIZE)
        library = _core.shim_library()
        assert library is not None
        told = {
            "RRDISPATCH_SOCKET": self._door.path,
            "RRDISPATCH_KEY": door.key_of(worker, key),
            "RRDISPATCH_LISTEN": ",".join(self._only),
            "RRDISPATCH_NET": str(network()),
        }
        return Shim(library, key, told)

    def close(self) -> None:
        self._door.close()

    def watch_until_quiet(self, worker: int) -> None:
        """Tells when a program that is given nothing any more has nothing at work."""
        handle = self._asked_by.handles.get(worker)
        if handle is None or handle.reaped:
            return
        ports = {one["address"][1] for one in self._told}
        if quiet.at_work(handle.pid, ports):
            self._loop.call_later(LOOK_EVERY, self.watch_until_quiet, worker)
        else:
            self._asked_by.tell(news.Quiet(worker))

    # ---- what shims ask --------------------------------------------------------------------------

    def _answer(self, request: Request) -> Answer:
        handle = self._asked_by.handles.get(request.worker)
        if handle is None or not handle.key or not door.same(handle.key, request.key):
            return Answer(-errno.EPERM)
        asked = {door.LISTEN: self._listen, door.READY: self._ready, door.OPTION: self._option}
        try:
            return asked.get(request.kind, _unknown)(handle, request)
        except OSError as error:
            return Answer(-(error.errno or errno.EINVAL))

    def _listen(self, handle: WorkerHandle, request: Request) -> Answer:
        """The same channel again for one that was closed and is opened anew: what waits goes on."""
        index = self._index(request.address)
        if index < 0:
            index = self._open(handle, request)
        if index not in handle.channels:
            handle.channels[index] = _named_channel(handle.id, request.address)
            self._asked_by.dispatching().roster.add_channel(handle, index)
        return Answer(0, index, [handle.channels[index].receiver, handle.scoreboard])

    def _index(self, address: bytes) -> int:
        for index, sock in enumerate(self._listeners):
            if sock.fileno() >= 0 and sock.family != socket.AF_UNIX and sockaddr(sock) == address:
                return index
        return -1

    def _open(self, handle: WorkerHandle, request: Request) -> int:
        if len(self._listeners) == MAX_LISTENERS:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        backlog = max(request.backlog, BACKLOG)
        sock = bind_beside(request.address, bool(request.v6only), backlog, _owner(request))
        index = len(self._listeners)
        self._listeners.append(sock)
        self._told.append(describe(sock))
        self._asked_by.dispatching().add_listener(index)
        text = f"listening on {bound_address(sock)} (asked for by worker {handle.slot})"
        self._asked_by.events.tell("listening-too", text, listeners=list(self._told))
        return index

    def _ready(self, handle: WorkerHandle, _request: Request) -> Answer:
        self._asked_by.tell(news.Ready(handle.id))
        return Answer()

    def _option(self, _handle: WorkerHandle, request: Request) -> Answer:
        index = self._index(request.address)
        if index < 0:
            return Answer(-errno.ENOENT)
        self._listeners[index].setsockopt(request.level, request.option, request.value)
        return Answer()


def _owner(request: Request) -> int:
    """Whose the program's socket is, by its own word; nobody's who has no part in this."""
    if len(request.value) != 4 or os.geteuid() != 0:
        return -1
    said = int.from_bytes(request.value, sys.byteorder)
    return said if said in (0, request.uid) else -1


def _unknown(_handle: WorkerHandle, _request: Request) -> Answer:
    return Answer(-errno.ENOSYS)


def _named_channel(worker: int, address: bytes) -> Channel:
    """Whoever holds its receiving end can see what it stands for, also after an exec."""
    channel = Channel.create()
    random = secrets.token_hex(12)
    name = NAME.format(worker=worker, random=random, address=address.hex())
    receiver = socket.socket(fileno=os.dup(channel.receiver))
    try:
        receiver.bind(name)
    except OSError:
        channel.close()
        raise
    finally:
        receiver.close()
    return channel
