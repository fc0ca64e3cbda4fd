"""The primary's end of one worker's messages, in the hub's loop. It knows no meaning of them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from rrdispatch.node import wire


class Pipe:
    """From the worker's start until either end is closed; ``over`` is told once."""

    def __init__(
        self, sock: socket.socket, line: Callable[[bytes], None], over: Callable[[], None]
    ) -> None:
        self._sock = sock
        self._line, self._over = line, over
        self._loop = asyncio.get_running_loop()
        self._lines = wire.Lines()
        self._box = wire.Outbox(sock)
        self._writing = self._finishing = self._asked = False
        self.paused = False
        sock.setblocking(False)
        self._loop.add_reader(sock, self._readable)

    @property
    def open(self) -> bool:
        return self._sock.fileno() >= 0

    @property
    def waiting(self) -> int:
        """Bytes that the worker has not read and the kernel has no room for."""
        return self._box.size

    def add(self, data: bytes) -> bool:
        """From any thread; True if ``flush`` is to be called in the loop."""
        if not self.open or self._finishing:
            return False
        self._box.add(data)
        asked, self._asked = self._asked, True
        return not asked

    def flush(self) -> None:
        self._asked = False
        if self.open and not self._writing:
            self._flush()

    def send(self, data: bytes) -> None:
        """Now or when there is room; nothing if it is closed."""
        self.add(data)
        self.flush()

    def finish(self) -> None:
        """Closes it when all was sent."""
        self._finishing = True
        if self.open and not self._writing:
            self._flush()

    def pause(self) -> None:
        """Nobody has time for more: what comes waits in the socket, then in the worker."""
        if self.open and not self.paused:
            self.paused = True
            self._loop.remove_reader(self._sock)

    def resume(self) -> None:
        if self.open and self.paused:
            self.paused = False
            self._loop.add_reader(self._sock, self._readable)

    def read_to_the_end(self) -> None:
        """Of a worker that is dead: all that it has said, then closes it."""
        while self._read():
            pass
        self.close()

    def close(self) -> None:
        if self.open:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            self._over()

    def abandon(self) -> None:
        """In a forked child: the copy only, and without the loop, which is the parent's."""
        self._sock.close()

    def _readable(self) -> None:
        with suppress(BlockingIOError):
            if not self._read(wait=True):
                self.close()

    def _read(self, wait: bool = False) -> bool:
        """One chunk; False when there is none, and will be none if we can wait for it."""
        try:
            data = self._sock.recv(wire.CHUNK)
        except BlockingIOError:
            if wait:
                raise
            return False
        except OSError:
            return False
        for line in self._lines.feed(data):
            self._line(line)
        return bool(data)

    def _flush(self) -> None:
        try:
            done = self._box.flush()
        except OSError:  # it is gone: what it said before is read, then the end is seen
            self._loop.remove_writer(self._sock)
            self._writing = True
            return
        if done and self._finishing:
            self.close()
        elif done and self._writing:
            self._loop.remove_writer(self._sock)
            self._writing = False
        elif not done and not self._writing:
            self._loop.add_writer(self._sock, self._flush)
            self._writing = True
