"""serve(listener), sync and async, as people write it."""

from __future__ import annotations

import signal
import socket

import pytest

from rrdispatch._core.layout import Field
from tests.worker.fake_primary import FakePrimary

from .client import Client
from .conftest import Start


def drain(primary: FakePrimary) -> None:
    primary.stop()
    primary.hear("STOPPING")


def read_line(client: socket.socket) -> bytes:
    with client.makefile("rb") as stream:
        return stream.readline()


def test_one_after_another(start: Start) -> None:
    primary = start("plain:lines")
    assert primary.hear("READY").lines == {"READY": "1", "KIND": "serve", "CAPACITY": "1"}
    first, second = primary.connect(), primary.connect()
    first.sendall(b"one\n")
    assert read_line(first) == b"%s one\n" % str(first.getsockname()).encode()
    assert primary.pending() == 1
    first.close()
    second.sendall(b"two\n")
    assert read_line(second).endswith(b"two\n")
    second.close()
    primary.until(Field.CLOSED, 2)


def test_drain_finishes_what_it_has_and_what_waits(start: Start) -> None:
    primary = start("plain:lines").ready()
    first, second = primary.connect(), primary.connect()
    first.sendall(b"one\n")
    assert read_line(first)
    drain(primary)
    first.sendall(b"still here\n")
    assert read_line(first).endswith(b"still here\n")
    first.close()
    second.sendall(b"two\n")
    assert read_line(second).endswith(b"two\n")
    second.close()
    assert primary.wait() == 0
    assert primary.output()[0] == "returned\n"


@pytest.mark.parametrize("name", ["bare", "says_ready", "lines", "http", "two"])
def test_an_idle_one_leaves_at_once(start: Start, name: str) -> None:
    primary = start(f"plain:{name}", drain_timeout=60).ready()
    primary.stop()
    assert primary.wait() == 0
    assert primary.output()[1] == ""


def test_a_function_may_say_that_it_is_ready_itself(start: Start) -> None:
    primary = start("plain:says_ready", wait_ready=True)
    assert primary.hear("READY").lines["CAPACITY"] == "3"


def test_the_standard_librarys_server(start: Start) -> None:
    primary = start("plain:http", drain_timeout=60).ready()
    clients = [Client(primary.connect()) for _ in range(3)]
    assert [client.get("/").body for client in clients] == [b"hello"] * 3
    drain(primary)
    assert [client.get("/").body for client in clients] == [b"hello"] * 3
    for client in clients:
        client.close()
    assert primary.wait() == 0
    assert primary.load(Field.CLOSED) == 3


def test_what_does_not_return_is_left_at_the_deadline(start: Start) -> None:
    primary = start("plain:http", drain_timeout=1.0).ready()
    client = Client(primary.connect())
    assert client.get("/").body == b"hello"
    drain(primary)
    assert primary.wait() == 0


def test_several_addresses_are_served_side_by_side(start: Start) -> None:
    primary = start("plain:two", binds=["inet", "unix"]).ready()
    names = {read_line(primary.connect(front)) for front in (0, 1, 0, 1)}
    assert len(names) == 2
    drain(primary)
    assert primary.wait() == 0


@pytest.mark.parametrize("binds", [["inet"], ["inet", "unix"]])
def test_a_function_that_raises_ends_the_worker(start: Start, binds: list[str]) -> None:
    primary = start("plain:fails", binds=binds).ready()
    primary.connect(len(binds) - 1)
    assert primary.wait() == 1
    assert "RuntimeError: the function failed" in primary.output()[1]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("name", ["streams", "plain_asyncio", "sock_accept"])
def test_async(start: Start, name: str, loop: str) -> None:
    if (name, loop) == ("plain_asyncio", "uvloop"):
        name = "streams"  # uvloop accepts from the bare descriptor: documented, use ours
    primary = start(f"plain:{name}", loop=loop)
    assert primary.hear("READY").lines == {"READY": "1", "KIND": "serve"}
    client = primary.connect()
    if name == "sock_accept":
        assert read_line(client) == b"hello\n"
    else:
        client.sendall(b"one")
        assert client.recv(10) == b"one"
        drain(primary)
        client.sendall(b"two")
        assert client.recv(10) == b"two"
        client.close()
    primary.stop()
    assert primary.wait() == 0
    assert primary.output() == ("returned\n" if name == "streams" else "", "")
    assert primary.load(Field.CLOSED) == 1


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_async_drain_takes_what_waits(start: Start, loop: str) -> None:
    primary = start("plain:streams", loop=loop).ready()
    primary.process.send_signal(signal.SIGSTOP)
    clients = [primary.connect() for _ in range(5)]
    for client in clients:
        client.sendall(b"hello")
    primary.stop()
    primary.process.send_signal(signal.SIGCONT)
    for client in clients:
        assert client.recv(10) == b"hello"
        client.close()
    assert primary.wait() == 0


def test_asyncios_own_server_takes_what_waits(start: Start) -> None:
    primary = start("plain:plain_asyncio", loop="asyncio").ready()
    primary.process.send_signal(signal.SIGSTOP)
    clients = [primary.connect() for _ in range(5)]
    for client in clients:
        client.sendall(b"hello")
    primary.stop()
    primary.process.send_signal(signal.SIGCONT)
    for client in clients:
        assert client.recv(10) == b"hello"
        client.close()
    assert primary.wait() == 0
    assert primary.output()[1] == ""
