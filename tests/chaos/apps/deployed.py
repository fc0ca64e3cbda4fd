"""The probe app, and beside it streamed answers (``/stream/MS``) and WebSockets that echo."""

from __future__ import annotations

import asyncio
from typing import Any

import probe  # type: ignore[import-not-found,unused-ignore]  # it lies beside this file

PIECES = 10


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["type"] == "http" and scope["path"].startswith("/stream/"):
        await stream(float(scope["path"].split("/")[2]) / 1000, send)
    else:
        await probe.asgi(scope, receive, send)


async def stream(seconds: float, send: Any) -> None:
    """Ten pieces in so many seconds."""
    body = probe.body() * PIECES
    sizes = {"Content-Length": str(len(body))}
    pairs = [
        (name.lower().encode(), sizes.get(name, value).encode())
        for name, value in probe.headers(int(seconds * 1e9))
    ]
    await send({"type": "http.response.start", "status": 200, "headers": pairs})
    for number in range(PIECES):
        await asyncio.sleep(seconds / PIECES)
        more = number < PIECES - 1
        await send({"type": "http.response.body", "body": probe.body(), "more_body": more})


async def echo(receive: Any, send: Any) -> None:
    """Every question is answered with who answers: ``pid slot version``."""
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.receive":
            text = f"{probe.PID} {probe.SLOT} {probe.VERSION.strip()}"
            await send({"type": "websocket.send", "text": text})
        else:
            return
