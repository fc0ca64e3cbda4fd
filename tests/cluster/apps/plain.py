"""Answers each connection with ``version pid``; what else it does, its environment says."""

import os
import socket

VERSION = os.environ.get("VERSION", "1")


def serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(f"{VERSION} {os.getpid()}".encode())
