"""What one writes first who wants turns: accept, ``send_fds`` to the next worker, close.

    python naive.py PORT WORKERS

The workers serve with uvicorn what they are sent. Nothing else is done: no care for the stuck and
the dead, no limit to what waits, no reload.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import socket
import sys
from itertools import cycle
from typing import Any

import uvicorn
from baseline import listener


class Taking(uvicorn.Server):
    """Listens nowhere."""

    channel: socket.socket

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.connecting: set[asyncio.Task[Any]] = set()
        asyncio.get_running_loop().add_reader(self.channel, self.take)

    def take(self) -> None:
        loop = asyncio.get_running_loop()
        _, fds, _, _ = socket.recv_fds(self.channel, 1, 1)
        for fd in fds:
            connection = socket.socket(fileno=fd)
            connection.setblocking(False)
            task = loop.create_task(loop.connect_accepted_socket(self.protocol, connection))
            self.connecting.add(task)
            task.add_done_callback(self.connecting.discard)

    def protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        state = self.lifespan.state
        made: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state=state
        )
        return made


def serve(channel: socket.socket) -> None:
    server = Taking(uvicorn.Config("contender:asgi", log_level="warning", access_log=False))
    server.channel = channel
    server.run([])


def main(port: int, number: int) -> None:
    listening = listener(port, reuse=False)
    context = multiprocessing.get_context("fork")
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(number)]
    workers = [context.Process(target=serve, args=(pair[1],), daemon=True) for pair in pairs]
    for worker in workers:
        worker.start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for sender, _ in cycle(pairs):
        connection, _ = listening.accept()
        socket.send_fds(sender, [b"x"], [connection.fileno()])
        connection.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
