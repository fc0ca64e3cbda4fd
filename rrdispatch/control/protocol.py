"""JSON-RPC 2.0, one object per line: what may be written on a control socket, and how it is read.

Pure: no socket, no loop. Errors carry the name of our exception class and its hint, so that the
other side raises the same one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rrdispatch import errors
from rrdispatch.errors import ControlError, Error, ProtocolError

MOST_REQUEST = 64 * 1024
MOST_ANSWER = 4 << 20

PARSE_ERROR, INVALID_REQUEST, NO_METHOD, INVALID_PARAMS = -32700, -32600, -32601, -32602
OURS = -32000  # minus the exit code of the exception's class

# Only these are rebuilt from a name: a literal table, never a look-up in a module.
CLASSES: dict[str, type[Error]] = {
    kind.__name__: kind
    for kind in (
        errors.ConfigError, errors.BindError, errors.TargetError, errors.MissingExtraError,
        errors.StartError, errors.ReloadError, errors.DispatcherError, errors.ControlError,
        errors.ProtocolError,
    )
}  # fmt: skip


class BadRequestError(ProtocolError):
    """A line that is no request; ``code`` is JSON-RPC's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Request:
    """A call; without ``id`` a notification."""

    method: str
    params: dict[str, Any] = field(default_factory=dict)
    id: int | str | None = None


def line(message: Mapping[str, Any]) -> bytes:
    """One object as one line."""
    return json.dumps({"jsonrpc": "2.0", **message}, separators=(",", ":")).encode() + b"\n"


def request(method: str, params: Mapping[str, Any], number: int) -> bytes:
    """A call; ControlError if it is too long for the other side."""
    data = line({"id": number, "method": method, "params": dict(params)})
    if len(data) > MOST_REQUEST:
        raise ControlError(
            f"the request {method} has {len(data)} bytes, the most is {MOST_REQUEST}",
            hint="put long values of env into an env_file",
        )
    return data


def result(number: int | str, value: Any) -> bytes:
    return line({"id": number, "result": value})


def event(told: Mapping[str, Any]) -> bytes:
    """A notification to a subscriber."""
    return line({"method": "event", "params": dict(told)})


def failure(number: int | str | None, error: Exception) -> bytes:
    """The answer to a call that failed."""
    if isinstance(error, BadRequestError):
        told: dict[str, Any] = {"code": error.code, "message": error.message}
    elif isinstance(error, Error):
        data = {"class": type(error).__name__, "hint": error.hint}
        for name in ("traceback", "output"):
            if text := getattr(error, name, ""):
                data[name] = str(text)
        told = {"code": OURS - error.exit_code, "message": error.message, "data": data}
    else:
        text = f"{type(error).__name__}: {error}"
        told = {"code": OURS, "message": f"the primary failed: {text}", "data": {}}
    return line({"id": number, "error": told})


def exception(told: Mapping[str, Any]) -> Error:
    """The exception that an answer's ``error`` stands for."""
    found = told.get("data")
    data: Mapping[str, Any] = found if isinstance(found, dict) else {}
    kind = CLASSES.get(str(data.get("class")), ControlError)
    extra = {
        name: str(data[name])
        for name in ("traceback", "output")
        if name in data and issubclass(kind, _HAVING[name])
    }
    return kind(str(told.get("message", "unknown error")), hint=data.get("hint"), **extra)


def end_error(event: Mapping[str, Any]) -> Error | None:
    """What ended a service that was not asked to end, as its last event tells it."""
    told = event.get("error") if event.get("event") == "stopped" else None
    return exception({**told, "data": told}) if isinstance(told, dict) else None


_HAVING: dict[str, tuple[type[Error], ...]] = {
    "traceback": (errors.TargetError,),
    "output": (errors.ReloadError, errors.StartError),
}


def parse_request(data: bytes) -> Request:
    """One line from a client; BadRequestError says what is wrong with it."""
    message = _object(data)
    method, params, number = message.get("method"), message.get("params", {}), message.get("id")
    if message.get("jsonrpc") != "2.0" or not isinstance(method, str):
        raise BadRequestError(INVALID_REQUEST, "not a JSON-RPC 2.0 request")
    if isinstance(number, bool) or not isinstance(number, int | str | None):
        raise BadRequestError(INVALID_REQUEST, "id is neither a number nor a text")
    if not isinstance(params, dict):
        raise BadRequestError(INVALID_PARAMS, "params is not an object: arguments have names")
    return Request(method, params, number)


Hook = Callable[[dict[str, Any]], Any]  # what is made of each object


def parse_answer(data: bytes, hook: Hook | None = None) -> dict[str, Any]:
    """One line from a primary: an answer or a notification."""
    return _object(data, hook)


def _object(data: bytes, hook: Hook | None = None) -> dict[str, Any]:
    try:
        message = json.loads(data, object_hook=hook)
    except (ValueError, RecursionError):
        raise BadRequestError(PARSE_ERROR, "not JSON") from None
    if not isinstance(message, dict):
        raise BadRequestError(INVALID_REQUEST, "not a JSON object")
    return message
