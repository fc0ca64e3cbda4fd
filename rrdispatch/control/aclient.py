"""A client of a control socket, for asyncio: the same calls with ``await``, no thread."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from rrdispatch.control import protocol
from rrdispatch.errors import ControlError, ProtocolError

Event = dict[str, Any]


class AsyncClient:
    """Calls by name; see ``server.METHODS``."""

    def __init__(self, on_event: Callable[[Event], object], on_end: Callable[[], object]) -> None:
        self._on_event = on_event
        self._on_end = on_end
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._last = 0
        self._ended = False
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self, control: socket.socket) -> None:
        """Takes the socket."""
        control.setblocking(False)
        try:
            reader, self._writer = await asyncio.open_unix_connection(
                sock=control, limit=protocol.MOST_ANSWER
            )
        except BaseException:
            control.close()
            raise
        self._task = asyncio.get_running_loop().create_task(self._read(reader))

    async def call(self, method: str, **params: Any) -> Any:
        """The result; the primary's exception, or ControlError if it is gone."""
        if self._ended or self._writer is None:
            raise ControlError("the primary is gone")
        self._last += 1
        number = self._last
        data = protocol.request(method, params, number)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        self._writer.write(data)
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.readline():
                self._take(data)
        except (OSError, ValueError, ProtocolError):
            # The same as the end: nothing more can be trusted to come.
            pass
        self._ended = True
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ControlError("the primary ended before it answered"))
        self._on_end()

    def _take(self, data: bytes) -> None:
        message = protocol.parse_answer(data)
        if message.get("method") == "event":
            self._on_event(message.get("params") or {})
            return
        future = self._waiting.get(message.get("id") or 0)
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(protocol.exception(message["error"]))
        else:
            future.set_result(message.get("result"))

    async def close(self) -> None:
        """Ends the connection: an embedded primary drains."""
        if self._writer is None:
            return
        self._writer.close()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.wait([self._task])
