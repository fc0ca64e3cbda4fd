"""What is told to the primary and heard from it. Owns the control socket.

It must not know what a message asks for. The primary may be slow: what it does not read waits here,
events up to a limit, answers without one (it asked for them).
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from rrdispatch._core import pure
from rrdispatch._core.layout import CONTROL_SIZE, Control, ControlKind

EVENTS_MAX = 1024
AGAIN = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})

# The fds that belong to an answer, looked up when it is sent: what waits holds none.
Find = Callable[[], Sequence[int]]


class Talk:
    """The control socket and the messages that wait to be read."""

    def __init__(self, control: int) -> None:
        self.control = control
        self.ended = False
        self._waiting: deque[tuple[Control, Find | None]] = deque()

    @property
    def waits(self) -> bool:
        """Messages wait for room in the socket."""
        return bool(self._waiting)

    @property
    def crowded(self) -> bool:
        """So much waits that the primary should not be asked for more."""
        return len(self._waiting) >= 2 * EVENTS_MAX

    def tell(self, message: Control, find: Find | None = None) -> None:
        """Send, or keep until there is room."""
        if self.ended or (message.sequence == 0 and len(self._waiting) >= EVENTS_MAX):
            return
        self._waiting.append((message, find))
        self.flush()

    def event(
        self,
        kind: ControlKind,
        worker: int = 0,
        value: int = 0,
        *,
        listener: int = 0,
        result: int = 0,
    ) -> None:
        """Tell an event."""
        self.tell(Control(kind, 0, result, worker, listener, (value,)))

    def answer(
        self,
        request: Control,
        result: int = 0,
        values: Sequence[int] = (),
        find: Find | None = None,
    ) -> None:
        """Answer a request, with the fds that `find` finds."""
        self.tell(
            Control(
                request.kind,
                request.sequence,
                result,
                request.worker,
                request.listener,
                tuple(values),
            ),
            find,
        )

    def flush(self) -> None:
        """Send what waits, as far as the socket has room."""
        while self._waiting:
            try:
                self._send(*self._waiting[0])
            except OSError as error:
                if error.errno in AGAIN:
                    return
                # Nobody reads any more: the end of the socket is seen where it is read.
                self._waiting.clear()
                return
            self._waiting.popleft()

    def _send(self, message: Control, find: Find | None) -> None:
        fds: Sequence[int] = ()
        if find is not None:
            try:
                fds = find()
            except OSError as error:
                message = replace(message, result=-(error.errno or errno.EIO))
        pure.control_send(self.control, message.pack(), fds)

    def hear(self) -> tuple[bytes, list[int]] | None:
        """The next request and its fds; None when nothing waits; at its end ``ended`` is set."""
        try:
            received = pure.control_receive(self.control)
        except BlockingIOError:
            return None
        except pure.MalformedError as error:
            # Answered by its kind and sequence, as far as they came, and with no version.
            return bytes(4) + error.data[4:CONTROL_SIZE].ljust(CONTROL_SIZE - 4, b"\0"), []
        except ConnectionResetError:
            # It died with answers unread: what it asked for before comes after this.
            return self.hear()
        except ConnectionError:
            received = None
        self.ended = received is None
        return received

    def detach(self) -> None:
        """Nobody is there any more: forget what was to be told."""
        self.ended = True
        self._waiting.clear()
        os.close(self.control)
        self.control = -1

    def attach(self, control: int) -> None:
        """Somebody is there again."""
        self.control, self.ended = control, False

    def close(self) -> None:
        """Close the control socket."""
        if self.control >= 0:
            self.flush()
            os.close(self.control)
