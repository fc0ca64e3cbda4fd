r"""The access log: one line per request on stdout, the same for ASGI and WSGI.

    127.0.0.1:51234 - "GET /path?q=1 HTTP/1.1" 200 12ms

Owns the format. A line is written whole; what can't be printed in a target is %-encoded, so that
no client can forge a line or reach a terminal.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TextIO

_UNSAFE = re.compile(r'[^\x21-\x7e]|["\\]')


@dataclass(frozen=True)
class Request:
    """What a line tells of a request. ``host`` is None for a peer of a unix socket."""

    host: str | None
    port: int
    method: str
    target: str
    version: str


def line(request: Request, status: int, seconds: float) -> str:
    return (
        f'{client(request.host, request.port)} - "{clean(request.method)} '
        f'{clean(request.target)} HTTP/{clean(request.version)}" {status} {took(seconds)}'
    )


def client(host: str | None, port: int) -> str:
    """A port of 0 is not known: the address came from a proxy's header."""
    if not host:
        return "unix"
    host = clean(host)
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def took(seconds: float) -> str:
    """``0.4ms``, ``12ms``, ``3400ms``: always milliseconds, so that columns compare."""
    milliseconds = seconds * 1000
    return f"{milliseconds:.1f}ms" if milliseconds < 10 else f"{milliseconds:.0f}ms"


def clean(text: str) -> str:
    return _UNSAFE.sub(_encoded, text)


def _encoded(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode(errors="replace"))


def write(request: Request, status: int, seconds: float, stream: TextIO | None = None) -> None:
    """One write per line: other threads' lines don't mix with it."""
    out = stream or sys.stdout
    try:
        out.write(line(request, status, seconds) + "\n")
        out.flush()
    except (OSError, ValueError):
        # Nobody reads the log, or the app closed stdout: no reason to fail a request.
        return
