"""Runs an ASGI app by uvicorn, over the worker's channels.

Owns the signals, the intake and the drain. uvicorn's own shutdown closes an idle connection at
once, and a request that was on its way is lost. So in a drain nothing new is taken, every response
says ``Connection: close``, idle connections may stay for as long as their clients expect it, and
only what is left at the deadline is ended: WebSockets with 1012, requests by cancelling.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any

import uvicorn
from uvicorn.importer import ImportFromStringError
from uvicorn.protocols.http.flow_control import service_unavailable

from rrdispatch import ledger
from rrdispatch.errors import TargetError
from rrdispatch.worker.connection import Connection
from rrdispatch.worker.intake import Intake
from rrdispatch.worker.runtime import Runtime

from .asgi_app import Gate, Life
from .detect import Interface
from .extras import missing
from .load import AppError
from .loops import loop_factory, run
from .options import Options
from .proxy import App, ProxyHeaders, Trust
from .stopping import Stops, exit_now
from .tls import server_context

logger = logging.getLogger("uvicorn.error")


def serve(app: Any, interface: Interface, options: Options, runtime: Runtime) -> int:
    """Until the worker has drained; the exit code."""
    gate = Gate(_inner(app, interface, options), options, runtime.counts)
    gate.on_limit(runtime.notifier.recycle)
    factory = loop_factory(options.loop)
    server = Server(_config(gate, options), gate, options, runtime)
    code = run(server.work(), factory, Stops(options.stop_signal, server.asked.set))
    if server.forced:
        exit_now(code)
    return code


def _inner(app: Any, interface: Interface, options: Options) -> App:
    if interface is Interface.ASGI2:
        from uvicorn.middleware.asgi2 import ASGI2Middleware

        app = ASGI2Middleware(app)
    return _believing(app, options)


def _believing(app: App, options: Options) -> App:
    return ProxyHeaders(app, Trust(options.forwarded_allow_ips)) if options.proxy_headers else app


def _config(gate: Gate, options: Options) -> uvicorn.Config:
    """uvicorn's configuration, loaded; what it can't load is said in our words."""
    more: dict[str, Any] = {
        "http": options.http,
        "ws": options.ws,
        "lifespan": options.lifespan,
        "timeout_keep_alive": options.timeout_keep_alive,
        "ssl_keyfile_password": options.ssl_keyfile_password,
        "workers": 1,  # else it reads WEB_CONCURRENCY, and knows numbers only
    }
    if options.tls:
        server_context(options)  # says what is wrong; uvicorn would ask a terminal for passwords
    try:
        config = uvicorn.Config(
            gate,
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            root_path=options.root_path,
            limit_concurrency=options.limit_concurrency or None,
            ssl_certfile=options.ssl_certfile,
            ssl_keyfile=options.ssl_keyfile,
            **more,
        )
        config.load()
    except ModuleNotFoundError as error:
        raise missing(str(error.name), "all", f"{options.http}/{options.ws}") from None
    except (ImportFromStringError, KeyError) as error:
        raise TargetError(f"uvicorn: {error}", hint="look at --http, --ws, --lifespan") from None
    return config


class Server(uvicorn.Server):
    """One worker's server. ``forced``: something did not end by the deadline."""

    def __init__(
        self, config: uvicorn.Config, gate: Gate, options: Options, runtime: Runtime
    ) -> None:
        super().__init__(config)
        self._gate = gate
        self._options = options
        self._runtime = runtime
        full = _believing(service_unavailable, options)
        self._protocol = _protocol_class(config.http_protocol_class, gate, full)
        self._starting: set[asyncio.Task[Any]] = set()
        self.asked = asyncio.Event()  # to stop
        self.forced = False

    async def work(self) -> int:
        """Start the app, serve, drain."""
        self._loop = asyncio.get_running_loop()
        if not await self._start_app():
            return 0
        await self.on_tick(0)
        self._intake = Intake(self._runtime.listeners, self._take)
        self._intake.open()
        if not self._runtime.wait_ready:
            self._runtime.ready(batch=self._options.connection_batch)
        while not self.asked.is_set():
            self._runtime.counts.heartbeat()
            await self.on_tick(0)
            await _wait(self.asked, 1.0)
        await self._drain()
        return 0

    async def _start_app(self) -> bool:
        """The app's lifespan startup; False if it was told to stop meanwhile."""
        self.lifespan = self.config.lifespan_class(self.config)
        logger.disabled = True  # a failure is said once, by the primary
        startup = asyncio.ensure_future(self.lifespan.startup())
        asked = asyncio.ensure_future(self.asked.wait())
        await asyncio.wait({startup, asked}, return_when=asyncio.FIRST_COMPLETED)
        logger.disabled = False
        asked.cancel()
        if not startup.done():
            return False
        startup.result()
        if self.lifespan.should_exit:
            message, traceback = self._gate.failure or ("no reason was given", "")
            raise AppError(f"the app's startup failed: {message}", traceback=traceback)
        return True

    # ---- connections ----------------------------------------------------------------------------

    def _take(self, connection: Connection) -> None:
        # No coroutine of ours around the loop's: this is what a connection costs.
        shared = (self.config, self.server_state, self.lifespan.state, self._loop)
        factory = functools.partial(self._protocol, connection, *shared)
        connecting = self._loop.connect_accepted_socket(factory, connection, ssl=self.config.ssl)
        task = self._loop.create_task(connecting)
        self._starting.add(task)
        task.add_done_callback(self._started)

    def _started(self, task: asyncio.Task[Any]) -> None:
        self._starting.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, (OSError, asyncio.TimeoutError)):
            # A failed handshake, or a client that is gone; the loop closes the connection.
            logger.debug("a connection ended before it began", exc_info=error)
        elif error is not None:
            raise error  # told by the loop

    # ---- drain ----------------------------------------------------------------------------------

    async def _drain(self) -> None:
        begun = self._loop.time()
        self._gate.closing = True
        self._runtime.drain()
        self._intake.drain()
        grace = begun + self._options.idle_grace
        deadline = begun + self._options.drain_deadline
        if not await self._empty(min(grace, deadline)):
            for connection in list(self.server_state.connections):
                if _is_idle(connection):
                    connection.shutdown()
            if not await self._empty(deadline):
                await self._end_the_rest(begun + self._options.drain_timeout * 0.95)
        await self._end_tasks(deadline)
        await self.lifespan.shutdown()

    async def _empty(self, until: float) -> bool:
        """Wait for the last connection's end."""
        event = asyncio.Event()
        counts = self._runtime.counts

        def closed() -> None:
            if counts.open <= 0:
                self._loop.call_soon_threadsafe(event.set)

        counts.on_closed = closed
        closed()
        while not event.is_set() and self._loop.time() < until:
            counts.heartbeat()
            await self.on_tick(0)
            await _wait(event, min(1.0, until - self._loop.time()))
        counts.on_closed = None
        return event.is_set()

    async def _end_the_rest(self, until: float) -> None:
        """uvicorn's shutdown of a connection: 1012 for a WebSocket, for others no more requests."""
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._empty(min(until, self._loop.time() + 0.5))

    async def _end_tasks(self, until: float) -> None:
        """What apps still do after their responses; cancelled at the deadline."""
        tasks = set(self.server_state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=max(0.0, until - self._loop.time()))
        left = {task for task in tasks if not task.done()}
        if left:
            self.forced = True
            logger.error("requests that did not end in time and were cancelled: %d", len(left))
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=self._options.drain_timeout * 0.02)


