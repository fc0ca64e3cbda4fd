"""An heir as small as can be: says what it was started with, and gives its control socket away.

Run by path: SOCKET; it lives until the other end of that is closed.
"""

from __future__ import annotations

import json
import os
import socket
import sys


def open_fds() -> list[int]:
    """The numbers of what is open, without opening anything."""
    found = []
    for number in range(256):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    return found


def status(name: str) -> str:
    """A line of our status."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(line.split()[1] for line in lines if line.startswith(name))


facts = {
    "fds": open_fds(),
    "files": [os.readlink(f"/proc/self/fd/{number}") for number in range(3)],
    "pid": os.getpid(),
    "parent": os.getppid(),
    "session": os.getsid(0),
    "cwd": os.getcwd(),
    "arguments": sys.argv[2:],
    "environment": dict(os.environ),
    "blocked": status("SigBlk:"),
}
with socket.socket(socket.AF_UNIX) as test:
    test.connect(sys.argv[1])
    text = json.dumps(facts).encode() + b"\n"
    socket.send_fds(test, [text[:1]], [3])
    test.sendall(text[1:])
    os.close(3)
    test.recv(1)
