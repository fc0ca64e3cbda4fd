"""A connection is counted closed once, by whichever way it ends."""

from __future__ import annotations

import gc
import os
import socket
import ssl

import pytest

from rrdispatch.worker.connection import Connection, decode_peer

from .conftest import Bench
from .fake_primary import sockaddr


def accept(bench: Bench) -> Connection:
    bench.connect()
    connection, _ = bench.listener.accept()
    assert isinstance(connection, Connection)
    return connection


def test_closed_once(bench: Bench) -> None:
    connection = accept(bench)
    assert bench.numbers() == (1, 0)
    connection.close()
    connection.close()
    assert bench.numbers() == (1, 1)


def test_closed_after_the_last_file_over_it(bench: Bench) -> None:
    connection = accept(bench)
    stream = connection.makefile("rb")
    connection.close()
    assert bench.numbers() == (1, 0)
    stream.close()
    assert bench.numbers() == (1, 1)


def test_counted_before_it_is_closed(bench: Bench) -> None:
    connection = accept(bench)
    fds: list[int] = []
    bench.counts.on_closed = lambda: fds.append(connection.fileno())
    connection.close()
    assert fds[0] >= 0


def test_given_away(bench: Bench) -> None:
    connection = accept(bench)
    os.close(connection.detach())
    connection.close()
    assert bench.numbers() == (1, 1)


def test_handed_over_with_its_tally(bench: Bench) -> None:
    connection = accept(bench)
    fd, tally = connection.hand_over()
    connection.close()
    assert bench.numbers() == (1, 0)
    tally.close()
    tally.close()
    os.close(fd)
    assert bench.numbers() == (1, 1)


def test_wrapped_in_tls(bench: Bench) -> None:
    connection = accept(bench)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False).close()
    assert bench.numbers() == (1, 1)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_collected(bench: Bench) -> None:
    connection = accept(bench)
    fd = connection.fileno()
    client = bench.clients[-1]
    del connection
    gc.collect()
    assert bench.numbers() == (1, 1)
    assert client.recv(1) == b""
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_a_forked_child_does_not_count(bench: Bench) -> None:
    connection = accept(bench)
    pid = os.fork()
    if pid == 0:
        connection.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert bench.numbers() == (1, 0)
    connection.close()
    assert bench.numbers() == (1, 1)


def test_tells_who_waits_for_its_end(bench: Bench) -> None:
    connection = accept(bench)
    ends: list[str] = []
    connection.on_closed = lambda: ends.append("closed")
    connection.close()
    connection.close()
    assert ends == ["closed"]


def test_dup_is_a_plain_socket(bench: Bench) -> None:
    connection = accept(bench)
    twin = connection.dup()
    connection.close()
    assert type(twin) is socket.socket
    twin.close()
    assert bench.numbers() == (1, 1)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (sockaddr(socket.AF_INET, ("1.2.3.4", 99)), ("1.2.3.4", 99)),
        (sockaddr(socket.AF_INET6, ("fe80::1", 99)), ("fe80::1", 99, 0, 0)),
        (sockaddr(socket.AF_UNIX, ""), ""),
        (sockaddr(socket.AF_UNIX, "") + b"/tmp/client\0rest", "/tmp/client"),
        (b"", None),
        (b"\2", None),
        (b"\2\0\0\0", None),
        (b"\xff\xff" + bytes(40), None),
    ],
)
def test_addresses(peer: bytes, address: object) -> None:
    assert decode_peer(peer) == address
