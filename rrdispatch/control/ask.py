"""Requests to primaries from a command: several at once, each with an end, no thread and no loop.

Owns the sockets it opens. Light to import: ``list`` pays for it at every call.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rrdispatch.control import protocol, statedir
from rrdispatch.errors import ControlError, Error, ProtocolError

ANSWER = 10.0  # seconds for what is answered at once; an heir that has to begin first needs some

OnEvent = Callable[[dict[str, Any]], object]


class GoneError(ControlError):
    """It ended before it answered."""


class SkewError(ControlError):
    """The primary is of another version: it does not know, or does not tell, what we ask for."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(
            f"the primary of {name} is of another version: {what}",
            hint=f"rrdispatch stop {name}, then start it again",
        )


class Told(dict[str, Any]):
    """An object in an answer; for what is missing in it there is one explanation."""

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._name = name

    def __missing__(self, key: str) -> Any:
        raise SkewError(self._name, f"it does not tell {key!r}")


class Line:
    """A connection to one primary: requests out, answers and events in."""

    def __init__(self, name: str, control: socket.socket, on_event: OnEvent | None = None) -> None:
        self.name = name
        self.control = control
        self._on_event = on_event
        self._data = bytearray()
        self._last = 0
        self.answers: dict[int, dict[str, Any]] = {}
        self.ended = False

    @classmethod
    def to(cls, name: str, base: Path | None = None, on_event: OnEvent | None = None) -> Line:
        """NotRunningError if nobody listens."""
        return cls(name, statedir.connect(name, base, ANSWER), on_event)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.control.close()

    def send(self, method: str, **params: Any) -> int:
        """Its number."""
        self._last += 1
        self.control.settimeout(ANSWER)
        try:
            self.control.sendall(protocol.request(method, params, self._last))
        except OSError as error:
            raise self._gone() from error
        return self._last

    def call(self, method: str, timeout: float = ANSWER, **params: Any) -> Any:
        """The result, the primary's exception, or ControlError if it takes too long."""
        number, end = self.send(method, **params), time.monotonic() + timeout
        while number not in self.answers:
            self.wait(end, method)
        return self.result(number)

    def result(self, number: int) -> Any:
        answer = self.answers.pop(number)
        if "error" in answer:
            if answer["error"].get("code") == protocol.NO_METHOD:
                raise SkewError(self.name, answer["error"]["message"])
            raise protocol.exception(answer["error"])
        return answer.get("result")

    def wait(self, end: float, what: str = "") -> None:
        """Takes what comes next, before ``end`` of the monotonic clock."""
        if self.ended:
            raise self._gone()
        left = end - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self.control.settimeout(left)
            self.take()
        except TimeoutError:
            raise statedir.SilentError(
                f"{self.name} did not answer {what} in time",
                hint=f"is its primary stopped? rrdispatch ping {self.name}",
            ) from None

    def take(self) -> None:
        """Reads once."""
        try:
            piece = self.control.recv(65536)
        except ConnectionError:
            piece = b""
        self.ended = not piece
        self._data += piece
        while (end := self._data.find(b"\n")) >= 0:
            message = protocol.parse_answer(bytes(self._data[:end]), self._told)
            del self._data[: end + 1]
            if message.get("method") == "event":
                if self._on_event is not None:
                    self._on_event(message.get("params") or {})
            else:
                self.answers[message.get("id") or 0] = message
        if len(self._data) > protocol.MOST_ANSWER:
            raise ProtocolError(f"an answer of {self.name} is too long")

    def _told(self, values: dict[str, Any]) -> Told:
        return Told(self.name, values)

    def _gone(self) -> GoneError:
        return GoneError(f"the primary of {self.name} ended before it answered")


def ask(name: str, method: str, timeout: float = ANSWER, **params: Any) -> Any:
    """One request to one app."""
    with Line.to(name) as line:
        return line.call(method, timeout, **params)


def ask_all(names: Iterable[str], method: str, timeout: float = ANSWER) -> Mapping[str, Any]:
    """One request to each at once: its result, or the Error instead."""
    found: dict[str, Any] = {}
    open_lines: dict[int, Line] = {}
    end = time.monotonic() + timeout
    try:
        for name in names:
            found[name] = _begin(name, method, open_lines)
        waiting = {fd: line for fd, line in open_lines.items() if found[line.name] is None}
        _collect(waiting, found, end)
    finally:
        for line in open_lines.values():
            line.control.close()
    return found


def _begin(name: str, method: str, lines: dict[int, Line]) -> Error | None:
    try:
        line = Line.to(name)
        lines[line.control.fileno()] = line
        line.send(method)
    except Error as error:
        return error
    return None


def _collect(lines: dict[int, Line], found: dict[str, Any], end: float) -> None:
    poll = select.poll()
    for fd in lines:
        poll.register(fd, select.POLLIN)
    while lines and (left := end - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000 + 1):
            name = lines[fd].name
            found[name] = _take(lines[fd])
            if found[name] is not None:
                poll.unregister(fd)
                del lines[fd]
    for line in lines.values():
        hint = f"is its primary stopped? rrdispatch stop --now {line.name} ends it"
        found[line.name] = statedir.SilentError(f"{line.name} does not answer", hint=hint)


def _take(line: Line) -> Any:
    """Its result or error, if that has come."""
    try:
        line.take()
        if line.answers:
            return line.result(1)
        if line.ended:
            raise GoneError(f"the primary of {line.name} ended before it answered")
    except Error as error:
        return error
    return None
