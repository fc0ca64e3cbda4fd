"""Functions serve(listener), as people write them."""

from __future__ import annotations

import asyncio
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import rrdispatch
import rrdispatch.aio


def lines(listener: Any) -> None:
    """One connection at a time: what it sends comes back, until it ends."""
    for connection, address in listener:
        with connection, connection.makefile("rwb") as stream:
            for line in stream:
                stream.write(b"%s %s" % (str(address).encode(), line))
                stream.flush()
    print("returned", flush=True)


def bare(listener: Any) -> None:
    """A loop that knows nothing of draining."""
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"hello\n")


def says_ready(listener: Any) -> None:
    rrdispatch.ready(capacity=3)
    bare(listener)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *args: Any) -> None:
        pass


class Threaded(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True


def http(listener: Any) -> None:
    """The standard library's server over our listener. It never returns by itself."""
    server = Threaded(listener.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.serve_forever()


def fails(listener: Any) -> None:
    listener.accept()
    raise RuntimeError("the function failed")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data)
        await writer.drain()
    writer.close()


async def streams(listener: Any) -> None:
    """Our start_server, closed by the drain."""
    server = await rrdispatch.aio.start_server(echo, sock=listener)
    await server.serve_forever()
    print("returned", flush=True)


async def plain_asyncio(listener: Any) -> None:
    """asyncio's own start_server over our listener (not with uvloop)."""
    async with await asyncio.start_server(echo, sock=listener) as server:
        await server.serve_forever()


async def sock_accept(listener: Any) -> None:
    loop = asyncio.get_running_loop()
    listener.setblocking(False)
    while True:
        connection, _ = await loop.sock_accept(listener)
        with connection:
            connection.setblocking(False)
            await loop.sock_sendall(connection, b"hello\n")


def two(listener: Any) -> None:
    """Called once per bound address, in threads."""
    for connection, _ in listener:
        with connection:
            connection.sendall(threading.current_thread().name.encode() + b"\n")
