"""One app three times: plain ASGI, plain WSGI, and serve(listener). No framework.

``/who`` tells what the server said of the request; ``/wait`` is answered when ``/go`` was asked;
``/stream`` sends its head at once and its body after ``/go``; ``/fail`` raises.
"""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

GO = asyncio.Event()
GO_THREADS = threading.Event()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await echo(receive, send)
    else:
        await answer(scope, receive, send)


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    print("lifespan shutdown", flush=True)
    await send({"type": "lifespan.shutdown.complete"})


async def echo(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            print("websocket closed", message["code"], flush=True)
            return


async def answer(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"].removeprefix(scope["root_path"])
    body = b"hello"
    if path == "/fail":
        raise RuntimeError("the app failed")
    if path == "/wait":
        await GO.wait()
    if path == "/go":
        GO.set()
    if path == "/who":
        client = scope["client"]
        told = {
            "scheme": scope["scheme"],
            "client": client[0] if client else None,
            "port": client[1] if client else None,
            "root": scope["root_path"],
            "path": path,
        }
        body = json.dumps(told).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if path == "/stream":
        await GO.wait()
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    path = environ["PATH_INFO"]
    body = b"hello"
    if path == "/fail":
        raise RuntimeError("the app failed")
    if path == "/wait":
        GO_THREADS.wait()
    if path == "/go":
        GO_THREADS.set()
    if path == "/who":
        told = {
            "scheme": environ["wsgi.url_scheme"],
            "client": environ["REMOTE_ADDR"],
            "port": int(environ.get("REMOTE_PORT", 0)),
            "root": environ["SCRIPT_NAME"],
            "path": path,
        }
        body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def make_asgi() -> Any:
    return app
