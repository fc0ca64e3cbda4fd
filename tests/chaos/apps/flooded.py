"""As little as can be per connection, on asyncio: ``/`` and ``/big/KB``, and it is closed."""

from __future__ import annotations

import asyncio
from typing import Any

import rrdispatch.aio


class Answering(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.head = b""

    def data_received(self, data: bytes) -> None:
        self.head += data
        if b"\r\n\r\n" not in self.head:
            return
        path = self.head.split(b" ", 2)[1]
        size = int(path[5:]) * 1024 if path.startswith(b"/big/") else 2
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
        self.transport.write(head.encode() + b"x" * size)
        self.transport.close()


async def serve(listener: Any) -> None:
    server = await rrdispatch.aio.create_server(Answering, sock=listener)
    async with server:
        await server.serve_forever()
