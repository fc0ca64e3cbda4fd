"""ASGI workers: real uvicorn, both loops and both HTTP parsers."""

from __future__ import annotations

import signal
import socket

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from rrdispatch._core.layout import Field
from tests.worker.fake_primary import FakePrimary

from .client import Client
from .conftest import Start

KINDS = pytest.mark.parametrize(
    ("loop", "http"), [("asyncio", "h11"), ("uvloop", "httptools")], ids=["plain", "fast"]
)


def numbers(primary: FakePrimary) -> list[int]:
    return [primary.load(name) for name in (Field.RECEIVED, Field.CLOSED, Field.BUSY)]


def drain(primary: FakePrimary) -> None:
    primary.stop()
    primary.hear("STOPPING")


@KINDS
def test_answers_and_counts(start: Start, loop: str, http: str) -> None:
    primary = start("web:app", loop=loop, http=http)
    said = primary.hear("READY")
    assert said.lines == {"READY": "1", "KIND": "asgi"}
    client = Client(primary.connect())
    assert [client.get("/").body for _ in range(3)] == [b"hello"] * 3
    primary.until(Field.BUSY, 0)
    assert numbers(primary) == [1, 0, 0]
    client.close()
    primary.until(Field.CLOSED, 1)
    assert primary.load(Field.REQUESTS) == 3


def test_a_batch_is_declared_and_all_of_it_is_started(start: Start) -> None:
    primary = start("web:app", connection_batch=16)
    assert primary.hear("READY").lines["BATCH"] == "16"
    clients = [Client(sock) for sock in primary.connect_many(5)]
    for client in clients:
        client.send("/who")
    ports = {client.sock.getsockname()[1] for client in clients}
    assert {client.receive().json()["port"] for client in clients} == ports
    assert primary.load(Field.RECEIVED) == 5


@KINDS
def test_drain_answers_requests_that_were_on_their_way(start: Start, loop: str, http: str) -> None:
    """uvicorn's own shutdown closes idle connections at once: the next request is lost."""
    primary = start("web:app", loop=loop, http=http).ready()
    idle, waiting = Client(primary.connect()), Client(primary.connect())
    assert not idle.get("/").closes
    assert waiting.get("/").body == b"hello"
    waiting.send("/wait")
    primary.until(Field.BUSY, 1)
    drain(primary)
    answer = idle.get("/go")
    assert (answer.body, answer.closes) == (b"hello", True)
    assert idle.at_end()
    late = waiting.receive()
    assert (late.body, late.closes) == (b"hello", True)
    assert primary.wait() == 0
    assert numbers(primary) == [2, 2, 0]
    out, err = primary.output()
    assert "lifespan shutdown" in out
    assert err == ""


@KINDS
def test_drain_finishes_a_response_that_has_begun(start: Start, loop: str, http: str) -> None:
    """Its head promised nothing, so its connection stays for what the client may send next."""
    primary = start("web:app", loop=loop, http=http).ready()
    stream, other = Client(primary.connect()), Client(primary.connect())
    stream.send("/stream")
    assert stream.sock.recv(1) == b"H"
    drain(primary)
    assert other.get("/go").closes
    rest = b""
    while not rest.endswith(b"\r\n\r\nhello"):
        rest += stream.sock.recv(1000) or pytest.fail(f"{rest!r} was all")
    assert b"connection: close" not in rest.lower()
    assert stream.get("/").closes
    assert stream.at_end()
    assert primary.wait() == 0


def test_drain_takes_what_waits_in_the_channel(start: Start) -> None:
    primary = start("web:app").ready()
    primary.process.send_signal(signal.SIGSTOP)
    clients = [Client(primary.connect()) for _ in range(10)]
    for client in clients:
        client.send("/")
    primary.stop()
    primary.process.send_signal(signal.SIGCONT)
    for client in clients:
        assert client.receive().body == b"hello"
        client.close()
    assert primary.wait() == 0


def test_an_idle_connection_is_closed_after_its_grace(start: Start) -> None:
    primary = start("web:app", timeout_keep_alive=0.2, drain_timeout=60).ready()
    never_used = Client(primary.connect())
    drain(primary)
    assert never_used.at_end()
    assert primary.wait() == 0


def test_what_does_not_end_is_ended_at_the_deadline(start: Start) -> None:
    primary = start("web:app", drain_timeout=1.0).ready()
    client = Client(primary.connect())
    client.send("/wait")
    primary.until(Field.BUSY, 1)
    drain(primary)
    assert primary.wait() == 0
    out, err = primary.output()
    assert "lifespan shutdown" in out
    assert "cancelled" in err


