"""Primary and dispatcher are gone: a worker takes what is queued, finishes, and leaves."""

from __future__ import annotations

import socket
import threading

import psutil
import pytest

from rrdispatch._core.layout import Field

from .client import Client
from .conftest import Start


@pytest.mark.parametrize(
    ("target", "loop"), [("web:app", "asyncio"), ("web:app", "uvloop"), ("web:wsgi", "auto")]
)
def test_nobody_can_send_any_more(start: Start, target: str, loop: str) -> None:
    primary = start(target, loop=loop, threads=2).ready()
    working, keeps = Client(primary.connect()), Client(primary.connect())
    assert keeps.get("/").body == b"hello"
    working.send("/wait")
    primary.until(Field.BUSY, 1)
    queued = [Client(primary.connect()) for _ in range(4)]
    primary.cut()
    for client in queued:
        assert client.get("/").body == b"hello"
        client.close()
    primary.hear("STOPPING")
    answer = keeps.get("/go")
    assert (answer.body, answer.closes) == (b"hello", True)
    assert working.receive().body == b"hello"
    assert primary.wait() == 0
    assert primary.output()[1] == ""


@pytest.mark.parametrize("name", ["lines", "streams", "sock_accept", "plain_asyncio"])
def test_plain_functions(start: Start, name: str) -> None:
    primary = start(f"plain:{name}", loop="asyncio").ready()
    client = primary.connect()
    if name != "sock_accept":
        client.sendall(b"one\n")
    assert client.recv(100)
    primary.cut()
    client.shutdown(socket.SHUT_WR)
    assert primary.wait() == 0
    assert primary.output()[1] == ""


@pytest.mark.parametrize(("target", "loop"), [("web:app", "asyncio"), ("web:wsgi", "auto")])
def test_a_worker_that_waits_for_its_last_request_does_not_spin(
    start: Start, target: str, loop: str
) -> None:
    """A listener that ended is covered by a socket that is never readable."""
    primary = start(target, loop=loop, binds=["inet", "unix"]).ready()
    client, other = Client(primary.connect()), Client(primary.connect(1))
    assert other.get("/").body == b"hello"
    client.send("/wait")
    primary.until(Field.BUSY, 1)
    primary.cut()
    primary.hear("STOPPING")
    before = psutil.Process(primary.process.pid).cpu_times().user
    threading.Event().wait(0.5)
    assert psutil.Process(primary.process.pid).cpu_times().user - before < 0.2
    assert other.get("/go").closes
    assert client.receive().body == b"hello"
    assert primary.wait() == 0
