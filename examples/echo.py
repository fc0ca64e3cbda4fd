"""An asyncio echo server: not HTTP, one function.

rrdispatch run echo:serve --cwd examples
nc 127.0.0.1 8000
"""

from __future__ import annotations

import asyncio
import os
import socket

from rrdispatch.aio import start_server

SLOT = os.environ.get("RRDISPATCH_SLOT", "?")


async def serve(listener: socket.socket) -> None:
    """``listener`` is a listening socket of the connections that are this worker's turn."""
    async with await start_server(echo, sock=listener) as server:
        await server.serve_forever()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(f"worker {SLOT}\n".encode())
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()
