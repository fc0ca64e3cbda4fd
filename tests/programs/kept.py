"""Clients that keep their connections and pause between requests, as a pool of a real one does:
one that was closed in a pause is replaced, nothing is asked twice.
"""

from __future__ import annotations

import select
import socket
import threading
from collections import Counter
from types import TracebackType

REQUEST = b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n"


class KeptClients:
    """From ``with`` to its end. ``outcomes``: how many requests were answered, and how many ended
    otherwise; ``closed``: how often a connection was closed in a pause, or by word.
    """

    def __init__(self, port: int, count: int, path: str, pause: float) -> None:
        self._address = ("127.0.0.1", port)
        self._request = REQUEST % path.encode()
        self._pause = pause
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self.outcomes: Counter[str] = Counter()
        self.closed = 0
        self._threads = [threading.Thread(target=self._keep, args=(n,)) for n in range(count)]

    def __enter__(self) -> KeptClients:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType) -> None:
        self._stop.set()
        for one in self._threads:
            one.join()

    def wait_more(self, answers: int, limit: float = 60.0) -> None:
        with self._changed:
            enough = self.outcomes["answered"] + answers
            assert self._changed.wait_for(lambda: self.outcomes["answered"] >= enough, limit)

    def _keep(self, number: int) -> None:
        connection: socket.socket | None = None
        # Out of step with each other.
        self._stop.wait(self._pause * number / len(self._threads))
        while not self._stop.is_set():
            if connection is not None and select.select([connection], [], [], 0)[0]:
                connection = self._end(connection)
            if connection is None:
                connection = socket.create_connection(self._address, timeout=60)
            told = self._ask(connection)
            if told != "answered":
                connection = self._end(connection)
            with self._changed:
                self.outcomes["answered" if told == "last answer" else told] += 1
                self._changed.notify_all()
            self._stop.wait(self._pause)
        if connection is not None:
            connection.close()

    def _end(self, connection: socket.socket) -> None:
        connection.close()
        self.closed += 1

    def _ask(self, connection: socket.socket) -> str:
        """``last answer``: it says that it closes."""
        data = b""
        try:
            connection.sendall(self._request)
            while b"\r\n\r\n" not in data:
                part = connection.recv(65536)
                if not part:
                    return "cut"
                data += part
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            while len(body) < length:
                part = connection.recv(65536)
                if not part:
                    return "cut"
                body += part
        except ConnectionError:
            return "cut"
        return "last answer" if b"\nconnection: close" in head.lower() else "answered"
