"""HTTP for those who watch an app: /ready, /live and /metrics on a port of its own.

In the primary's loop, so that an answer means that the primary works, and heirs answer on. Whoever
is slow, or many, costs a descriptor for some seconds, no wait: one request per connection, so many
connections at most, and the one that has been here longest gives way to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rrdispatch.cluster import report
from rrdispatch.cluster.events import complain
from rrdispatch.cluster.supervisor import Supervisor
from rrdispatch.errors import ConfigError, MissingExtraError
from rrdispatch.net.addresses import InetAddress, parse
from rrdispatch.net.entrance import Entrance
from rrdispatch.net.listeners import ListeningSocket, address_of, bind, describe
from rrdispatch.settings import Settings

BACKLOG = 64
MOST_CLIENTS = 32
MOST_REQUEST = 8192  # bytes of its head
WITHIN = 5.0  # seconds from the connection to its end
KEPT = 0.25  # for which figures are not made again
JSON, TEXT = "application/json", "text/plain; charset=utf-8"
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed",
           431: "Request Header Fields Too Large", 500: "Internal Server Error",
           501: "Not Implemented", 503: "Service Unavailable"}  # fmt: skip


def listen(settings: Settings) -> ListeningSocket | None:
    """As the settings say, or not at all; BindError as for any other listener."""
    if settings.status_bind is None:
        return None
    where = parse(settings.status_bind)
    if not isinstance(where, InetAddress):
        raise ConfigError(f"status_bind: {where} is no TCP address", hint="HOST:PORT")
    return bind(where, BACKLOG)


def address(listener: socket.socket) -> str:
    return str(address_of(describe(listener)))


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one request."""

    code: int
    body: bytes
    kind: str = TEXT

    def data(self, with_body: bool = True) -> bytes:
        head = (
            f"HTTP/1.1 {self.code} {REASONS[self.code]}\r\nContent-Type: {self.kind}\r\n"
            f"Content-Length: {len(self.body)}\r\nCache-Control: no-store\r\n"
            "Connection: close\r\n\r\n"
        )
        return head.encode() + (self.body if with_body else b"")


class Pages:
    """What there is to ask for, of one app."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._figures: Answer | None = None
        self._made = 0.0
        self._making = asyncio.Lock()
        self.paths: Mapping[str, Callable[[], Awaitable[Answer]]] = {
            "/ready": self._ready,
            "/live": self._live,
            "/metrics": self._metrics,
        }

    async def answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        target, _, version = rest.partition(" ")
        if not version.startswith("HTTP/1."):
            return Answer(400, b"this is not HTTP/1\n").data()
        page = self.paths.get(target.partition("?")[0])
        if page is None:
            return Answer(404, "\n".join([*self.paths, ""]).encode()).data()
        if method not in ("GET", "HEAD"):
            return Answer(405, b"GET or HEAD\n").data()
        try:
            found = await page()
        except Exception:
            complain()
            found = Answer(500, b"it is told in the primary's own log\n")
        return found.data(with_body=method == "GET")

    async def _ready(self) -> Answer:
        """A worker serves, and nobody asked for the end: not the dispatcher's figures, which a
        stopped dispatcher would not give.
        """
        view = self._supervisor.view
        ready = view.serves and not self._supervisor.stopping and not view.finished
        told = {"ready": ready, "state": report.state_of(view), "serving": len(view.serving),
                "wanted": view.wanted}  # fmt: skip
        return Answer(200 if ready else 503, json.dumps(told).encode() + b"\n", JSON)

    async def _live(self) -> Answer:
        return Answer(200, b'{"live": true}\n', JSON)

    async def _metrics(self) -> Answer:
        """Made once for all who ask at the same time."""
        async with self._making:
            now = asyncio.get_running_loop().time()
            if self._figures is None or now - self._made >= KEPT:
                self._figures = await self._fresh()
                self._made = asyncio.get_running_loop().time()
            return self._figures

    async def _fresh(self) -> Answer:
        from rrdispatch.control import metrics

        try:
            body = metrics.text({self._supervisor.settings.name or "app": await self._stats()})
        except MissingExtraError as error:
            return Answer(501, f"{error.message}\nhint: {error.hint}\n".encode())
        return Answer(200, body, metrics.content_type())

    async def _stats(self) -> dict[str, Any]:
        """Of the last ping if the dispatcher does not answer at once."""
        try:
            return await asyncio.wait_for(self._supervisor.fresh_stats(), WITHIN / 5)
        except asyncio.TimeoutError:
            return self._supervisor.stats()


class StatusServer:
    """From construction to ``close``; the listener stays its owner's."""

    def __init__(self, listener: socket.socket, supervisor: Supervisor) -> None:
        self._pages = Pages(supervisor)
        self._loop = asyncio.get_running_loop()
        # The first has been here longest.
        self._clients: dict[asyncio.Task[None], socket.socket] = {}
        self._entrance = Entrance(listener, self._come)

    def _come(self, client: socket.socket) -> None:
        if len(self._clients) >= MOST_CLIENTS:
            oldest = next(iter(self._clients))
            del self._clients[oldest]
            oldest.cancel()  # it may not even have begun
        task = self._loop.create_task(self._serve(client))
        self._clients[task] = client
        task.add_done_callback(partial(self._gone, client))

    def _gone(self, client: socket.socket, task: asyncio.Task[None]) -> None:
        self._clients.pop(task, None)
        client.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def _serve(self, client: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=client, limit=MOST_REQUEST)
        try:
            await asyncio.wait_for(self._talk(reader, writer), WITHIN)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            pass  # gone, or too slow
        finally:
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            writer.write(Answer(431, b"").data())
        else:
            writer.write(await self._pages.answer(head))
        writer.close()
        await writer.wait_closed()  # when all is written

    async def close(self) -> None:
        self._entrance.close()
        for task in self._clients:
            task.cancel()
        if self._clients:
            await asyncio.wait(list(self._clients), timeout=1.0)


@contextlib.asynccontextmanager
async def served(listener: socket.socket | None, supervisor: Supervisor) -> AsyncIterator[None]:
    """While a service runs, if it is to be."""
    if listener is None:
        yield
        return
    server = StatusServer(listener, supervisor)
    where = address(listener)
    text = f"/ready, /live and /metrics on {where}"
    supervisor.events.tell("status-listening", text, address=where)
    try:
        yield
    finally:
        await server.close()


async def run(supervisor: Supervisor, listener: ListeningSocket | None) -> int:
    """A service that has no control socket, to its end; the listener is ours."""
    service = asyncio.get_running_loop().create_task(supervisor.run())
    try:
        await asyncio.sleep(0)  # the loop's turn: run() makes everything in one go
        async with served(None if service.done() else listener, supervisor):
            return await service
    finally:
        if listener is not None:
            listener.close()
