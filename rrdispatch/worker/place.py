"""A worker's place: who it is and what it was given, read from its environment once.

Owns the variables of ``docs/protocol.md`` section 2. It opens, maps and says nothing.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from rrdispatch.errors import ProtocolError

PROTOCOL = "1"
FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}

# The numbers of descriptors and the settings are this process' own business; what remains says
# to the app and its children where they are.
_OWN = ("LISTENERS", "SCOREBOARD", "NOTIFY", "LIFELINE", "APP", "PROTOCOL")


@dataclass(frozen=True)
class Bound:
    """One bound address: the channel that brings its connections."""

    fd: int
    family: socket.AddressFamily
    address: Any  # as getsockname gives it: (host, port, ...) or a path

    def __str__(self) -> str:
        if self.family == socket.AF_UNIX:
            return f"unix:{self.address}"
        host, port = self.address[:2]
        return f"[{host}]:{port}" if self.family == socket.AF_INET6 else f"{host}:{port}"


@dataclass(frozen=True)
class Place:
    """Everything a worker knows about itself."""

    name: str
    slot: int
    generation: int
    workers: int
    listeners: tuple[Bound, ...]
    scoreboard: int
    notify: int
    lifeline: int | None = None
    app: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Place:
        """Read it; ProtocolError says which variable is missing or wrong."""
        source = os.environ if environ is None else environ
        protocol = _get(source, "PROTOCOL")
        if protocol != PROTOCOL:
            raise ProtocolError(f"RRDISPATCH_PROTOCOL is {protocol!r}, this worker speaks 1")
        lifeline = source.get("RRDISPATCH_LIFELINE")
        return cls(
            name=_get(source, "NAME"),
            slot=_number(source, "SLOT"),
            generation=_number(source, "GENERATION"),
            workers=_number(source, "WORKERS"),
            listeners=tuple(_bound(item) for item in _json(source, "LISTENERS", list)),
            scoreboard=_number(source, "SCOREBOARD"),
            notify=_number(source, "NOTIFY"),
            lifeline=_number(source, "LIFELINE") if lifeline else None,
            app=_json(source, "APP", dict) if source.get("RRDISPATCH_APP") else {},
        )

    def descriptors(self) -> list[int]:
        """Every descriptor that was given to this worker."""
        fixed = [self.scoreboard, self.notify, *(bound.fd for bound in self.listeners)]
        return fixed if self.lifeline is None else [*fixed, self.lifeline]

    def keep_from_children(self, environ: MutableMapping[str, str] | None = None) -> None:
        """Programs that the app starts get neither the descriptors nor their numbers."""
        for fd in self.descriptors():
            os.set_inheritable(fd, False)
        source = os.environ if environ is None else environ
        for key in _OWN:
            source.pop("RRDISPATCH_" + key, None)


def _get(environ: Mapping[str, str], key: str) -> str:
    try:
        return environ["RRDISPATCH_" + key]
    except KeyError:
        raise ProtocolError(
            f"RRDISPATCH_{key} is not set", hint="workers are started by rrdispatch"
        ) from None


def _number(environ: Mapping[str, str], key: str) -> int:
    text = _get(environ, key)
    if not (text.isascii() and text.isdigit()):
        raise ProtocolError(f"RRDISPATCH_{key} is {text!r}, not a number")
    return int(text)


def _json(environ: Mapping[str, str], key: str, kind: type) -> Any:
    try:
        value = json.loads(_get(environ, key))
    except ValueError:
        raise ProtocolError(f"RRDISPATCH_{key} is not JSON") from None
    if not isinstance(value, kind):
        raise ProtocolError(f"RRDISPATCH_{key} is not a JSON {kind.__name__}")
    return value


def _bound(item: Any) -> Bound:
    try:
        address = item["address"]
        address = address if isinstance(address, str) else tuple(address)
        return Bound(int(item["fd"]), FAMILIES[item["family"]], address)
    except (KeyError, TypeError, ValueError):
        raise ProtocolError(f"RRDISPATCH_LISTENERS has a wrong entry: {item!r}") from None
