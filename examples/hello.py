"""A plain ASGI app, no framework: says which worker answered.

rrdispatch run hello:app --cwd examples -i max
curl http://127.0.0.1:8000
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
SLOT = os.environ.get("RRDISPATCH_SLOT", "?")


async def app(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Answer every request with the worker's slot and pid."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    body = f"hello from worker {SLOT}, pid {os.getpid()}\n".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(
    receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Start-up and shutdown: a worker is ready when the first is complete."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
