"""What is told to the primary and heard from it. Owns the control socket.

It must not know what a message asks for. The primary may be slow: what it does not read waits here,
events up to a limit, answers without one (it asked for them).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence

from rrdispatch._core import pure
from rrdispatch._core.layout import CONTROL_SIZE, Control, ControlKind

EVENTS_MAX = 1024


class Talk:
    """The control socket and the messages that wait to be read."""

    def __init__(self, control: int) -> None:
        self.control = control
        self.ended = False
        self._waiting: deque[bytes] = deque()

    @property
    def waits(self) -> bool:
        """Messages wait for room in the socket."""
        return bool(self._waiting)

    @property
    def crowded(self) -> bool:
        """So much waits that the primary should not be asked for more."""
        return len(self._waiting) >= 2 * EVENTS_MAX

    def tell(self, message: Control) -> None:
        """Send, or keep until there is room."""
        if self.ended or (message.sequence == 0 and len(self._waiting) >= EVENTS_MAX):
            return
        self._waiting.append(message.pack())
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

    def answer(self, request: Control, result: int = 0, values: Sequence[int] = ()) -> None:
        """Answer a request."""
        self.tell(
            Control(
                request.kind,
                request.sequence,
                result,
                request.worker,
                request.listener,
                tuple(values),
            )
        )

    def flush(self) -> None:
        """Send what waits, as far as the socket has room."""
        while self._waiting:
            try:
                pure.control_send(self.control, self._waiting[0], ())
            except BlockingIOError:
                return
            except OSError:
                # Nobody reads any more: the end of the socket is seen where it is read.
                self._waiting.clear()
                return
            self._waiting.popleft()

    def hear(self) -> tuple[bytes, list[int]] | None:
        """The next request and its fds; None when nothing waits; at its end ``ended`` is set."""
        try:
            received = pure.control_receive(self.control)
        except BlockingIOError:
            return None
        except pure.MalformedError as error:
            # Answered by its kind and sequence, as far as they came, and with no version.
            return bytes(4) + error.data[4:CONTROL_SIZE].ljust(CONTROL_SIZE - 4, b"\0"), []
        except ConnectionError:
            received = None
        self.ended = received is None
        return received

    def close(self) -> None:
        """Close the control socket."""
        self.flush()
        os.close(self.control)
