"""The door for programs that know nothing of us: their shim asks here for a channel.

One request per connection, fixed structs (docs/protocol.md 6). Owns the socket and its private
folder; what is answered is the owner's business. A request that is not one is shut out.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import hmac
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAGIC, VERSION = 0x48535252, 1
REQUEST = struct.Struct("=IIII16siiiiiII128s64s")
ANSWER = struct.Struct("=IIiI")
LISTEN, READY, OPTION = 1, 2, 3
MOST_CLIENTS = 256
RECEIVED_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a shim asks."""

    kind: int
    worker: int
    key: bytes
    pid: int
    backlog: int
    v6only: int
    level: int
    option: int
    address: bytes  # struct sockaddr
    value: bytes

    @classmethod
    def unpack(cls, data: bytes) -> Request:
        """ValueError for what is none."""
        if len(data) != REQUEST.size:
            raise ValueError("wrong length")
        fields = REQUEST.unpack(data)
        magic, version, kind, worker, key, pid, backlog, v6only, level, option = fields[:10]
        address_length, value_length, address, value = fields[10:]
        if (magic, version) != (MAGIC, VERSION) or address_length > 128 or value_length > 64:
            raise ValueError("not a request of this version")
        return cls(
            kind, worker, key, pid, backlog, v6only, level, option,
            address[:address_length], value[:value_length],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """0 or -errno; the fds stay the owner's."""

    result: int = 0
    listener: int = 0
    fds: Sequence[int] = ()


class Door:
    """From construction to ``close``."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._clients: dict[socket.socket, asyncio.TimerHandle] = {}
        self._folder = tempfile.mkdtemp(prefix="rrdispatch-")  # mode 0700
        self.path = os.path.join(self._folder, "door")
        kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._listener = socket.socket(socket.AF_UNIX, kind)
        self._listener.bind(self.path)
        self._listener.listen(MOST_CLIENTS)
        self._loop.add_reader(self._listener, self._come)

    def _come(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            client, _ = self._listener.accept()
            client.setblocking(False)
            limit = self._loop.call_later(RECEIVED_WITHIN, self._go, client)
            self._clients[client] = limit
            self._loop.add_reader(client, self._asked, client)

    def _asked(self, client: socket.socket) -> None:
        try:
            answer = self._answer(Request.unpack(client.recv(REQUEST.size + 1)))
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self._go(client)  # gone, or no shim
            return
        data = ANSWER.pack(MAGIC, VERSION, answer.result, answer.listener)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", answer.fds))]
        with contextlib.suppress(OSError):
            client.sendmsg([data], rights if answer.fds else [])
        self._go(client)

    def _go(self, client: socket.socket) -> None:
        limit = self._clients.pop(client, None)
        if limit is not None:
            limit.cancel()
            self._loop.remove_reader(client)
            client.close()

    def close(self) -> None:
        """Whoever asks from now on finds nobody."""
        for client in list(self._clients):
            self._go(client)
        self._loop.remove_reader(self._listener)
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def key_of(worker: int, key: bytes) -> str:
    """RRDISPATCH_KEY."""
    return f"{worker}:{key.hex()}"


def same(one: bytes, other: bytes) -> bool:
    return hmac.compare_digest(one, other)
