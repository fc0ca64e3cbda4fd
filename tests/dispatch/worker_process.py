"""A worker as small as a worker can be: takes connections from its channels and says its slot.

Run by path: ROOT SLOT CHANNEL...; the scoreboard is fd 9, and a byte on fd 8 says that it is up.
"""

from __future__ import annotations

import os
import select
import socket
import sys

sys.path.append(sys.argv[1])
os.environ["RRDISPATCH_PURE"] = "1"

from rrdispatch._core import Scoreboard, take
from rrdispatch._core.layout import Field


def serve(channel: int, board: Scoreboard, text: bytes) -> bool:
    """One connection; False at EOF."""
    try:
        taken = take(channel)
    except BlockingIOError:
        return True
    if taken is None:
        return False
    for fd in taken.fds:
        board.add(Field.RECEIVED)
        with socket.socket(fileno=fd) as connection:
            connection.sendall(text)
            board.add(Field.CLOSED)
    return True


def main() -> None:
    """Until the channels end."""
    channels = [int(text) for text in sys.argv[3:]]
    board = Scoreboard(9, writable=True)
    poll = select.poll()
    for channel in channels:
        poll.register(channel, select.POLLIN)
    os.write(8, b"R")
    os.close(8)
    going = True
    while going:
        for channel, _ in poll.poll():
            going = serve(channel, board, sys.argv[2].encode())


main()
