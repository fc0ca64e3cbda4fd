"""Everybody who is connected to an app's control socket: let in, counted, shown out at the end.

Who is let in: processes of our user or of root. Owns the listener's loop; what is said is
server.py's business.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct

from rrdispatch.cluster.door import AGAIN_AFTER, SHORT
from rrdispatch.cluster.supervisor import Supervisor
from rrdispatch.control.app import App
from rrdispatch.control.protocol import MOST_REQUEST
from rrdispatch.control.server import Connection

MOST_CLIENTS = 32
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


class Clients:
    """From ``start`` to ``close``; the listening socket stays its owner's."""

    def __init__(
        self, listener: socket.socket, supervisor: Supervisor, app: App | None = None
    ) -> None:
        self._listener = listener
        self._supervisor = supervisor
        self._app = app
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._watch()

    def _watch(self) -> None:
        self._loop.add_reader(self._listener, self._come)

    def _come(self) -> None:
        """Those beyond the most wait in the backlog until somebody goes."""
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in SHORT:
                raise
            self._loop.remove_reader(self._listener)  # whoever waits there makes it readable
            self._again = self._loop.call_later(AGAIN_AFTER, self._watch)
            return
        if not allowed(client):
            client.close()
            return
        task = self._loop.create_task(self._serve(client))
        self._tasks.add(task)
        task.add_done_callback(self._gone)
        if len(self._tasks) >= MOST_CLIENTS:
            self._loop.remove_reader(self._listener)

    def _gone(self, task: asyncio.Task[None]) -> None:
        full = len(self._tasks) >= MOST_CLIENTS
        self._tasks.discard(task)
        if full and self._listener.fileno() >= 0:
            self._watch()

    async def _serve(self, client: socket.socket) -> None:
        client.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=client, limit=MOST_REQUEST)
        connection = Connection(reader, writer, self._supervisor, app=self._app)
        try:
            await connection.serve()
        finally:
            await connection.finish()

    async def close(self) -> None:
        """The service is over: answers under way are written, then all are shown out."""
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._listener)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2.0)


def allowed(client: socket.socket) -> bool:
    """The peer, as it was when it connected, is our user or root."""
    told = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    _, uid, _ = CREDENTIALS.unpack(told)
    return uid in (os.getuid(), 0)
