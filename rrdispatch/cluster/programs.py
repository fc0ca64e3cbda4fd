"""Unmodified programs: what their shims ask for, and what their workers' environment says of it.

A listener is opened when the first worker's program listens; each worker gets its own channel for
it. Owns those listeners' bookkeeping and the door; must not decide when a worker is ready or stops.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rrdispatch import _core
from rrdispatch._core.layout import MAX_LISTENERS
from rrdispatch.cluster import door, news
from rrdispatch.cluster.allowed import may_listen, may_set
from rrdispatch.cluster.dispatching import Dispatching
from rrdispatch.cluster.door import Answer, Door, Request
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.program import linked
from rrdispatch.cluster.quiet import Watch
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
# So long a program waits for an answer where another primary may come: for all three in a row.
PATIENCE = {"RRDISPATCH_SHIM_TIMEOUT_MS": "30000"}
NAME = "\0rrdispatch.1/{worker:08x}/{random}/{address}"  # csrc/shim_protocol.h


@dataclass(slots=True)
class AskedBy:
    """Whom it works for."""

    handles: Mapping[int, WorkerHandle]
    tell: Callable[[news.News], None]
    events: Events
    dispatching: Callable[[], Dispatching]
    remember: Callable[[], None]  # for an heir


@dataclass(slots=True)
class Opened:
    """What programs listen on. The lists are the owner's, and grow."""

    listeners: list[ListeningSocket]
    told: list[dict[str, Any]]
    door: int | None = None  # of the primary that we follow
    secret: bytes = b""  # its own; else a new one
    followed: bool = False  # heirs may come