def _is_idle(connection: Any) -> bool:
    """An HTTP connection between requests, or before the first. WebSockets have no cycle."""
    if not hasattr(connection, "cycle"):
        return False
    return connection.cycle is None or bool(connection.cycle.response_complete)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), max(0.0, seconds))
    except asyncio.TimeoutError:
        return


def _traced(transport: Any, connection: Connection) -> Any:
    """The transport; with a ledger, one that notes its first byte."""
    if not ledger.opened():
        return transport
    from rrdispatch.worker.traced import TracedTransport

    return TracedTransport(transport, connection)


def _protocol_class(base: Any, gate: Gate, full: App) -> Any:
    """uvicorn's protocol, which knows its connection: its past, and its peer's address.

    Above limit_concurrency ``full`` answers, which is counted and logged as any other answer.
    """

    class Protocol(base):  # type: ignore[misc]
        def __init__(self, connection: Connection, *arguments: Any) -> None:
            config, server_state, app_state, loop = arguments
            super().__init__(
                config=config, server_state=server_state, app_state=app_state, _loop=loop
            )
            self._rr_connection = connection
            self._rr_app = functools.partial(gate.http, Life())
            self._rr_limit = config.limit_concurrency
            self.limit_concurrency = None

        @property
        def app(self) -> Any:
            """It is asked once per request."""
            most = self._rr_limit
            if most is None or max(len(self.connections), len(self.tasks)) < most:
                return self._rr_app
            self.logger.warning("Exceeded concurrency limit.")
            return functools.partial(self._rr_app, app=full)

        @app.setter
        def app(self, app: Any) -> None:
            """uvicorn knows of one only."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(_traced(transport, self._rr_connection))
            peer = self._rr_connection.peer
            if isinstance(peer, tuple):
                # uvicorn asks getpeername, which fails for a client that is gone.
                self.client = peer[:2]

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            # uvloop closes the descriptor first and the socket object after it.
            self._rr_connection.count_closed()

    return Protocol
