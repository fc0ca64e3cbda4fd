"""What primary and worker say to each other: a line of JSON each, over one stream socket.

``["m", message]`` is the program's own, ``["a", {"act": ...}]`` is ours (docs/node.md). Nobody
waits: what the kernel has no room for lies in an Outbox. Pure but for the socket that it is given.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Iterator
from typing import Any

AT_ONCE = 64  # lines in one sendmsg
CHUNK = 1 << 18
MUCH = 1 << 16  # bytes that wait: from there on ``send`` says False, as Node's does
OURS = b'["a",'


def message(value: Any) -> bytes:
    """A program's message; TypeError or ValueError for what JSON cannot say."""
    return b'["m",' + json.dumps(value, separators=(",", ":")).encode() + b"]\n"


def act(name: str, **facts: Any) -> bytes:
    """One of ours."""
    told = json.dumps({"act": name, **facts}, separators=(",", ":"))
    return OURS + told.encode() + b"]\n"


def is_ours(line: bytes) -> bool:
    return line.startswith(OURS)


def read(line: bytes) -> Any:
    """What a line says; ValueError if it is none."""
    try:
        kind, value = json.loads(line)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError("not a line of this protocol") from error
    if kind not in ("m", "a") or (kind == "a" and not isinstance(value, dict)):
        raise ValueError("not a line of this protocol")
    return value


class Lines:
    """Cuts what comes into lines. A line of any length costs one join."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Every line that is whole now."""
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._parts.append(part)
            line = b"".join(self._parts)
            self._parts.clear()
            yield line
        if rest:
            self._parts.append(rest)


class Outbox:
    """What is to be sent. ``add`` from any thread or signal handler, ``flush`` from one thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._waiting: deque[bytes] = deque()
        self._sent = 0  # bytes of the first one
        self.added = self.gone = 0

    @property
    def empty(self) -> bool:
        return not self._waiting

    @property
    def size(self) -> int:
        """Bytes that the kernel has not taken, about."""
        return max(0, self.added - self.gone)

    def add(self, data: bytes) -> None:
        self.added += len(data)
        self._waiting.append(data)

    def flush(self) -> bool:
        """As far as there is room; True if nothing is left. OSError: the other end is gone."""
        while self._waiting:
            # By number: another thread may add to it just now.
            count = min(len(self._waiting), AT_ONCE)
            batch = [memoryview(self._waiting[i]) for i in range(count)]
            batch[0] = batch[0][self._sent :]
            try:
                count = self._sock.sendmsg(batch, [], socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                return False
            self._took(count)
        return True

    def _took(self, count: int) -> None:
        self.gone += count
        count += self._sent
        while self._waiting and count >= len(self._waiting[0]):
            count -= len(self._waiting.popleft())
        self._sent = count
