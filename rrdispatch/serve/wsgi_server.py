"""waitress over a channel: when to take, how a request ends, what the app is told of its client.

Owns no thread and no loop. Everything of waitress that is overridden is here: the server that
accepts, the channel of one connection, the task of one request.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import waitress.channel
import waitress.server
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from waitress.task import ErrorTask, WSGITask

from rrdispatch.worker.connection import Connection
from rrdispatch.worker.counts import Counts
from rrdispatch.worker.listener import LONGEST_PAUSE, NO_ROOM, SHORTEST_PAUSE, Listener

from . import accesslog
from .limits import RequestLimit
from .options import Options
from .proxy import Trust, apply_to_environ

if TYPE_CHECKING:  # OpenSSL is loaded where there is a certificate
    from .tls import TlsConnection

# A client sends its request with or right after its handshake; for so long after it was taken a
# connection without a request counts as one that needs a thread.
FRESH = 0.01


class _Monotonic:
    """waitress measures how long a connection was silent by the wall clock, which may jump."""

    time = staticmethod(time.monotonic)


waitress.channel.time = waitress.server.time = _Monotonic  # type: ignore[attr-defined, unused-ignore]


@dataclass
class Shared:
    """What all servers, channels and tasks of a worker share."""

    app: Any
    options: Options
    counts: Counts
    trust: Trust | None
    limit: RequestLimit
    tls: Callable[[Connection], TlsConnection] | None = None
    closing: bool = False
    wake: Callable[[], None] = lambda: None
    tasks: int = 0  # requests at work or waiting for a thread
    starved: bool = False  # the loop found no thread free and wants to be woken
    fresh: dict[int, float] = field(default_factory=dict)  # channel id: when it was taken
    lock: threading.Lock = field(default_factory=threading.Lock)

    def free(self) -> int:
        """Threads that a connection could have now."""
        late = time.monotonic() - FRESH
        for key in [key for key, taken in self.fresh.items() if taken < late]:
            del self.fresh[key]
        with self.lock:
            free = self.options.threads - self.tasks - len(self.fresh)
            self.starved = free <= 0
        return free

    def patience(self) -> float:
        """How long the loop may wait until somebody stops being fresh."""
        if not self.fresh:
            return 1.0
        return max(0.001, min(self.fresh.values()) + FRESH - time.monotonic())

    def begins(self) -> None:
        with self.lock:
            self.tasks += 1
        self.counts.request_begins()

    def ends(self, *, woken: bool) -> None:
        """``woken``: waitress wakes the loop after this anyway, to send the answer."""
        with self.lock:
            self.tasks -= 1
            wanted, self.starved = self.starved, False
        self.counts.request_ends()
        self.limit.look(self.counts)
        if wanted and not woken:
            self.wake()


@dataclass
class Work:
    """A request while a thread works on it."""

    request: Any
    began: float = field(default_factory=time.perf_counter)
    client: tuple[str | None, int] = (None, 0)  # of a unix socket
    status: int = 0
    finished: bool = False

    def log(self) -> None:
        host, port = self.client
        request = self.request
        told = accesslog.Request(host, port, request.command, request.request_uri, request.version)
        accesslog.write(told, self.status, time.perf_counter() - self.began)


class Server(BaseWSGIServer):
    """Takes connections of one listener."""

    active_channels: dict[int, Any]  # type: ignore[assignment]
    _map: Any

    def __init__(
        self, listener: Listener, map_: Any, threads: Any, adjustments: Any, shared: Shared
    ) -> None:
        self.listener = listener
        self.shared = shared
        self._pause = SHORTEST_PAUSE
        self._retry_at = 0.0
        super().__init__(
            shared.app,
            map=map_,
            _sock=listener,
            dispatcher=threads,
            adj=adjustments,
            sockinfo=(listener.family, socket.SOCK_STREAM, listener.proto, None),
            bind_socket=False,
        )

    def getsockname(self) -> tuple[str, Any]:
        address = self.listener.getsockname()
        return ("unix", address) if self.family == socket.AF_UNIX else address[:2]

    def readable(self) -> bool:
        if not super().readable() or self.listener.drained:
            return False
        return self.shared.free() > 0 and time.monotonic() >= self._retry_at

    def patience(self) -> float:
        """How long the loop may wait until a full descriptor table is tried again."""
        left = self._retry_at - time.monotonic()
        return left + 0.001 if left > 0 else 1.0

    def handle_accept(self) -> None:
        if not self.readable():
            return  # another event of this round took the last thread
        try:
            connections = self.listener.take()
        except OSError as error:
            if error.errno in NO_ROOM:
                self._retry_at = time.monotonic() + self._pause
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
            elif error.errno not in (errno.EAGAIN, errno.EINVAL, errno.ECONNABORTED):
                self.logger.warning("taking a connection failed: %s", error)
            return
        self._pause = SHORTEST_PAUSE
        for connection in connections:
            self._begin(connection)

    def handle_close(self) -> None:
        """Nothing: waitress comes here on a hang-up, when messages may still be queued."""

    def swept(self) -> bool:
        """In a drain: is everything taken that waited when it began? Takes what it can."""
        if not self.listener.drained:
            self.handle_accept()
        return self.listener.drained

    def _begin(self, connection: Connection) -> None:
        unix = self.family == socket.AF_UNIX
        peer = ("localhost", None) if unix else (connection.peer or ("", 0))[:2]
        sock: Any = connection
        try:
            if not unix:
                self.set_socket_options(connection)
            if self.shared.tls is not None:
                sock = self.shared.tls(connection)
            channel = Channel(self, sock, peer, self.adj, map=self._map)
        except OSError:
            # The client is gone already.
            sock.close()
            return
        self.shared.fresh[id(channel)] = time.monotonic()

    def set_socket_options(self, conn: Any) -> None:
        for level, option, value in self.adj.socket_options:
            conn.setsockopt(level, option, value)

    def add_task(self, task: Any) -> None:
        # By the loop for a channel's first request; by a task thread for one that was pipelined.
        self.shared.begins()
        super().add_task(task)

    def maintenance(self, now: float) -> None:
        """Close what was silent for too long: between requests sooner than inside one."""
        for channel in list(self.active_channels.values()):
            limit: float = self.adj.channel_timeout
            if channel.is_idle():
                limit = min(limit, self.shared.options.timeout_keep_alive)
            if not channel.requests and channel.last_activity < now - limit:
                channel.will_close = True


class Failure(ErrorTask):
    """The answer to a request that was wrong, or whose app failed."""

    channel: Channel

    def build_response_header(self) -> bytes:
        self.channel.work.status = int(self.status[:3])
        return bytes(super().build_response_header())

    def service(self) -> None:
        super().service()
        self.channel.finish(self.channel.work)


class Task(WSGITask):
    """One request."""

    channel: Channel
    request: Any

    def build_response_header(self) -> bytes:
        if self.channel.is_last():
            # As if the client had asked for it: waitress knows what to do in each version.
            self.request.headers["CONNECTION"] = "close"
        self.channel.work.status = int(self.status[:3])
        return bytes(super().build_response_header())

    def service(self) -> None:
        super().service()
        # Now, as the next request of this connection may be begun by another thread from here on.
        self.channel.finish(self.channel.work)

    def get_environment(self) -> dict[str, Any]:
        if self.environ is None:
            environ: dict[str, Any] = super().get_environment()
            environ["wsgi.multiprocess"] = True
            unix = self.channel.server.family == socket.AF_UNIX
            if unix:
                del environ["REMOTE_PORT"]
            trust = self.channel.server.shared.trust
            if trust is not None:
                apply_to_environ(environ, trust, unix=unix)
            if not unix or environ["REMOTE_ADDR"] != self.channel.addr[0]:
                port = environ.get("REMOTE_PORT", "0")
                self.channel.work.client = environ["REMOTE_ADDR"], int(port)
        return self.environ  # type: ignore[return-value]


class Channel(HTTPChannel):
    """One connection."""

    task_class = Task
    error_task_class = Failure
    server: Server
    socket: Any

    def __init__(self, server: Server, sock: Any, addr: Any, adj: Any, map: Any) -> None:  # noqa: A002
        self.begun = time.monotonic()
        self.answered = 0
        self.work = Work(None)
        super().__init__(server, sock, addr, adj, map=map)

    def is_idle(self) -> bool:
        """Between requests, with nothing to send; or before the first."""
        return not self.requests and self.request is None and not self.total_outbufs_len

    def is_last(self) -> bool:
        """Is the response being written the connection's last?"""
        shared: Shared = self.server.shared
        options = shared.options
        if shared.closing or 0 < options.max_connection_requests <= self.answered + 1:
            return True
        age = options.max_connection_age
        return age > 0 and time.monotonic() - self.begun >= age

    def service(self) -> None:
        """One request, in a task thread."""
        self.work = work = Work(self.requests[0])
        try:
            super().service()
        finally:
            self.finish(work)

    def finish(self, work: Work) -> None:
        """It is answered, or will never be. Once per request."""
        if work.finished:
            return
        work.finished = True
        self.answered += 1
        shared = self.server.shared
        if shared.options.access_log and work.status and work.request.command:
            work.log()
        shared.ends(woken=self.connected)

    def received(self, data: bytes) -> bool:
        taken = bool(super().received(data))
        if self.requests:
            self.server.shared.fresh.pop(id(self), None)
        return taken

    def del_channel(self, map: Any = None) -> None:  # noqa: A002
        self.server.shared.fresh.pop(id(self), None)
        super().del_channel(map)

    # ---- TLS ------------------------------------------------------------------------------------

    def handle_read(self) -> None:
        if isinstance(self.socket, Connection):
            super().handle_read()
            return
        try:
            if not self.socket.established:
                self.socket.shake_hands()
            if self.socket.established:
                self._read_record()
        except BlockingIOError:
            return
        except OSError:
            # Not TLS, no agreement, or a client that is gone: nothing can be said to it.
            self.handle_close()

    def _read_record(self) -> None:
        data = self.socket.recv(self.adj.recv_bytes)
        if data:
            self.last_activity = time.monotonic()
            self.received(data)
        else:
            self.handle_close()
