"""WSGI workers: real waitress."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from rrdispatch._core.layout import Field
from tests.worker.fake_primary import FakePrimary

from .client import Client
from .conftest import Start


def drain(primary: FakePrimary) -> None:
    primary.stop()
    primary.hear("STOPPING")


def asks(primary: FakePrimary, path: str, front: int = 0) -> Client:
    """Its question is there when it is taken: however late we are, it is not an idle one."""
    client = Client(primary.knock(front))
    client.send(path)
    primary.hand_over(front)
    return client


def numbers(primary: FakePrimary) -> list[int]:
    return [primary.load(name) for name in (Field.RECEIVED, Field.CLOSED, Field.BUSY)]


def test_answers_counts_and_says_its_threads(start: Start) -> None:
    primary = start("web:wsgi", threads=3)
    assert primary.hear("READY").lines == {"READY": "1", "KIND": "wsgi", "CAPACITY": "3"}
    client = Client(primary.connect())
    assert [client.get("/").body for _ in range(3)] == [b"hello"] * 3
    client.close()
    primary.until(Field.CLOSED, 1)
    primary.until(Field.REQUESTS, 3)
    assert numbers(primary) == [1, 1, 0]


def test_takes_nothing_while_no_thread_is_free(start: Start) -> None:
    primary = start("web:wsgi", threads=2).ready()
    had = Client(primary.connect())
    assert had.get("/").body == b"hello"
    blocked = [Client(primary.connect()) for _ in range(2)]
    for client in blocked:
        client.send("/wait")
    primary.until(Field.BUSY, 2)
    more = [Client(primary.connect()) for _ in range(3)]
    had.send("/wait")
    primary.until(Field.BUSY, 3)  # the loop has looked at everything since
    assert primary.pending() == len(more)
    assert primary.load(Field.RECEIVED) == 3


def test_takes_again_as_soon_as_a_thread_is_free(start: Start) -> None:
    primary = start("web:wsgi", threads=1, timeout_keep_alive=60).ready()
    slow, keeps = Client(primary.connect()), Client(primary.connect())
    assert keeps.get("/").body == b"hello"
    assert slow.get("/").body == b"hello"
    for _ in range(20):
        client = Client(primary.connect())
        assert client.get("/").body == b"hello"
        client.close()
    primary.until(Field.CLOSED, 20)


def test_silent_connections_do_not_keep_others_out(start: Start) -> None:
    primary = start("web:wsgi", threads=2).ready()
    silent = [primary.connect() for _ in range(20)]
    assert Client(primary.connect()).get("/").body == b"hello"
    assert primary.load(Field.RECEIVED) == len(silent) + 1


def test_drain_answers_requests_that_were_on_their_way(start: Start) -> None:
    primary = start("web:wsgi", threads=2).ready()
    idle, waiting = Client(primary.connect()), Client(primary.connect())
    assert not idle.get("/").closes
    assert not waiting.get("/").closes
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
    assert primary.output()[1] == ""


def test_drain_takes_what_waits_in_the_channel(start: Start) -> None:
    primary = start("web:wsgi", threads=1).ready()
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


SLOW = """
def app(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        open("gate").read(1)
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
"""


def test_drain_answers_what_it_takes_after_the_grace(start: Start, tmp_path: Path) -> None:
    """As its only thread was not free before."""
    (tmp_path / "slow.py").write_text(SLOW)
    os.mkfifo(tmp_path / "gate")
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    primary = start("slow:app", cwd=tmp_path, threads=1, timeout_keep_alive=0.1).ready()
    idle = Client(primary.connect())
    primary.until(Field.RECEIVED, 1)
    slow = asks(primary, "/wait")
    primary.until(Field.BUSY, 1)
    queued = Client(primary.connect())
    queued.send("/")
    drain(primary)
    assert idle.at_end()
    os.write(gate, b"x")
    os.close(gate)
    assert slow.receive().body == b"hello"
    assert queued.receive().body == b"hello"
    assert primary.wait() == 0


def test_drain_ends_although_what_waited_was_taken_back(start: Start) -> None:
    primary = start("web:wsgi", threads=1, timeout_keep_alive=0.3).ready()
    primary.process.send_signal(signal.SIGSTOP)
    Client(primary.connect()).send("/")
    primary.stop()
    primary.take_back()
    primary.process.send_signal(signal.SIGCONT)
    assert primary.wait() == 0


def test_an_idle_connection_is_closed_after_its_grace(start: Start) -> None:
    primary = start("web:wsgi", timeout_keep_alive=0.2, drain_timeout=60).ready()
    never_used = Client(primary.connect())
    primary.until(Field.RECEIVED, 1)
    drain(primary)
    assert never_used.at_end()
    assert primary.wait() == 0


def test_a_thread_that_does_not_end_is_left_at_the_deadline(start: Start) -> None:
    primary = start("web:wsgi", drain_timeout=1.0).ready()
    client = Client(primary.connect())
    client.send("/wait")
    primary.until(Field.BUSY, 1)
    drain(primary)
    assert primary.wait() == 0
    assert "connections that did not end in time: 1" in primary.output()[1]


def test_clients_that_vanish(start: Start) -> None:
    primary = start("web:wsgi", threads=1).ready()
    for _ in range(5):
        client = primary.knock()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        primary.hand_over()
    waits = Client(primary.connect())
    waits.send("/wait")
    primary.until(Field.BUSY, 1)
    waits.close()
    primary.until(Field.CLOSED, 5)
    assert primary.load(Field.RECEIVED) == 6


def test_max_connection_requests(start: Start) -> None:
    primary = start("web:wsgi", max_connection_requests=2).ready()
    client = Client(primary.connect())
    assert [client.get("/").closes for _ in range(2)] == [False, True]
    assert client.at_end()


def test_max_connection_age(start: Start) -> None:
    primary = start("web:wsgi", max_connection_age=0.000001).ready()
    assert Client(primary.connect()).get("/").closes


def test_http_1_0_keep_alive_ends_in_a_drain(start: Start) -> None:
    primary = start("web:wsgi").ready()
    client = Client(primary.connect())
    client.send("/", {"Connection": "keep-alive"}, version="1.0")
    assert client.receive().headers["connection"] == "Keep-Alive"
    drain(primary)
    client.send("/", {"Connection": "keep-alive"}, version="1.0")
    assert client.receive().closes
    assert primary.wait() == 0


def test_max_requests_asks_for_a_successor_once_and_serves_on(start: Start) -> None:
    primary = start("web:wsgi", max_requests=2).ready()
    client = Client(primary.connect())
    for _ in range(4):
        assert not client.get("/").closes
    assert primary.hear("RECYCLE").lines == {"RECYCLE": "1"}
    drain(primary)
    client.close()
    assert primary.wait() == 0
    assert sum("RECYCLE" in said.lines for said in primary.heard) == 1


def test_keep_alive_ends_after_its_time(start: Start) -> None:
    primary = start("web:wsgi", timeout_keep_alive=0.2).ready()
    client = asks(primary, "/")
    assert client.receive().body == b"hello"
    assert client.at_end()


def test_root_path_is_the_script_name(start: Start) -> None:
    primary = start("web:wsgi", root_path="/shop").ready()
    client = Client(primary.connect())
    stripped, whole = client.get("/who").json(), client.get("/shop/who").json()
    assert (stripped["root"], stripped["path"]) == ("/shop", "/who")
    assert (whole["root"], whole["path"]) == ("/shop", "/who")


def test_several_addresses(start: Start) -> None:
    primary = start("web:wsgi", binds=["inet", "inet6", "unix"], timeout_keep_alive=0.2).ready()
    who = [asks(primary, "/who", front).receive().json()["client"] for front in range(3)]
    assert who == ["127.0.0.1", "::1", "localhost"]
    drain(primary)
    assert primary.wait() == 0


def test_a_full_descriptor_table_leaves_connections_queued(start: Start) -> None:
    primary = start("hungry:app").ready()
    first = Client(primary.connect())
    assert first.get("/eat").body == b"full"
    second = Client(primary.connect())
    second.send("/")
    assert first.get("/give").body == b"ok"
    assert second.receive().body == b"ok"
    assert primary.load(Field.LOST) == 0
