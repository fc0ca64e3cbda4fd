"""A client of a control socket, for threads: calls wait for their answers, events come as they are.

Owns the socket and one reader thread. The thread never calls anybody's code but the event callback.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from rrdispatch.control import protocol
from rrdispatch.errors import ControlError, ProtocolError

Event = dict[str, Any]


class Client:
    """Calls by name; see ``server.METHODS``."""

    def __init__(
        self,
        control: socket.socket,
        on_event: Callable[[Event], object],
        on_end: Callable[[], object],
    ) -> None:
        self._control = control
        self._control.setblocking(True)
        self._on_event = on_event
        self._on_end = on_end
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._last = 0
        self._ended = False
        self._thread = threading.Thread(target=self._read, name="rrdispatch-control", daemon=True)
        self._thread.start()

    def call(self, method: str, timeout: float | None = None, **params: Any) -> Any:
        """The result; the primary's exception, or ControlError if it is gone or too slow."""
        future: Future[Any] = Future()
        with self._lock:
            if self._ended:
                raise ControlError("the primary is gone")
            self._last += 1
            data = protocol.request(method, params, self._last)
            self._waiting[self._last] = future
            try:
                self._control.sendall(data)
            except OSError as error:
                del self._waiting[self._last]
                raise ControlError(f"the primary is gone: {error.strerror}") from error
        try:
            return future.result(timeout)
        except FutureTimeoutError:
            raise ControlError(f"the primary did not answer {method} within {timeout} s") from None

    def _read(self) -> None:
        try:
            for data in _lines(self._control):
                self._take(data)
        except (OSError, ProtocolError):
            # The same as the end: nothing more can be trusted to come.
            pass
        with self._lock:
            self._ended = True
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(ControlError("the primary ended before it answered"))
        self._on_end()

    def _take(self, data: bytes) -> None:
        message = protocol.parse_answer(data)
        if message.get("method") == "event":
            self._on_event(message.get("params") or {})
            return
        with self._lock:
            future = self._waiting.pop(message.get("id") or 0, None)
        if future is None:
            return
        if "error" in message:
            future.set_exception(protocol.exception(message["error"]))
        else:
            future.set_result(message.get("result"))

    def close(self) -> None:
        """Ends the connection: an embedded primary drains. Not for the reader thread."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._control.close()

    def abandon(self) -> None:
        """In a forked child: the descriptor only, without the end of the connection."""
        self._ended = True
        self._control.close()


def _lines(control: socket.socket) -> Iterator[bytes]:
    data = bytearray()
    while piece := control.recv(65536):
        data += piece
        while (end := data.find(b"\n")) >= 0:
            yield bytes(data[:end])
            del data[: end + 1]
        if len(data) > protocol.MOST_ANSWER:
            raise ProtocolError("an answer of the primary is too long")