class Programs:
    """The door and what was opened through it."""

    def __init__(self, only: tuple[str, ...], opened: Opened, asked_by: AskedBy) -> None:
        self._only = only
        self._listeners, self._told = opened.listeners, opened.told
        self._asked_by = asked_by
        self._loop = asyncio.get_running_loop()
        self._closing: set[int] = set()
        self._asked_in: dict[int, set[int]] = {}  # generations, by listener
        self._patience = PATIENCE if opened.followed else {}
        self.secret = opened.secret or secrets.token_bytes(KEY_SIZE)
        self._library = _core.shim_library() or ""
        self._said = linked(self._library)
        self.door = Door(self._answer, self._is_worker, opened.door)

    def shim(self, worker: int) -> Shim:
        """For a worker that is about to be spawned."""
        told = {
            "RRDISPATCH_SOCKET": self.door.path,
            "RRDISPATCH_KEY": door.key_of(worker, self._key(worker)),
            "RRDISPATCH_LISTEN": ",".join(self._only),
            "RRDISPATCH_NET": str(network()),
            **self._patience,
        }
        return Shim(self._said, told)

    def _key(self, worker: int) -> bytes:
        """Made, not kept: an heir knows those of all workers."""
        return hmac.digest(self.secret, str(worker).encode(), "sha256")[:KEY_SIZE]

    def adopt(self, handle: WorkerHandle) -> None:
        """A worker of the primary before: what its program listens on."""
        for index in handle.channels:
            self._asked_in.setdefault(index, set()).add(handle.generation)

    def close(self) -> None:
        self.door.close()
        if self._said != self._library:
            shutil.rmtree(os.path.dirname(self._said), ignore_errors=True)

    def watch_until_quiet(self, worker: int, stop_signal: int, by: float) -> None:
        """Tells when a program that is given nothing any more has nothing at work; at the moment
        ``by`` it is asked to stop anyway.
        """
        handle = self._asked_by.handles.get(worker)
        if handle is not None:
            ports = {one["address"][1] for one in self._told}
            self._look(handle, Watch(handle.pid, ports, stop_signal, by))

    def _look(self, handle: WorkerHandle, watch: Watch) -> None:
        if handle.reaped:
            return
        if watch.at_work():
            self._loop.call_later(watch.next_look, self._look, handle, watch)
        else:
            self._asked_by.tell(news.Quiet(handle.id))

    def close_unused(self, generation: int) -> None:
        """What other releases than the one that serves listened on, when none of them lives.

        What it listened on itself stays: a worker that died is about to do so again.
        """
        holders = [one.channels for one in self._asked_by.handles.values() if not one.reaped]
        for index, asked_in in self._asked_in.items():
            gone = index in self._closing or self._listeners[index].fileno() < 0
            if gone or generation in asked_in or any(index in one for one in holders):
                continue
            self._closing.add(index)
            self._asked_by.dispatching().close_listener(index, partial(self._closed, index))

    def _closed(self, index: int) -> None:
        sock = self._listeners[index]
        if sock.fileno() < 0:
            return  # with all others, at the end
        text = f"no longer listening on {bound_address(sock)}: no worker does"
        sock.close()
        self._closing.discard(index)
        self._asked_in.pop(index, None)
        self._asked_by.remember()
        self._asked_by.events.tell("listening-no-more", text, listeners=self.told())

    def told(self) -> list[dict[str, Any]]:
        """What is listened on, as events and stats tell it."""
        both = zip(self._told, self._listeners, strict=True)
        return [told for told, sock in both if sock.fileno() >= 0]

    # ---- what shims ask --------------------------------------------------------------------------

    def _is_worker(self, pid: int) -> bool:
        return any(handle.pid == pid for handle in self._asked_by.handles.values())

    def _answer(self, request: Request) -> Answer | None:
        handle = self._asked_by.handles.get(request.worker)
        if handle is None or not door.same(self._key(handle.id), request.key):
            return Answer(-errno.EPERM)
        asked = {door.LISTEN: self._listen, door.READY: self._ready, door.OPTION: self._option}
        try:
            return asked.get(request.kind, _unknown)(handle, request)
        except OSError as error:
            return Answer(-(error.errno or errno.EINVAL))

    def _listen(self, handle: WorkerHandle, request: Request) -> Answer | None:
        """The same channel again for one that was closed and is opened anew: what waits goes on.

        Given only when the dispatcher has both ends, or it would end with us.
        """
        index = self._index(request.address)
        if index < 0:
            index = self._open(handle, request)
        if index in self._closing:
            return None
        self._asked_in.setdefault(index, set()).add(handle.generation)
        if index not in handle.channels:
            handle.channels[index] = _named_channel(handle.id, request.address)
            self._asked_by.dispatching().roster.add_channel(handle, index)
        if self._asked_by.dispatching().link.behind:
            return None
        return Answer(0, index, [handle.channels[index].receiver, handle.scoreboard])

    def _index(self, address: bytes) -> int:
        for index, sock in enumerate(self._listeners):
            if sock.fileno() >= 0 and sock.family != socket.AF_UNIX and sockaddr(sock) == address:
                return index
        return -1

    def _open(self, handle: WorkerHandle, request: Request) -> int:
        if not may_listen(self._only, request.address):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        backlog = max(request.backlog, BACKLOG)
        sock = bind_beside(request.address, bool(request.v6only), backlog, _owner(request))
        told = describe(sock)
        index = self._place(told)
        if index == MAX_LISTENERS:
            sock.close()
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        self._listeners[index : index + 1], self._told[index : index + 1] = [sock], [told]
        self._asked_by.remember()
        self._asked_by.dispatching().add_listener(index)
        text = f"listening on {bound_address(sock)} (asked for by worker {handle.slot})"
        self._asked_by.events.tell("listening-too", text, listeners=self.told())
        return index

    def _place(self, told: dict[str, Any]) -> int:
        """Its index: that of before for one that was written down and is not open, as a primary
        leaves it that is killed in between; else a new one, else that of another which is closed.
        """
        for index, known in enumerate(self._told):
            if known == told and self._listeners[index].fileno() < 0:
                return index
        if len(self._told) < MAX_LISTENERS:
            return len(self._told)
        closed = (i for i, sock in enumerate(self._listeners) if sock.fileno() < 0)
        return next(closed, MAX_LISTENERS)

    def _ready(self, handle: WorkerHandle, _request: Request) -> Answer:
        if not handle.says_ready:
            self._asked_by.tell(news.Ready(handle.id))
        return Answer()

    def _option(self, _handle: WorkerHandle, request: Request) -> Answer:
        index = self._index(request.address)
        if index < 0:
            return Answer(-errno.ENOENT)
        borrowed = os.geteuid() == 0 != request.uid
        if not may_set(request.level, request.option, borrowed):
            return Answer(-errno.EPERM)
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
    try:
        with socket.socket(fileno=os.dup(channel.receiver)) as receiver:
            receiver.bind(name)
    except OSError:
        channel.close()
        raise
    return channel
