"""Does what its client says, in one line: each is a way to bring trouble over a machine."""

import contextlib
import os
import resource
import socket
import sys
import time

held: list[object] = []


def serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("r") as lines:
            word, _, amount = lines.readline().strip().partition(" ")
            done = tight(connection) if word == "tight" else act(word, int(amount or 0))
            connection.sendall(f"{os.environ['RRDISPATCH_SLOT']} {os.getpid()} {done}".encode())


def act(word: str, amount: int) -> str:
    if word == "eat":
        while True:
            held.append(bytearray(os.urandom(1 << 20)))
    if word == "fork":
        return str(fork(amount))
    if word == "open":
        return str(opened(amount))
    if word == "print":
        for number in range(amount):
            print("line", number, "x" * 90)
            print("line", number, file=sys.stderr)
    if word == "block":
        time.sleep(amount / 1000)
    return "done"


def tight(connection: socket.socket) -> str:
    """No number is free once this connection is closed: it has the lowest one there was."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (connection.fileno(), before[1]))
    return f"{os.getpid()} {before[0]} {before[1]}"


def fork(most: int) -> int:
    """Children that sleep, as many as one can have."""
    number = 0
    with contextlib.suppress(OSError):
        while number < most:
            if os.fork() == 0:
                os.closerange(3, 256)  # the client's connection is not for them
                time.sleep(3600)
            number += 1
    return number


def opened(most: int) -> int:
    number = 0
    with contextlib.suppress(OSError):
        while number < most:
            held.append(os.open(os.devnull, os.O_RDONLY))
            number += 1
    return number
