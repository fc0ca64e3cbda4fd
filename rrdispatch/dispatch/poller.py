"""epoll with a function for each descriptor. Owns the epoll descriptor, nothing that is in it."""

from __future__ import annotations

import select
from collections.abc import Callable


class Poller:
    """Level-triggered. Remove a descriptor before it is closed: others hold duplicates of it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}

    def add(self, fd: int, call: Callable[[], None]) -> None:
        """`call` is called whenever `fd` is readable or its peer is gone."""
        self._epoll.register(fd, select.EPOLLIN)
        self._calls[fd] = call

    def remove(self, fd: int) -> None:
        """Forget `fd`; nothing happens if it is not known."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def wait(self, timeout_ns: int) -> None:
        """Wait, at most `timeout_ns` (-1: for ever), and call what is due.

        A number may be used anew while its old events are still in the list, so every function
        called must bear that nothing is there.
        """
        # A minute at most: epoll counts milliseconds in 32 bits.
        seconds = -1.0 if timeout_ns < 0 else min(timeout_ns / 1e9, 60.0)
        for fd, _ in self._epoll.poll(seconds):
            call = self._calls.get(fd)
            if call is not None:
                call()

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()
