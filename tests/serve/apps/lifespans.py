"""Apps whose lifespan goes wrong, each in its way."""

from __future__ import annotations

from typing import Any


async def refuses(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        text = "Traceback (most recent call last):\n  ...\nRuntimeError: no database"
        await send({"type": "lifespan.startup.failed", "message": text})


async def raises(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan here")
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def hangs(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    print("starting", flush=True)
    await receive()
