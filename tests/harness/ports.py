"""Ports for programs that have to be told a number: they bind it themselves, some time later."""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections import deque

MOST = 6  # a test takes fewer; those of tests that are over go again

_kept: deque[socket.socket] = deque()

# Below those that the kernel chooses for itself, and for each of pytest-xdist's processes its own:
# what is free now is so until the program has started.
_FIRST, _SHARE, _SHARES = 20_000, 600, 20
_number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
_start = random.SystemRandom().randrange(_SHARE)
_candidates = itertools.cycle(
    _FIRST + _number * _SHARE + (_start + step) % _SHARE for step in range(_SHARE)
)


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


def free_port(family: int = socket.AF_INET) -> int:
    """One that nobody has at this moment, and that nobody is likely to take."""
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    for port in itertools.islice(_candidates, _SHARE):
        with socket.socket(family) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")
