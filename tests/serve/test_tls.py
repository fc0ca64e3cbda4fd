"""TLS: uvicorn's for ASGI, ours for WSGI; failed handshakes hurt nobody and are counted."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest

from rrdispatch._core.layout import Field
from tests.worker.fake_primary import FakePrimary

from .client import Client
from .conftest import TLS, Start

ALL = pytest.mark.parametrize(
    ("target", "loop"),
    [("web:app", "asyncio"), ("web:app", "uvloop"), ("web:wsgi", "")],
    ids=["asgi-asyncio", "asgi-uvloop", "wsgi"],
)
FILES = {"ssl_certfile": str(TLS / "cert.pem"), "ssl_keyfile": str(TLS / "key.pem")}


@pytest.fixture
def primary(start: Start, target: str, loop: str) -> FakePrimary:
    return start(target, loop=loop or "auto", **FILES).ready()


@pytest.fixture
def client(primary: FakePrimary) -> Iterator[Client]:
    """Waits for its handshake."""
    with contextlib.closing(tls(primary.connect())) as sock:
        yield Client(sock)


def tls(sock: socket.socket) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock)


@ALL
def test_serves_and_counts(primary: FakePrimary, client: Client) -> None:
    assert client.get("/who").json()["scheme"] == "https"
    assert client.get("/").body == b"hello"
    client.close()
    primary.until(Field.CLOSED, 1)
    assert primary.load(Field.RECEIVED) == 1


@ALL
def test_failed_handshakes_are_counted_once(primary: FakePrimary) -> None:
    not_tls = primary.connect()
    not_tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        while not_tls.recv(100):
            continue
    primary.connect().close()
    reset = primary.knock()
    reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    reset.close()
    primary.hand_over()
    primary.until(Field.CLOSED, 3)
    good = Client(tls(primary.connect()))
    assert good.get("/").body == b"hello"
    good.close()
    primary.until(Field.CLOSED, 4)
    assert primary.load(Field.RECEIVED) == 4


@ALL
def test_a_handshake_that_never_comes_does_not_block(primary: FakePrimary) -> None:
    silent = [primary.connect() for _ in range(5)]
    with contextlib.closing(tls(primary.connect())) as sock:
        assert Client(sock).get("/").body == b"hello"
    assert primary.load(Field.RECEIVED) == len(silent) + 1


@ALL
def test_a_large_request_and_answer(primary: FakePrimary, client: Client) -> None:
    body = b"x" * 300_000
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sock.sendall(head.encode() + body)
    assert client.receive().body == b"hello"
    assert client.get("/").body == b"hello"
    client.close()


@ALL
def test_drain_answers_requests_that_were_on_their_way(
    primary: FakePrimary, client: Client
) -> None:
    client.get("/")
    primary.stop()
    primary.hear("STOPPING")
    answer = client.get("/")
    assert (answer.body, answer.closes) == (b"hello", True)
    assert client.at_end()
    client.close()
    assert primary.wait() == 0
    assert primary.output()[1] == ""


@pytest.mark.parametrize(("target", "loop"), [("big:wsgi", ""), ("big:app", "asyncio")])
def test_an_answer_larger_than_every_buffer(primary: FakePrimary, client: Client) -> None:
    """The client reads late: the server must wait for room and go on where it was."""
    client.send("/")
    answer = client.receive()
    assert len(answer.body) == 5_000_000
    assert answer.body == bytes(range(250)) * 20_000
    client.close()
