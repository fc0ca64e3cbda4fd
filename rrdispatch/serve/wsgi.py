"""Runs a WSGI app by waitress, over the worker's channels.

Owns the loop in the main thread, the signals and the drain. waitress goes on accepting while all
its threads are blocked; here a connection is only taken when a thread is free for it, so that
what can't be served now waits where another worker can still have it.
"""

from __future__ import annotations

import logging
import resource
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.task import ThreadedTaskDispatcher

from rrdispatch.worker.connection import Connection
from rrdispatch.worker.runtime import Runtime

from .limits import RequestLimit
from .options import Options
from .proxy import Trust
from .stopping import exit_now, handled_signals
from .wsgi_server import Channel, Server, Shared

if TYPE_CHECKING:
    from .tls import TlsConnection

logger = logging.getLogger("waitress")

_SPARE_DESCRIPTORS = 64


def serve(app: Any, options: Options, runtime: Runtime) -> int:
    """Until the worker has drained; the exit code."""
    runner = Runner(app, options, runtime)
    runner.run()
    if runner.forced:
        exit_now(0)
    return 0


class Runner:
    """One worker's loop. ``forced``: something did not end by the deadline."""

    def __init__(self, app: Any, options: Options, runtime: Runtime) -> None:
        self._options = options
        self._runtime = runtime
        self._map: dict[int, Any] = {}
        self._threads = ThreadedTaskDispatcher()
        limit = RequestLimit(options.max_requests)
        limit.call = runtime.notifier.recycle
        shared = Shared(
            app=app,
            options=options,
            counts=runtime.counts,
            trust=Trust(options.forwarded_allow_ips) if options.proxy_headers else None,
            limit=limit,
            tls=_tls(options),
        )
        self._shared = shared
        self._adjustments = _adjustments(options)
        self._servers: list[Server] = []
        self._asked = False
        self.forced = False

    def run(self) -> None:
        """Start the threads, serve, drain."""
        for number in handled_signals(self._options.stop_signal):
            signal.signal(number, self._ask)
        self._threads.set_thread_count(self._options.threads)
        for listener in self._runtime.listeners:
            server = Server(listener, self._map, self._threads, self._adjustments, self._shared)
            self._servers.append(server)
        self._shared.wake = self._servers[0].pull_trigger
        if not self._runtime.wait_ready:
            self._runtime.ready()
        while not self._asked:
            self._turn(1.0)
        self._drain()
        if not self.forced:
            self._threads.shutdown()

    def _ask(self, *_: object) -> None:
        # In a handler: the poll in progress is restarted after it, so wake it by the trigger.
        self._asked = True
        if self._servers:
            self._servers[0].pull_trigger()

    def _turn(self, longest: float) -> None:
        self._runtime.counts.heartbeat()
        patience = min(longest, self._shared.patience(), *(s.patience() for s in self._servers))
        wasyncore.poll2(patience, self._map)

    def _drain(self) -> None:
        """Answer what is here with ``Connection: close``; idle ones may stay for the grace."""
        begun = time.monotonic()
        self._shared.closing = True
        self._runtime.drain()
        grace = begun + self._options.idle_grace
        deadline = begun + self._options.drain_deadline
        while self._is_left():
            now = time.monotonic()
            if now >= deadline:
                self.forced = True
                left = self._runtime.counts.open
                logger.error("connections that did not end in time: %d", left)
                return
            if now >= grace:
                self._close_idle(now - self._options.idle_grace)
            self._turn(max(0.01, min(1.0, (grace if now < grace else deadline) - now)))

    def _is_left(self) -> bool:
        # First the sweep: it may take the connection that is open then.
        swept = [server.swept() for server in self._servers]
        return not all(swept) or self._runtime.counts.open > 0

    def _close_idle(self, since: float) -> None:
        """Not what was taken after ``since``: its request is about to be read."""
        for channel in list(self._map.values()):
            if isinstance(channel, Channel) and channel.is_idle() and channel.begun <= since:
                channel.will_close = True


def _adjustments(options: Options) -> Adjustments:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Adjustments(
        threads=options.threads,
        connection_limit=max(16, soft - _SPARE_DESCRIPTORS),
        cleanup_interval=1,
        channel_timeout=120,
        url_scheme="https" if options.tls else "http",
        url_prefix=options.root_path,
        clear_untrusted_proxy_headers=False,  # proxy.py decides who is believed
        asyncore_use_poll=True,
    )


def _tls(options: Options) -> Callable[[Connection], TlsConnection] | None:
    if not options.tls:
        return None
    from .tls import TlsConnection, server_context

    context = server_context(options)
    return lambda connection: TlsConnection(connection, context)
