"""Whoever comes to a listening socket of the primary itself, let in by its event loop.

Owns the watch on the socket, not the socket. Where nobody can be let in for want of descriptors or
memory it looks away for a moment: whoever waits there makes the socket readable all the time.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)
AGAIN_AFTER = 0.1


class Entrance:
    """Open from its construction on, until ``close``."""

    def __init__(self, listener: socket.socket, come: Callable[[socket.socket], object]) -> None:
        """``come``: whose the accepted socket, which does not block, is from then on."""
        self._listener = listener
        self._come = come
        self._loop = asyncio.get_running_loop()
        self._again: asyncio.TimerHandle | None = None
        self._closed = False
        self.resume()

    def resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._accept)

    def pause(self) -> None:
        """Who comes waits in the backlog."""
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._listener)

    def close(self) -> None:
        self.pause()
        self._closed = True

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in SHORT:
                raise
            self.pause()
            self._again = self._loop.call_later(AGAIN_AFTER, self.resume)
            return
        client.setblocking(False)
        self._come(client)
