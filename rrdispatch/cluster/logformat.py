"""How a line of a worker looks in a log, and how it is read back from there.

    text  2026-11-26T05:28:11.123Z shop.0 out | the line
    json  {"timestamp": …, "app_name": …, "slot": 0, "type": "out", "message": …}
    raw   the line

A piece of a very long line goes on with ``+`` in place of ``|`` (json: ``"part": true``).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

OUT, ERR = "out", "err"
_TEXT = re.compile(
    rb"(?:(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) )?([A-Za-z0-9._-]{1,64})\.(\d{1,9}) (out|err) "
    rb"([|+]) (.*)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Format:
    """One log's."""

    kind: str  # text, json, raw
    time: bool
    streams: bool  # out and err are said

    def text(self, who: Who, body: bytes, stamp: int, continues: bool = False) -> bytes:
        """Lines as they are written; the body is without its last newline."""
        if self.kind == "raw":
            return body + b"\n"
        if self.kind == "json":
            lines = body.split(b"\n")
            first = self._json(who, lines[0], stamp, continues)
            return first + b"".join(self._json(who, line, stamp, False) for line in lines[1:])
        head = self._head(who, stamp)
        first = head[:-2] + b"+ " if continues else head
        return first + body.replace(b"\n", b"\n" + head) + b"\n"

    def note(self, app: str, message: str, stamp: int) -> bytes:
        """A line of our own, about the log: whoever reads JSON has JSON in every line."""
        if self.kind != "json":
            return f"{message}\n".encode()
        told: dict[str, Any] = {"timestamp": iso(stamp)} if self.time else {}
        told |= {"app_name": app, "slot": None, "type": ERR, "message": message}
        return json.dumps(told).encode() + b"\n"

    def _head(self, who: Who, stamp: int) -> bytes:
        time = f"{iso(stamp)} " if self.time else ""
        stream = f" {who.stream}" if self.streams else ""
        return f"{time}{who.app}.{who.slot}{stream} | ".encode()

    def _json(self, who: Who, line: bytes, stamp: int, continues: bool) -> bytes:
        told: dict[str, Any] = {"timestamp": iso(stamp)} if self.time else {}
        told |= {"app_name": who.app, "slot": who.slot, "type": who.stream}
        told |= {"part": True} if continues else {}
        told["message"] = line.decode(errors="replace")
        return json.dumps(told).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Who:
    """Whose line."""

    app: str
    slot: int
    stream: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it was read from a file; what the file does not say is what the reader knows."""

    message: bytes
    app: str
    slot: int | None = None
    stream: str | None = None
    stamp: str = ""
    part: bool = False

    def json(self) -> str:
        told: dict[str, Any] = {"timestamp": self.stamp} if self.stamp else {}
        told |= {"app_name": self.app, "slot": self.slot, "type": self.stream}
        told |= {"part": True} if self.part else {}
        return json.dumps(told | {"message": self.message.decode(errors="replace")})


def parse(kind: str, raw: bytes, known: Line) -> Line:
    """``raw`` without its newline; ``known``: what its file says of each line in it. A line that
    is none of ours is shown as it is.
    """
    if kind == "json":
        return _parse_json(raw, known)
    found = _TEXT.fullmatch(raw) if kind == "text" else None
    if found is None:
        return Line(raw, known.app, known.slot, known.stream)
    stamp, app, slot, stream, sign, message = found.groups()
    said = (app.decode(), int(slot), stream.decode(), (stamp or b"").decode())
    return Line(message, *said, part=sign == b"+")


def _parse_json(raw: bytes, known: Line) -> Line:
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, Mapping) or not isinstance(told.get("message"), str):
        return Line(raw, known.app, known.slot, known.stream)
    slot = told.get("slot")
    return Line(
        told["message"].encode(errors="replace"),
        str(told.get("app_name", known.app)),
        slot if isinstance(slot, int) else known.slot,
        told["type"] if told.get("type") in (OUT, ERR) else known.stream,
        str(told.get("timestamp", "")),
        told.get("part") is True,
    )


@functools.lru_cache(maxsize=8)
def iso(stamp: int) -> str:
    """Milliseconds of the clock as UTC."""
    seconds, milliseconds = divmod(stamp, 1000)
    when = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{when:%Y-%m-%dT%H:%M:%S}.{milliseconds:03}Z"
