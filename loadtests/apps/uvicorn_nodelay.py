"""``python -m uvicorn`` with Nagle's algorithm off on the socket that its workers share.

uvicorn makes that socket without naming the protocol, so asyncio leaves the algorithm on for each
connection; accepted sockets inherit the option. Other contenders have it off, and so has this one.
"""

from __future__ import annotations

import socket

import uvicorn.config
import uvicorn.main

bind = uvicorn.config.Config.bind_socket


def bind_nodelay(self: uvicorn.config.Config) -> socket.socket:
    sock = bind(self)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


if __name__ == "__main__":
    uvicorn.config.Config.bind_socket = bind_nodelay  # type: ignore[method-assign]
    uvicorn.main.main()
