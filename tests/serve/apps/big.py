"""Answers 5 MB in one piece."""

from __future__ import annotations

from typing import Any

BODY = bytes(range(250)) * 20_000
LENGTH = str(len(BODY))


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise RuntimeError("none")
    headers = [(b"content-length", LENGTH.encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", LENGTH)])
    return [BODY]
