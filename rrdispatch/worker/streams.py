"""asyncio's ``start_server`` and ``create_server`` over a worker's listeners.

Outside of a worker, or with an address or socket of one's own, they are asyncio's. uvloop needs
them: it accepts from the bare descriptor, which a channel does not allow.
"""

from __future__ import annotations

import asyncio
import logging
import ssl as ssl_module
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from rrdispatch import ledger

from .connection import Connection
from .intake import Intake
from .listener import Listener
from .runtime import current

logger = logging.getLogger("rrdispatch")

ProtocolFactory = Callable[[], asyncio.BaseProtocol]
ClientConnected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]

_LIMIT = 2**16


class Server(asyncio.AbstractServer):
    """What ``create_server`` gives: asyncio's server interface over channels."""

    def __init__(
        self,
        factory: ProtocolFactory,
        listeners: Iterable[Listener],
        ssl: ssl_module.SSLContext | None = None,
        ssl_timeouts: dict[str, float] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._factory = factory
        self._listeners = list(listeners)
        self._intake = Intake(self._listeners, self._start)
        self._ssl: dict[str, Any] = {"ssl": ssl, **(ssl_timeouts or {})} if ssl else {}
        self._starting: set[asyncio.Task[None]] = set()
        self._open: dict[int, asyncio.BaseTransport | None] = {}
        self._doomed: set[int] = set()
        self._serving = False
        self._closed = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    # ---- asyncio.Server's interface -------------------------------------------------------------

    @property
    def sockets(self) -> tuple[Listener, ...]:
        return () if self._closed.is_set() else tuple(self._listeners)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def is_serving(self) -> bool:
        return self._serving

    async def start_serving(self) -> None:
        if not self._serving and not self._closed.is_set():
            self._serving = True
            _servers.add(self)
            self._intake.open()
            runtime = current()
            if runtime is not None:
                runtime.listening()

    async def serve_forever(self) -> None:
        """Until it is closed: by the app, by cancelling, or because the worker drains."""
        await self.start_serving()
        try:
            await self._closed.wait()
        finally:
            self.close()
        await self.wait_closed()

    def close(self) -> None:
        if not self._closed.is_set():
            self._serving = False
            _servers.discard(self)
            self._intake.close()
            self._closed.set()

    async def wait_closed(self) -> None:
        """Until every connection has ended, as asyncio's from Python 3.12 on."""
        await self._closed.wait()
        await self._empty.wait()

    def close_clients(self) -> None:
        for transport in self._begun():
            transport.close()

    def abort_clients(self) -> None:
        for transport in self._begun():
            cast(asyncio.WriteTransport, transport).abort()

    def _begun(self) -> list[asyncio.BaseTransport]:
        """What is open; what is only beginning is closed when it has begun."""
        self._doomed.update(key for key, transport in self._open.items() if transport is None)
        return [transport for transport in self._open.values() if transport is not None]

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
        await self.wait_closed()

    # ---- a worker's -----------------------------------------------------------------------------

    def drain(self) -> None:
        """Take what waits now, then close; what is open goes on."""
        if self._serving:
            self._intake.drain()
        self.close()

    def _start(self, connection: Connection) -> None:
        key = id(connection)
        self._open[key] = None
        self._empty.clear()
        connection.on_closed = lambda: self._closed_somewhere(key)
        task = self._loop.create_task(self._connect(connection, key))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _connect(self, connection: Connection, key: int) -> None:
        try:
            protocol = _traced(self._factory(), connection)
        except BaseException:
            connection.close()
            raise
        try:
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol, connection, **self._ssl
            )
        except (OSError, asyncio.TimeoutError):
            # A handshake that failed or a client that is gone; the loop closes the connection.
            logger.debug("a connection ended before it began", exc_info=True)
        else:
            if key in self._open:
                self._open[key] = transport
            if key in self._doomed:
                transport.close()

    def _closed_somewhere(self, key: int) -> None:
        # Called where the socket is closed: in the loop, or in any thread by the collector.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ended, key)

    def _ended(self, key: int) -> None:
        self._open.pop(key, None)
        self._doomed.discard(key)
        if not self._open:
            self._empty.set()


def _traced(protocol: asyncio.BaseProtocol, connection: Connection) -> asyncio.BaseProtocol:
    """The protocol; with a ledger, over a transport that notes its first byte."""
    if ledger.opened():
        from .traced import TracedTransport

        made: Any = protocol.connection_made
        told: Any = protocol
        told.connection_made = lambda transport: made(TracedTransport(transport, connection))
    return protocol


_servers: set[Server] = set()


def drain_servers() -> None:
    """The worker drains: every server over its listeners takes what waits and closes."""
    for server in list(_servers):
        server.drain()


async def create_server(
    protocol_factory: ProtocolFactory,
    host: Any = None,
    port: Any = None,
    *,
    sock: Any = None,
    ssl: ssl_module.SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
    start_serving: bool = True,
    **options: Any,
) -> asyncio.AbstractServer:
    """``loop.create_server``, over this worker's listeners unless an address is given."""
    timeouts = {
        "ssl_handshake_timeout": ssl_handshake_timeout,
        "ssl_shutdown_timeout": ssl_shutdown_timeout,
    }
    given = {key: value for key, value in timeouts.items() if value is not None}
    listeners = _listeners(host, port, sock)
    if listeners is None:
        create: Any = asyncio.get_running_loop().create_server
        own = {"sock": sock, "ssl": ssl, "start_serving": start_serving, **given, **options}
        return cast(asyncio.AbstractServer, await create(protocol_factory, host, port, **own))
    server = Server(protocol_factory, listeners, ssl, given)
    if start_serving:
        await server.start_serving()
    return server


async def start_server(
    client_connected_cb: ClientConnected,
    host: Any = None,
    port: Any = None,
    *,
    limit: int = _LIMIT,
    **options: Any,
) -> asyncio.AbstractServer:
    """``asyncio.start_server``, over this worker's listeners unless an address is given."""
    loop = asyncio.get_running_loop()

    def factory() -> asyncio.BaseProtocol:
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        return asyncio.StreamReaderProtocol(reader, client_connected_cb, loop=loop)

    return await create_server(factory, host, port, **options)


def _listeners(host: Any, port: Any, sock: Any) -> list[Listener] | None:
    """The listeners that are meant, or None for asyncio's own way."""
    if isinstance(sock, Listener):
        return [sock]
    runtime = current()
    if runtime is None or sock is not None or host is not None or port is not None:
        return None
    return runtime.listeners
