"""A listener over a channel behaves as a listening socket does."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rrdispatch import _core
from rrdispatch._core.layout import Field
from rrdispatch.worker.connection import Connection
from rrdispatch.worker.listener import ListenerClosed
from tests.harness.readable import readable

from .conftest import Bench


def test_accepts_in_order_with_the_peers_address(bench: Bench) -> None:
    clients = [bench.connect() for _ in range(3)]
    for client in clients:
        connection, address = bench.listener.accept()
        assert address == client.getsockname() == connection.getpeername()
        assert connection.getblocking()
        client.sendall(b"hello")
        assert connection.recv(10) == b"hello"
        connection.close()
    assert bench.numbers() == (3, 3)


@pytest.mark.parametrize("family", [socket.AF_INET6, socket.AF_UNIX])
def test_other_families(
    make_bench: Callable[..., Bench], tmp_path: Path, family: socket.AddressFamily
) -> None:
    front = socket.socket(family)
    front.bind(str(tmp_path / "s") if family == socket.AF_UNIX else ("::1", 0))
    bench = make_bench(front)
    client = bench.connect()
    connection, address = bench.listener.accept()
    assert connection.family == bench.listener.family == family
    assert address == client.getsockname()
    assert bench.listener.getsockname() == front.getsockname()
    connection.close()


def test_an_unknown_peer_is_asked_for(bench: Bench) -> None:
    client = bench.connect(peer=b"")
    connection, address = bench.listener.accept()
    assert address == client.getsockname()
    connection.close()


def test_a_client_that_is_gone_still_has_an_address(bench: Bench) -> None:
    client = bench.connect()
    name = client.getsockname()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    connection, address = bench.listener.accept()
    assert address == connection.getpeername() == name
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    connection.close()
    ours: list[socket.socket] = []
    gone = bench.connect(peer=b"", kept=ours)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.close()
    assert readable(ours[0], 60.0), "its reset came"
    ours[0].close()
    connection, address = bench.listener.accept()
    assert address == ("", 0)
    connection.close()


def test_waits_as_its_timeout_says(bench: Bench) -> None:
    bench.listener.settimeout(0.01)
    with pytest.raises(TimeoutError):
        bench.listener.accept()
    bench.listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        bench.listener.accept()
    bench.listener.setblocking(True)
    accepted: list[object] = []
    thread = threading.Thread(target=lambda: accepted.append(bench.listener.accept()[0]))
    thread.start()
    bench.connect()
    thread.join(10)
    assert isinstance(accepted[0], Connection)
    accepted[0].close()


def test_one_per_wake_up_without_blocking(bench: Bench) -> None:
    """Event loops accept until nothing waits; what they take dies with the worker."""
    bench.listener.setblocking(False)
    for _ in range(3):
        bench.connect()
    for left in (2, 1, 0):
        connection, _ = bench.listener.accept()
        connection.close()
        with pytest.raises(BlockingIOError):
            bench.listener.accept()
        assert _core.pending(bench.listener.channel) == left


def test_probes_are_swallowed(bench: Bench) -> None:
    bench.probe()
    client = bench.connect()
    connection, address = bench.listener.accept()
    assert address == client.getsockname()
    connection.close()
    assert bench.numbers() == (1, 1)


def fill(held: list[int]) -> None:
    """Take every descriptor that may be had."""
    with contextlib.suppress(OSError):
        while True:
            held.append(os.dup(0))


def test_a_full_table_leaves_the_connection_queued(bench: Bench) -> None:
    client = bench.connect()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(bench.sending, client.fileno()) + 1, hard))
    held: list[int] = []
    try:
        fill(held)
        with pytest.raises(OSError, match="open files") as caught:
            bench.listener.take()
        assert caught.value.errno == errno.EMFILE
        assert _core.pending(bench.listener.channel) == 1
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    connection, _ = bench.listener.accept()
    connection.close()
    assert bench.board.load(Field.LOST) == 0


def test_a_blocking_accept_waits_for_room(bench: Bench) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    bench.listener.settimeout(10)
    client = bench.connect()
    connection, _ = bench.listener.accept()  # what it opens for itself is open now
    connection.close()
    client = bench.connect()
    held = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(client.fileno(), held[0]) + 1, hard))
    fill(held)
    timer = threading.Timer(0.05, lambda: [os.close(fd) for fd in held])
    timer.start()
    try:
        connection, _ = bench.listener.accept()
        connection.close()
    finally:
        timer.join()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- as a socket --------------------------------------------------------------------------------


def test_what_is_asked_of_listening_sockets(bench: Bench) -> None:
    listener = bench.listener
    ask = listener.getsockopt
    assert listener.getsockname() == bench.front.getsockname()
    assert listener.type == socket.SOCK_STREAM
    assert listener.proto == socket.IPPROTO_TCP
    assert ask(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    assert ask(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    assert ask(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_INET
    assert ask(socket.SOL_SOCKET, socket.SO_PROTOCOL) == socket.IPPROTO_TCP
    assert ask(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert ask(socket.SOL_SOCKET, socket.SO_TYPE, 4) == struct.pack("i", socket.SOCK_STREAM)
    assert ask(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    with pytest.raises(OSError, match="not connected"):
        listener.getpeername()
    with pytest.raises(OSError, match="is bound to 127"):
        listener.bind(("127.0.0.1", 0))
    assert "127.0.0.1" in repr(listener)


def test_what_is_done_to_listening_sockets_does_not_reach_the_channel(bench: Bench) -> None:
    listener = bench.listener
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.shutdown(socket.SHUT_RDWR)
    bench.connect()
    connection, _ = listener.accept()
    connection.close()


def test_readiness_is_said_by_waiting_for_connections(bench: Bench) -> None:
    repr(bench.listener)
    bench.listener.getsockname()
    bench.listener.setblocking(False)
    bench.listener.settimeout(1)
    assert bench.said == []
    bench.listener.listen(5)
    assert bench.said == ["ready"]
    bench.listener.fileno()
    assert bench.said == ["ready", "ready"]  # only the first is sent


def test_dup_and_close(bench: Bench) -> None:
    twin = bench.listener.dup()
    bench.listener.close()
    with pytest.raises(ListenerClosed):
        bench.listener.accept()
    bench.connect()
    connection, _ = twin.accept()
    connection.close()
    twin.close()


def test_closing_wakes_who_waits(bench: Bench) -> None:
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            bench.listener.accept()
        except OSError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not bench.said:
        select.select([], [], [], 0.001)
    bench.listener.close()
    thread.join(10)
    assert isinstance(raised[0], ListenerClosed)


def test_selectors_and_the_standard_librarys_server(bench: Bench) -> None:
    import socketserver

    class Echo(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline())

    server = socketserver.TCPServer(("127.0.0.1", 0), Echo, bind_and_activate=False)
    server.socket.close()
    server.socket = bench.listener
    client = bench.connect()
    client.sendall(b"hello\n")
    server.timeout = 10
    server.handle_request()
    assert client.recv(10) == b"hello\n"
    assert bench.numbers() == (1, 1)


# ---- drain --------------------------------------------------------------------------------------


def test_drain_takes_what_waits_and_no_more(bench: Bench) -> None:
    for _ in range(2):
        bench.connect()
    bench.listener.drain()
    bench.connect()
    assert not bench.listener.drained
    taken = list(bench.listener)
    assert len(taken) == 2
    for connection, _ in taken:
        connection.close()
    assert bench.listener.drained
    with pytest.raises(ListenerClosed):
        bench.listener.accept()
    assert _core.pending(bench.listener.channel) == 1


def test_drain_does_not_wait_for_what_was_taken_back(bench: Bench) -> None:
    bench.connect()
    bench.listener.drain()
    taken = _core.take(bench.listener.channel)
    assert taken is not None
    os.close(taken.fds[0])
    with pytest.raises(ListenerClosed):
        bench.listener.accept()


def test_drain_is_quiet_for_event_loops(bench: Bench) -> None:
    bench.listener.setblocking(False)
    bench.listener.drain()
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            bench.listener.accept()


def test_drain_wakes_every_thread_that_waits(bench: Bench) -> None:
    ended: list[int] = []
    threads = [
        threading.Thread(target=lambda: ended.append(len(list(bench.listener)))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    while len(bench.said) < 3:
        select.select([], [], [], 0.001)
    bench.listener.drain()
    for thread in threads:
        thread.join(10)
    assert ended == [0, 0, 0]


def test_eof_ends_the_group_once_and_nothing_spins(bench: Bench, signals: list[int]) -> None:
    bench.connect()
    bench.cut()
    bench.listener.setblocking(False)
    connection, _ = bench.listener.accept()  # what was queued comes first
    connection.close()
    for _ in range(300):  # as a loop does that is told that it is readable
        with pytest.raises(BlockingIOError):
            bench.listener.accept()
    assert signals == [signal.SIGTERM]
    assert bench.listener.drained
    assert not readable(bench.listener.channel, 0.0)


def test_eof_ends_a_loop_that_accepts(bench: Bench, signals: list[int]) -> None:
    bench.connect()
    bench.cut()
    for connection, _ in bench.listener:
        connection.close()
    assert bench.numbers() == (1, 1)
    assert signals == [signal.SIGTERM]
