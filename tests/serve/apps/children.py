"""Starts a program that inherits whatever is inheritable, and tells what it got."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

CHILD = (
    "import os; fds = sorted(int(n) for n in os.listdir('/proc/self/fd'));"
    "print(*fds[:-1]);"
    "print(*sorted(k for k in os.environ if k.startswith('RRDISPATCH_')))"
)


def serve(listener: Any) -> None:
    for connection, _ in listener:
        with connection:
            told = subprocess.run(
                [sys.executable, "-c", CHILD], capture_output=True, close_fds=False, check=True
            )
            connection.sendall(told.stdout + str(os.getpid()).encode())
