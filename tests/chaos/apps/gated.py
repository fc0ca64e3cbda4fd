"""The probe app behind a gate: each request waits until somebody holds the FIFO ``GATE`` open.

Who says nothing for ten seconds is sent away, as the kernel's own resets leave some behind.
"""

from __future__ import annotations

import os
import time
from typing import Any

import probe  # type: ignore[import-not-found,unused-ignore]  # it lies beside this file


def asked(connection: Any) -> bool:
    connection.settimeout(10.0)
    try:
        return bool(connection.recv(65536))
    except TimeoutError:
        return False


def serve(listener: Any) -> None:
    """One connection at a time, for ever."""
    while True:
        connection, _ = listener.accept()
        with connection:
            begin = time.monotonic_ns()
            if asked(connection):
                os.close(os.open(os.environ["GATE"], os.O_RDONLY))  # waits for one that writes
                connection.sendall(probe.answer(begin))
