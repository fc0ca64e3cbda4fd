"""What one writes in an hour: processes of uvicorn on one listening socket, or on one each.

    python baseline.py shared|reuseport PORT WORKERS

A dead worker is started again. There is nothing else: no reload, no drain, no care for the stuck.
"""

from __future__ import annotations

import multiprocessing
import signal
import socket
import sys


def listener(port: int, reuse: bool) -> socket.socket:
    # With the protocol said, asyncio switches Nagle's algorithm off on what it accepts.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(2048)
    return sock


def serve(port: int, shared: socket.socket | None) -> None:
    import uvicorn

    config = uvicorn.Config("contender:asgi", log_level="warning", access_log=False)
    uvicorn.Server(config).run([shared or listener(port, reuse=True)])


def main(kind: str, port: int, number: int) -> None:
    context = multiprocessing.get_context("fork")
    shared = listener(port, reuse=False) if kind == "shared" else None

    def start() -> multiprocessing.process.BaseProcess:
        process = context.Process(target=serve, args=(port, shared))
        process.start()
        return process

    workers = [start() for _ in range(number)]

    def end(*_: object) -> None:
        for worker in workers:
            worker.terminate()
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        multiprocessing.connection.wait([worker.sentinel for worker in workers])
        workers[:] = [worker if worker.is_alive() else start() for worker in workers]


if __name__ == "__main__":
    import multiprocessing.connection

    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
