"""The one app that every Python contender serves, as ASGI and as WSGI.

Each answer tells the worker's pid and the version of the deploy. ``/`` answers at once,
``/sleep/MS`` waits as a database does, ``/block/MS`` blocks its event loop or thread. A WebSocket
is told who answers.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

VERSION = Path(__file__).with_name("version").read_text().strip()
BODY = b"Hello from one of the workers.\n"
HEADERS = [
    ("content-type", "text/plain"),
    ("content-length", str(len(BODY))),
    ("x-pid", str(os.getpid())),
    ("x-version", VERSION),
]
RAW = [(name.encode(), value.encode()) for name, value in HEADERS]


def asked(path: str) -> tuple[str, float]:
    """Verb and seconds."""
    verb, _, amount = path.strip("/").partition("/")
    return verb, float(amount or 0) / 1000


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo(receive, send)
    else:
        verb, seconds = asked(scope["path"])
        if verb == "sleep":
            await asyncio.sleep(seconds)
        elif verb == "block":
            time.sleep(seconds)  # noqa: ASYNC251  # an app that blocks is what it stands for
        await send({"type": "http.response.start", "status": 200, "headers": RAW})
        await send({"type": "http.response.body", "body": BODY})


async def lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def echo(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": str(os.getpid())})
        else:
            return


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    verb, seconds = asked(environ["PATH_INFO"])
    if verb in ("sleep", "block"):
        time.sleep(seconds)
    start_response("200 OK", list(HEADERS))
    return [BODY]
