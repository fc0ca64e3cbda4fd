"""What stands between uvicorn and an ASGI app: counts, the access log, and ``Connection: close``.

Owns no connection. It decides when a connection has had its last request: in a drain, or after
``max_connection_requests`` or ``max_connection_age``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rrdispatch.worker.counts import Counts

from . import accesslog
from .limits import RequestLimit
from .load import traceback_of
from .options import Options
from .proxy import App, Scope

CLOSE = (b"connection", b"close")


class Life:
    """One connection's past."""

    __slots__ = ("begun", "requests")

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.requests = 0


class Gate:
    """The outermost ASGI app. ``closing``: every response asks its client to go."""

    def __init__(self, app: App, options: Options, counts: Counts) -> None:
        self._app = app
        self._counts = counts
        self._access_log = options.access_log
        self._most = options.max_connection_requests
        self._oldest = options.max_connection_age
        self._root = options.root_path.encode()
        self._bounded = bool(self._most or self._oldest)
        self._after = RequestLimit(options.max_requests) if options.max_requests else None
        self.closing = False
        self.failure: tuple[str, str] | None = None  # (message, traceback) of the lifespan

    def on_limit(self, call: Callable[[], object]) -> None:
        """``call`` once, after ``max_requests``."""
        if self._after is not None:
            self._after.call = call

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self.http(Life(), scope, receive, send)

    async def http(
        self, life: Life, scope: Scope, receive: Any, send: Any, app: App | None = None
    ) -> None:
        """One request of the connection whose past is ``life``; by ``app``, if it is not ours."""
        life.requests += 1

        def sending(message: Any) -> Any:
            # What uvicorn gives to be awaited is given on: a coroutine around it costs.
            if message["type"] == "http.response.start" and (
                self.closing or (self._bounded and self._spent(life))
            ):
                message = _with_close(message)
            return send(message)

        self._counts.request_begins()
        try:
            if self._access_log:
                await self._logged(app or self._app, scope, receive, sending)
            else:
                await (app or self._app)(scope, receive, sending)
        finally:
            self._counts.request_ends()
            if self._after is not None:
                self._after.look(self._counts)

    async def _logged(self, app: App, scope: Scope, receive: Any, send: Any) -> None:
        """The app, and a line when the answer is complete: it may go on with work of its own."""
        began = time.perf_counter()
        status = 0

        async def sending(message: Any) -> None:
            nonlocal status
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
            await send(message)
            if kind == "http.response.body" and not message.get("more_body") and status > 0:
                self._log(scope, status, began)
                status = -1

        try:
            await app(scope, receive, sending)
        except BaseException:
            status = status or 500
            raise
        finally:
            if status > 0:
                self._log(scope, status, began)

    async def _websocket(self, scope: Scope, receive: Any, send: Any) -> None:
        began = time.perf_counter()
        told = False

        async def sending(message: Any) -> None:
            nonlocal told
            await send(message)
            if not told:
                told = True
                status = {"websocket.accept": 101, "websocket.close": 403}.get(message["type"])
                self._log(scope, status or message.get("status", 403), began)

        self._counts.request_begins()
        self._counts.request_ends()  # a request, but no work that ends: an open one is inflight
        if self._after is not None:
            self._after.look(self._counts)
        await self._app(scope, receive, sending)

    async def _lifespan(self, scope: Scope, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "lifespan.startup.failed":
                text = message.get("message", "")
                last = text.strip().split("\n")[-1] or "no reason was given"
                self.failure = last, text if "\n" in text.strip() else ""
                message = {**message, "message": ""}  # told once, by the primary
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except BaseException as error:
            if self.failure is None:
                self.failure = f"{type(error).__name__}: {error}", traceback_of(error)
            raise

    def _spent(self, life: Life) -> bool:
        if self._most and life.requests >= self._most:
            return True
        return bool(self._oldest) and time.monotonic() - life.begun >= self._oldest

    def _log(self, scope: Scope, status: int, began: float) -> None:
        if not self._access_log:
            return
        host, port = scope.get("client") or (None, 0)
        # uvicorn puts the root path in front; the log shows what was asked for.
        target = (scope.get("raw_path") or scope["path"].encode()).removeprefix(self._root)
        query = scope.get("query_string", b"")
        text = (target + b"?" + query if query else target).decode("latin-1")
        method = scope.get("method", "GET")
        request = accesslog.Request(host, port or 0, method, text, scope["http_version"])
        accesslog.write(request, status, time.perf_counter() - began)


def _with_close(message: Any) -> Any:
    headers = list(message.get("headers", ()))
    if any(bytes(name).lower() == b"connection" for name, _ in headers):
        return message
    return {**message, "headers": [*headers, CLOSE]}
