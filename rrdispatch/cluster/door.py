"""The door for programs that know nothing of us: their shim asks here for a channel.

One request per connection, fixed structs (docs/protocol.md 6). Owns the socket and who may hold it
up; what is answered is the owner's business. A request that is not one is shut out.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import hmac
import os
import secrets
import shutil
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rrdispatch.net.entrance import Entrance

MAGIC, VERSION = 0x48535252, 1
REQUEST = struct.Struct("=IIII16siiiiiII128s64s")
ANSWER = struct.Struct("=IIiI")
LISTEN, READY, OPTION = 1, 2, 3
MOST_CLIENTS = 256
MOST_STRANGERS = 16
RECEIVED_WITHIN = 5.0
MOST_ANCESTORS = 8  # each a read in /proc, which a stranger makes us do
PEER = struct.Struct("=iII")  # struct ucred


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
    uid: int = -1  # of the process that asks, as the kernel says

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

    def __init__(
        self,
        answer: Callable[[Request], Answer | None],
        is_ours: Callable[[int], bool],
        inherited: int | None = None,
    ) -> None:
        """``answer``: None sends the shim away, which asks again soon; ``is_ours``: is that pid a
        worker; ``inherited``: a door that an earlier primary opened.
        """
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._clients: dict[socket.socket, asyncio.TimerHandle] = {}
        self._strangers: set[socket.socket] = set()
        self._is_ours = is_ours
        self._listener = _open() if inherited is None else socket.socket(fileno=inherited)
        name = self._listener.getsockname()
        # As $RRDISPATCH_SOCKET says it.
        self.path: str = name if isinstance(name, str) else "@" + os.fsdecode(name[1:])
        self._entrance = Entrance(self._listener, self._come)

    def fileno(self) -> int:
        return self._listener.fileno()

    def _come(self, client: socket.socket) -> None:
        pid, uid = _peer(client)
        if not is_known(pid, uid, self._is_ours):
            if len(self._strangers) >= MOST_STRANGERS:
                client.close()
                return
            self._strangers.add(client)
        limit = self._loop.call_later(RECEIVED_WITHIN, self._go, client)
        self._clients[client] = limit
        self._loop.add_reader(client, self._asked, client, uid)

    def _asked(self, client: socket.socket, uid: int) -> None:
        try:
            request = Request.unpack(client.recv(REQUEST.size + 1))
            answer = self._answer(replace(request, uid=uid))
        except BlockingIOError:
            return
        except (OSError, ValueError):
            answer = None  # gone, or no shim
        if answer is None:
            self._go(client)
            return
        data = ANSWER.pack(MAGIC, VERSION, answer.result, answer.listener)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", answer.fds))]
        with contextlib.suppress(OSError):
            client.sendmsg([data], rights if answer.fds else [])
        self._go(client)

    def _go(self, client: socket.socket) -> None:
        limit = self._clients.pop(client, None)
        self._strangers.discard(client)
        if limit is not None:
            limit.cancel()
            self._loop.remove_reader(client)
            client.close()

    def close(self) -> None:
        """Whoever asks from now on finds nobody."""
        for client in list(self._clients):
            self._go(client)
        self._entrance.close()
        self._listener.close()
        if not self.path.startswith("@"):
            shutil.rmtree(os.path.dirname(self.path), ignore_errors=True)

    def abandon(self) -> None:
        """In a forked child: our copies; the loop is the parent's."""
        for sock in (self._listener, *self._clients):
            sock.close()


def _open() -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.setblocking(False)
    _bind(listener)
    listener.listen(MOST_CLIENTS)
    return listener


def _bind(listener: socket.socket) -> None:
    """A name without a path where there is such a thing: reached after chroot and setuid, too, and
    gone with us however we end.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a security module forbids it
            listener.bind(f"\0rrdispatch-{secrets.token_hex(16)}")
            return
    folder = tempfile.mkdtemp(prefix="rrdispatch-")
    path = os.path.join(folder, "door")
    listener.bind(path)
    if os.geteuid() == 0:  # its workers may become anybody; the key proves whose they are
        os.chmod(folder, 0o711)  # noqa: S103
        os.chmod(path, 0o666)  # noqa: S103


def key_of(worker: int, key: bytes) -> str:
    """RRDISPATCH_KEY."""
    return f"{worker}:{key.hex()}"


def same(one: bytes, other: bytes) -> bool:
    return hmac.compare_digest(one, other)


def _peer(client: socket.socket) -> tuple[int, int]:
    """(pid, uid) of who connected; -1 where the kernel does not say."""
    if sys.platform != "linux":
        return -1, -1
    pid, uid, _ = PEER.unpack(client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    return pid, uid


def is_known(pid: int, uid: int, is_ours: Callable[[int], bool]) -> bool:
    """Our user, root, or what a worker of ours became. Others need a key too, and are few at a
    time: everybody can see the name of an abstract socket.
    """
    if uid in (-1, 0, os.geteuid()):
        return True
    for _ in range(MOST_ANCESTORS):
        if pid <= 1:
            break
        if is_ours(pid):
            return True
        pid = _parent(pid)
    return False


def _parent(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[1])
