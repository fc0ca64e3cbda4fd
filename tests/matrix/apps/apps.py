"""What the application servers run: every answer says which process gave it and whom it saw."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

BODY = b"hello\n"


def told(host: object, port: object = None) -> dict[str, str]:
    """The headers of an answer; the port only where the server tells it."""
    peer = f"{host}:{port}" if port else str(host)
    length = str(len(BODY))
    return {"X-Pid": str(os.getpid()), "X-Peer": peer, "Content-Length": length}


def wsgi(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    headers = told(environ["REMOTE_ADDR"], environ.get("REMOTE_PORT"))
    start_response("200 OK", list(headers.items()))
    return [BODY]


async def asgi(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        body = said(scope)
        headers = told(*scope["client"]) | {"Content-Length": str(len(body))}
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": pairs})
        await send({"type": "http.response.body", "body": body})
    else:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": said(scope).decode()})
        await send({"type": "websocket.close"})


def said(scope: dict[str, Any]) -> bytes:
    """``PID PEER``, for clients that read no headers."""
    headers = told(*scope["client"])
    return f"{headers['X-Pid']} {headers['X-Peer']}".encode()
