"""Long WebSocket sessions, each with a question now and then.

    locust -f loadtests/websockets_long.py --host http://127.0.0.1:8000

The app has to answer every message (loadtests/apps/contender.py tells who answers). A session that
the server ends with 1012 (it restarts) is counted and opened again; any other end is a failure.
WEBSOCKET_PATH in the environment names another path than ``/``. Needs websocket-client, which comes
with locust.
"""

from __future__ import annotations

import os
import time
from typing import Any

import websocket
from locust import User, between, events, task
from locust.env import Environment
from parts import answered, note_time

PATH = os.environ.get("WEBSOCKET_PATH", "/")
RESTARTED = 1012
restarts: list[float] = []


class Session(User):
    """Stays for as long as the run does."""

    wait_time = between(0.05, 0.15)

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.socket: websocket.WebSocket | None = None

    @task
    def question(self) -> None:
        began, part = time.perf_counter(), "message"
        error: Exception | None = None
        text = ""
        try:
            if self.socket is None:
                part = "open"
                self.socket = self._opened()
            else:
                text = self._answer(self.socket)
        except (OSError, websocket.WebSocketException) as problem:
            error = problem
            self.socket = None
        self._fire(part, began, error, len(text))

    def _opened(self) -> websocket.WebSocket:
        where = (self.host or "").replace("http", "ws", 1).rstrip("/") + PATH
        return websocket.create_connection(where, timeout=30)

    def _answer(self, session: websocket.WebSocket) -> str:
        session.send("who?")
        opcode, data = session.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            code = int.from_bytes(data[:2], "big")
            self.socket = None
            if code != RESTARTED:
                raise websocket.WebSocketException(f"closed with {code}")
            restarts.append(time.perf_counter())
            return ""
        answered[data.decode()] += 1
        return str(data.decode())

    def on_stop(self) -> None:
        if self.socket is not None:
            self.socket.close(timeout=1)

    def _fire(self, part: str, began: float, error: Exception | None, length: int) -> None:
        took = time.perf_counter() - began
        note_time(took)
        self.environment.events.request.fire(
            request_type=part, name=PATH, response_time=1000 * took, response_length=length,
            exception=error, context={},
        )  # fmt: skip


@events.quitting.add_listener
def told(**_: Any) -> None:
    print(f"sessions ended with {RESTARTED} and opened again: {len(restarts)}")
