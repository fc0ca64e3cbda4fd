"""The app of the acceptance tests: tells who answered, and writes down what it took and finished.

One program in four forms: ``asgi``, ``wsgi``, ``serve(listener)`` (one connection at a time) and
``aserve(listener)``. Paths: ``/`` at once; ``/sleep/MS`` waits without blocking an event loop;
``/block/MS`` blocks its thread or loop.

With ``PROBE_JOURNAL=DIR`` each worker appends to a file of its own there: ``S id ns`` when the app
begins a request, ``E id ns`` when it has its answer, ``T port ns`` when a connection was taken.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import journal  # type: ignore[import-not-found,unused-ignore]  # it lies beside this file

VERSION = os.environ.get("PROBE_VERSION", "") or Path(__file__).with_name("version").read_text()
PID = os.getpid()
BOOT_SECONDS = float(os.environ.get("PROBE_BOOT", "0"))
SLOT = os.environ.get("RRDISPATCH_SLOT", "-1")


time.sleep(BOOT_SECONDS)  # an app that takes its time to load


def split(target: str, query: str) -> tuple[str, float, str]:
    """Verb, seconds, and the request's id."""
    verb, _, amount = target.strip("/").partition("/")
    number = parse_qs(query).get("id", [""])[0]
    return verb, float(amount or 0) / 1000, number


def headers(service: int) -> list[tuple[str, str]]:
    return [
        ("Content-Type", "text/plain"),
        ("Content-Length", str(len(body()))),
        ("X-Pid", str(PID)),
        ("X-Slot", SLOT),
        ("X-Version", VERSION.strip()),
        ("X-Service", str(service)),
    ]


def body() -> bytes:
    return f"slot {SLOT} pid {PID} version {VERSION.strip()}\n".encode()


def work(verb: str, seconds: float) -> None:
    if verb in ("sleep", "block"):
        time.sleep(seconds)


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    begin = time.monotonic_ns()
    verb, seconds, number = split(scope["path"], scope["query_string"].decode())
    journal.write("S", number)
    if verb == "sleep":
        await asyncio.sleep(seconds)
    else:
        work(verb, seconds)
    journal.write("E", number)
    pairs = [(k.lower().encode(), v.encode()) for k, v in headers(time.monotonic_ns() - begin)]
    await send({"type": "http.response.start", "status": 200, "headers": pairs})
    await send({"type": "http.response.body", "body": body()})


async def lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    begin = time.monotonic_ns()
    verb, seconds, number = split(environ["PATH_INFO"], environ.get("QUERY_STRING", ""))
    journal.write("S", number)
    work(verb, seconds)
    journal.write("E", number)
    start_response("200 OK", headers(time.monotonic_ns() - begin))
    return [body()]


def respond(head: bytes, begin: int) -> bytes:
    """The whole answer of the two raw forms to a request's head; blocks as the path says."""
    target, _, query = head.split(b" ", 2)[1].decode().partition("?")
    verb, seconds, number = split(target, query)
    journal.write("S", number)
    work(verb, seconds)
    journal.write("E", number)
    return answer(begin)


def answer(begin: int) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers(time.monotonic_ns() - begin)]
    head = "\r\n".join(["HTTP/1.1 200 OK", *lines, "Connection: close"])
    return head.encode() + b"\r\n\r\n" + body()


def serve(listener: Any) -> None:
    """One connection at a time, for ever."""
    while True:
        connection, _ = listener.accept()
        with connection:
            begin = time.monotonic_ns()
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(65536)
                if not data:
                    break
                head += data
            else:
                connection.sendall(respond(head, begin))


async def aserve(listener: Any) -> None:
    """The same in asyncio, any number at a time."""
    import rrdispatch.aio

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begin = time.monotonic_ns()
        head = await reader.readuntil(b"\r\n\r\n")
        target, _, query = head.split(b" ", 2)[1].decode().partition("?")
        verb, seconds, number = split(target, query)
        journal.write("S", number)
        if verb == "sleep":
            await asyncio.sleep(seconds)
        else:
            work(verb, seconds)
        journal.write("E", number)
        writer.write(answer(begin))
        await writer.drain()
        writer.close()

    server = await rrdispatch.aio.start_server(handle, sock=listener)
    async with server:
        await server.serve_forever()
