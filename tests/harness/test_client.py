"""The load client tells apart every way in which a request can end."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websockets

from tests.harness.load import Load, run_load
from tests.harness.records import Plan, Record

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Slot: 3\r\nX-Pid: 7\r\n"


@contextmanager
def server(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does one thing to each connection; its address."""

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                behave(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def one(behave: Callable[[socket.socket], None], timeout: float = 15.0) -> Record:
    with server(behave) as address:
        (record,) = run_load(Plan(address, count=1, timeout=timeout)).records
    return record


@contextmanager
def bound() -> Iterator[str]:
    """An address that is taken, and where nobody listens: everybody is refused."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield "{}:{}".format(*held.getsockname())


def saying(text: bytes) -> Callable[[socket.socket], None]:
    def say(connection: socket.socket) -> None:
        connection.recv(1000)  # closing with something unread would be a reset
        connection.sendall(text)

    return say


answer = saying(ANSWER + b"\r\nok")


def reset(connection: socket.socket) -> None:
    connection.recv(1000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_an_answer() -> None:
    record = one(answer)
    assert (record.outcome, record.slot, record.pid) == ("ok", 3, 7)
    assert record.intended <= record.connected <= record.first <= record.ended


def test_a_status() -> None:
    record = one(saying(b"HTTP/1.1 503 Busy\r\n\r\n"))
    assert (record.outcome, record.status) == ("status", 503)


def test_a_half_answer() -> None:
    assert one(saying(ANSWER)).outcome == "eof"


def test_a_short_body() -> None:
    assert one(saying(ANSWER + b"\r\no")).outcome == "eof"


def test_a_reset() -> None:
    assert one(reset).outcome == "reset"


def test_silence() -> None:
    # recv returns when the client gives up, so that the server's thread ends too.
    def silent(connection: socket.socket) -> None:
        while connection.recv(1000):
            pass

    assert one(silent, 0.2).outcome == "timeout"


def test_nobody_listens() -> None:
    with bound() as address:
        (record,) = run_load(Plan(address, count=1)).records
    assert record.outcome == "refused"
    (record,) = run_load(Plan("unix:/no/such/socket", count=1)).records
    assert record.outcome == "refused"


def test_a_late_server_makes_no_request_late_to_start() -> None:
    with server(answer) as address:
        records = run_load(Plan(address, count=20, rate=200.0)).records
    starts = sorted(each.intended for each in records)
    gaps = {later - earlier for earlier, later in itertools.pairwise(starts)}
    assert all(abs(gap - 5_000_000) < 1000 for gap in gaps)


def test_keep_alive_honours_close() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(ANSWER + b"\r\nok")
        connection.recv(1000)
        connection.sendall(ANSWER + b"Connection: close\r\n\r\nok")

    with server(serve) as address:
        plan = Plan(address, "keepalive", count=6, rate=100.0)
        records = run_load(plan).records
    assert [each.outcome for each in records] == ["ok"] * 6
    assert [each.fresh for each in records] == [True, False] * 3


def test_it_stops_when_told() -> None:
    with server(answer) as address, Load(Plan(address, rate=100.0)) as load:
        load.wait_more(5)
        tally = load.stop()
    assert len(tally.ok) == len(tally.records) >= 5


@contextmanager
def talker(codes: list[int]) -> Iterator[str]:
    """A WebSocket server that closes its first questions with these codes, then answers."""

    def talk(connection: ServerConnection) -> None:
        for _ in connection:
            if codes:
                connection.close(codes.pop(0))
                return
            connection.send("7 3 v1")

    with serve_websockets(talk, "127.0.0.1", 0) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{running.socket.getsockname()[1]}"
        running.shutdown()
        thread.join()


def test_a_websocket_that_is_told_to_come_again() -> None:
    with talker([1012]) as address:
        records = run_load(Plan(address, "websocket", count=3, rate=100.0)).records
    assert [(each.outcome, each.slot, each.version) for each in records] == [("ok", 3, "v1")] * 3
    assert [each.detail for each in records] == ["1012", "", ""]


def test_a_websocket_for_a_few_questions_only() -> None:
    with talker([]) as address:
        plan = Plan(address, "websocket", count=4, rate=100.0, turns=2)
        records = run_load(plan).records
    assert [(each.outcome, each.fresh) for each in records] == [("ok", True), ("ok", False)] * 2


def test_a_websocket_that_is_closed_otherwise() -> None:
    with talker([1001]) as address:
        records = run_load(Plan(address, "websocket", count=2, rate=100.0)).records
    assert [each.outcome for each in records] == ["eof", "ok"]


def test_a_websocket_that_nobody_answers() -> None:
    with bound() as address:
        (record,) = run_load(Plan(address, "websocket", count=1, rate=1.0)).records
    assert record.outcome == "refused"
