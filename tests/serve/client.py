"""A client for tests: http.client over a socket that is connected already."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


class Client:
    """One connection. ``send`` and ``receive`` apart, so that a request can be left waiting."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, path: str, headers: dict[str, str] | None = None, version: str = "1.1") -> None:
        lines = [f"GET {path} HTTP/{version}", "Host: test"]
        lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())

    def receive(self) -> Answer:
        response = http.client.HTTPResponse(self.sock, method="GET")
        response.begin()
        body = response.read()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body)

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        self.send(path, headers)
        return self.receive()

    def at_end(self) -> bool:
        """Waits for the server's FIN; False if data comes instead."""
        return self.sock.recv(1) == b""

    def close(self) -> None:
        self.sock.close()
