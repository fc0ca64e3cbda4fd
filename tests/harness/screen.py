"""What was written into a terminal."""

from __future__ import annotations

import os


def rest(fd: int) -> bytes:
    """Until nobody has the other end any more: the kernel hands it over in pieces, and later."""
    seen = b""
    while piece := _piece(fd):
        seen += piece
    return seen


def _piece(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # EIO: the end
        return b""
