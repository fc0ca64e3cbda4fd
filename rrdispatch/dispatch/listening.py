"""One listening socket as the dispatcher sees it: armed or not, in a pause, on its way to its end.

Owns its descriptor. It must not know workers.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rrdispatch._core.layout import Control
from rrdispatch.dispatch import tracing
from rrdispatch.dispatch.peers import Letter


@dataclass(slots=True, eq=False)
class Listening:
    """One listening socket."""

    index: int
    sock: socket.socket
    armed: bool = False
    readable: bool = False
    open: bool = True
    failed: bool = False
    pause_ns: int = 0
    retry_ns: int = 0  # 0 = it is not in a pause
    error_told_ns: int = 0
    shared: bool = False  # another process may go on with it: never gated
    empty: bool = False  # so it was when it was shut, with nobody READY to accept from it
    narrow: bool = False  # no gate to be had: a backlog of one, shut as soon as it is empty
    closing: Control | None = None
    ending: bool = False
    quiet: int = 0
    quiet_ns: int = 0
    limit_ns: int = 0
    accepted: int = 0
    letter: Letter = field(init=False)
    accept: Callable[[], tuple[int, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.letter = Letter(self.sock.family)
        # accept4 alone: a socket object per connection would cost as much again.
        self.accept = tracing.accepting(self.sock._accept)  # type: ignore[attr-defined]

    def note_readable(self) -> None:
        """The poller says that a connection may wait."""
        self.readable = True

    def waits(self) -> bool:
        """Something is in the backlog, or it was shut down."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))
