"""A service that prints what it is told to, and its log read back."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import re
import socket
import termios
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.harness import processes
from tests.harness.servers import Service, wait_until

APPS = Path(__file__).with_name("apps")
LINE = re.compile(rb"(?:\d{4}-\d\d-\d\dT[\d:.]{12}Z )?\w+\.\d+ out \| (\d+) (\d+) x*")


def ask(service: Service, said: str) -> tuple[int, int, int]:
    """(slot, pid, lines printed so far) of who did it."""
    host, _, port = service.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"{said}\n".encode())
        slot, pid, printed = connection.makefile().read().split()
    return int(slot), int(pid), int(printed)


def logger_of(service: Service) -> int:
    """One that has just been started has no command line for a moment."""
    found: list[int] = []

    def is_there() -> bool:
        found[:] = loggers(service.pid)
        return len(found) == 1

    wait_until(is_there, 60.0, "there is one logger")
    return found[0]


def loggers(primary: int) -> list[int]:
    return [
        each.pid
        for each in processes.descendants(primary)
        if any(word.endswith("logger.py") for word in processes.command(each.pid))
    ]


def files(path: Path) -> list[Path]:
    """The oldest first."""
    old = path.parent.glob(path.name + ".*")
    return [*sorted(old, key=lambda it: -int(it.suffix[1:])), path]


def content(path: Path) -> bytes:
    """Of what has a name; while a logger rotates, a file may have none for a moment."""
    found = b""
    for each in files(path):
        with contextlib.suppress(FileNotFoundError):
            found += each.read_bytes()
    return found


def in_pipe(pid: int) -> int:
    """Bytes that a process printed and nobody has read."""
    end = os.open(f"/proc/{pid}/fd/1", os.O_RDONLY | os.O_NONBLOCK)
    try:
        count = array.array("i", [0])
        fcntl.ioctl(end, termios.FIONREAD, count)
        return count[0]
    finally:
        os.close(end)


def numbers(path: Path) -> dict[int, list[int]]:
    """Of each worker, in the order of the log; fails for a line that is not whole."""
    return numbers_of(content(path).splitlines())


def numbers_of(lines: Iterable[bytes]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for line in lines:
        if b"| rrdispatch: worker" in line:
            continue
        match = LINE.fullmatch(line)
        assert match, line[:200]
        found[int(match[1])].append(int(match[2]))
    return found