@KINDS
def test_websockets_serve_on_until_the_deadline(start: Start, loop: str, http: str) -> None:
    # At the end of it a twentieth is left for what comes of 1012.
    primary = start("web:app", loop=loop, http=http, drain_timeout=6.0).ready()
    with connect("ws://test/", sock=primary.connect()) as websocket:
        websocket.send("one")
        assert websocket.recv() == "one"
        drain(primary)
        websocket.send("two")
        assert websocket.recv() == "two"
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    assert primary.wait() == 0
    assert numbers(primary) == [1, 1, 0]
    out, _ = primary.output()
    assert "websocket closed 1012" in out
    assert '"GET / HTTP/1.1" 101 ' in out


@KINDS
def test_a_client_that_resets_before_it_is_served(start: Start, loop: str, http: str) -> None:
    primary = start("web:app", loop=loop, http=http).ready()
    for _ in range(5):
        client = primary.knock()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        primary.hand_over()
    primary.until(Field.CLOSED, 5)
    good = Client(primary.connect())
    assert good.get("/").body == b"hello"
    assert primary.load(Field.RECEIVED) == 6


def test_max_connection_requests(start: Start) -> None:
    primary = start("web:app", max_connection_requests=2).ready()
    client = Client(primary.connect())
    assert [client.get("/").closes for _ in range(2)] == [False, True]
    assert client.at_end()


def test_max_connection_age(start: Start) -> None:
    primary = start("web:app", max_connection_age=0.000001).ready()
    assert Client(primary.connect()).get("/").closes


def test_max_requests_asks_for_a_successor_once_and_serves_on(start: Start) -> None:
    primary = start("web:app", max_requests=2).ready()
    client = Client(primary.connect())
    for _ in range(4):
        assert not client.get("/").closes
    assert primary.hear("RECYCLE").lines == {"RECYCLE": "1"}
    drain(primary)  # the next thing that it says
    client.close()
    assert primary.wait() == 0
    assert [said.lines for said in primary.heard if "RECYCLE" in said.lines] == [{"RECYCLE": "1"}]


def test_a_refused_startup_is_said_and_not_printed(start: Start) -> None:
    primary = start("lifespans:refuses")
    error = primary.hear("ERROR").error()
    assert error["code"] == "app"
    assert error["message"] == "the app's startup failed: RuntimeError: no database"
    assert "Traceback" in error["traceback"]
    assert primary.wait() == 3
    assert primary.output() == ("", "")


def test_a_lifespan_that_must_be_and_raises(start: Start) -> None:
    primary = start("lifespans:raises", lifespan="on")
    error = primary.hear("ERROR").error()
    assert "no lifespan here" in error["message"]
    assert "lifespans.py" in error["traceback"]
    assert primary.wait() == 3


def test_an_app_without_lifespan_serves(start: Start) -> None:
    primary = start("lifespans:raises").ready()
    assert Client(primary.connect()).get("/").status == 204


def test_sigterm_during_startup(start: Start) -> None:
    primary = start("lifespans:hangs")
    assert primary.process.stdout is not None
    assert primary.process.stdout.readline() == b"starting\n"
    primary.stop()
    assert primary.wait() == 0


def test_wait_ready_leaves_ready_to_the_app(start: Start) -> None:
    primary = start("web:app", wait_ready=True)
    assert Client(primary.connect()).get("/").body == b"hello"
    drain(primary)
    assert all("READY" not in said.lines for said in primary.heard)


def test_several_addresses(start: Start) -> None:
    primary = start("web:app", binds=["inet", "inet6", "unix"]).ready()
    who = [Client(primary.connect(front)).get("/who").json()["client"] for front in range(3)]
    assert who[:2] == ["127.0.0.1", "::1"]
    assert not who[2]


def test_another_stop_signal(start: Start) -> None:
    primary = start("web:app", stop_signal="USR1").ready()
    client = Client(primary.connect())
    client.get("/")
    primary.stop(signal.SIGUSR1)
    primary.hear("STOPPING")
    assert client.get("/").closes
    assert primary.wait() == 0


def test_asgi_2(start: Start) -> None:
    primary = start("older:App").ready()
    assert Client(primary.connect()).get("/").body == b"asgi 2"


def test_limit_concurrency_is_passed_on(start: Start) -> None:
    primary = start("web:app", limit_concurrency=2).ready()
    first = Client(primary.connect())
    first.send("/wait")
    primary.until(Field.BUSY, 1)
    second = Client(primary.connect())
    assert second.get("/").status == 503
