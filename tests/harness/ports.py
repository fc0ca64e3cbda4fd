"""A port for a program that has to be told a number: nobody else is given it meanwhile."""

from __future__ import annotations

import socket
from collections import deque

MOST = 6  # a test takes fewer; those of tests that are over go again

_kept: deque[socket.socket] = deque()


def kept_port() -> int:
    """Bound, and never listened on: who says SO_REUSEADDR may listen there, the kernel gives it to
    nobody who asks for any port, and until somebody listens clients are refused.
    """
    keeper = socket.socket()
    for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        keeper.setsockopt(socket.SOL_SOCKET, option, 1)
    keeper.bind(("127.0.0.1", 0))
    _kept.append(keeper)
    while len(_kept) > MOST:
        _kept.popleft().close()
    port: int = keeper.getsockname()[1]
    return port
