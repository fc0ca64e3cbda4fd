"""What the locust scenarios share: a raw client in three measured parts, who answered, shares.

With REQUESTS=N in the environment a run ends after so many. locust puts this directory on
``sys.path``: scenarios import it as ``parts``.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections import Counter
from typing import Any

from gevent import sleep, spawn
from locust import User, events
from locust.env import Environment

LIMITS_S = (1.0, 3.0)  # where people leave
PATIENCE_S = 30.0
ENOUGH = int(os.environ.get("REQUESTS", "0"))

answered: Counter[str] = Counter()  # by worker
slow: Counter[float] = Counter()  # whole requests over each limit
totals: Counter[str] = Counter()


class Unanswered(Exception):
    """No whole answer, or not the right one."""


class RawUser(User):
    """Speaks HTTP over its own socket: connect, first byte and the whole are told apart.

    With ``open_loop_s`` a user asks at fixed moments, and the whole counts from when the request
    should have started: a server that stalls cannot make its clients ask less.
    """

    abstract = True
    open_loop_s = 0.0
    keep = False

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        host, _, port = (self.host or "").partition("//")[2].rstrip("/").rpartition(":")
        self.where = (host, int(port))
        self.connection: socket.socket | None = None
        self.due = time.perf_counter()
        self.cookie = ""
        self.worker = ""  # who answered last

    def ask(self, path: str = "/") -> None:
        """One request, never tried again."""
        began = self._moment()
        error: Exception | None = None
        length = 0
        try:
            self._connect(path)
            length = len(self._exchange(path))
        except (OSError, Unanswered) as problem:
            error = problem
            self._close()
        if not self.keep:
            self._close()
        self._fire("whole", path, began, error, length)

    def _moment(self) -> float:
        """When this request should begin."""
        if not self.open_loop_s:
            return time.perf_counter()
        due, self.due = self.due, self.due + self.open_loop_s
        sleep(max(0.0, due - time.perf_counter()))
        return due

    def _connect(self, path: str) -> None:
        if self.connection is None:
            began = time.perf_counter()
            self.connection = socket.create_connection(self.where, PATIENCE_S)
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._fire("connect", path, began)

    def _exchange(self, path: str) -> bytes:
        assert self.connection is not None
        began = time.perf_counter()
        lines = [f"GET {path} HTTP/1.1", f"Host: {self.where[0]}:{self.where[1]}"]
        lines += [] if self.keep else ["Connection: close"]
        lines += [f"Cookie: {self.cookie}"] if self.cookie else []
        self.connection.sendall("\r\n".join([*lines, "", ""]).encode())
        data = self._receive()
        self._fire("first byte", path, began)
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, body = data.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        while found and len(body) < int(found[1]):
            body += self._receive()
        self._note(head, body)
        return body

    def _receive(self) -> bytes:
        assert self.connection is not None
        data = self.connection.recv(65536)
        if not data:
            raise Unanswered("closed before the whole answer")
        return data

    def _note(self, head: bytes, body: bytes) -> None:
        if head[9:12] != b"200":
            raise Unanswered(f"status {head[9:12].decode()}")
        if cookie := re.search(rb"(?i)\r\nset-cookie: *([^;\r]+)", head):
            self.cookie = cookie[1].decode()
        if re.search(rb"(?i)\r\nconnection: *close", head):
            self._close()
        self.worker = worker_of(head, body)
        answered[self.worker] += 1

    def _close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def on_stop(self) -> None:
        self._close()

    def _fire(
        self, part: str, path: str, began: float,
        error: Exception | None = None, length: int = 0,
    ) -> None:  # fmt: skip
        took = time.perf_counter() - began
        if part == "whole":
            note_time(took)
        self.environment.events.request.fire(
            request_type=part, name=path, response_time=1000 * took, response_length=length,
            exception=error, context={},
        )  # fmt: skip


def worker_of(head: bytes, body: bytes) -> str:
    """By what the app tells: a header ``X-Pid``, or "worker N" in the answer."""
    for pattern, text in ((rb"(?i)\r\nx-pid: *(\d+)", head), (rb"(worker \d+)", body)):
        if found := re.search(pattern, text):
            return found[1].decode()
    return "somebody"


def note_time(seconds: float) -> None:
    totals["requests"] += 1
    for limit in LIMITS_S:
        slow[limit] += seconds > limit


@events.init.add_listener
def end_with_enough(environment: Environment, **_: Any) -> None:
    def counted(**_: Any) -> None:
        if totals["requests"] >= ENOUGH and environment.runner is not None and not totals["ended"]:
            totals["ended"] = 1
            spawn(environment.runner.quit)

    if ENOUGH:
        environment.events.request.add_listener(counted)


@events.quitting.add_listener
def show(**_: Any) -> None:
    """The split over the workers, and the shares that took too long."""
    for worker, count in sorted(answered.items()):
        print(f"{worker}: {count} answers")
    for limit in LIMITS_S:
        share = 100 * slow[limit] / max(1, totals["requests"])
        print(f"over {limit:.0f} s: {share:.2f} % of {totals['requests']} requests")
