"""Everybody who is connected to an app's control socket: let in, counted, shown out at the end.

Who is let in: processes of our user or of root. Owns the listener's loop; what is said is
server.py's business.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct

from rrdispatch.cluster.supervisor import Supervisor
from rrdispatch.control.app import App
from rrdispatch.control.protocol import MOST_REQUEST
from rrdispatch.control.server import Connection
from rrdispatch.net.entrance import Entrance

MOST_CLIENTS = 32
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


class Clients:
    """From ``start`` to ``close``; the listening socket stays its owner's."""

    def __init__(
        self, listener: socket.socket, supervisor: Supervisor, app: App | None = None
    ) -> None:
        self._supervisor = supervisor
        self._app = app
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._entrance = Entrance(listener, self._come)

    def _come(self, client: socket.socket) -> None:
        """Those beyond the most wait in the backlog until somebody goes."""
        if not allowed(client):
            client.close()
            return
        task = self._loop.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(self._gone)
        if len(self._tasks) >= MOST_CLIENTS:
            self._entrance.pause()

    def _gone(self, task: asyncio.Task[None]) -> None:
        full = len(self._tasks) >= MOST_CLIENTS
        self._tasks.discard(task)
        if full:
            self._entrance.resume()

    async def _serve(self, client: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=client, limit=MOST_REQUEST)
        connection = Connection(reader, writer, self._supervisor, app=self._app)
        try:
            await connection.serve()
        finally:
            await connection.finish()

    async def close(self) -> None:
        """The service is over: answers under way are written, then all are shown out."""
        self._entrance.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)


def allowed(client: socket.socket) -> bool:
    """The peer, as it was when it connected, is our user or root."""
    told = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    _, uid, _ = CREDENTIALS.unpack(told)
    return uid in (os.getuid(), 0)
