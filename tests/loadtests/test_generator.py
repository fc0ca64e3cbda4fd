"""The generator against a server that does to it what servers do."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from loadtests.generator import SLOW
from loadtests.running import Traffic, traffic
from tests.harness.records import EOF, OK, REFUSED, RESET, STATUS, TIMEOUT, Plan
from tests.harness.servers import wait_until

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Pid: 77\r\nX-Version: v3\r\n\r\nhi"


@dataclass
class Fake:
    """By path: ``/``, ``/close`` before an answer, ``/half`` of one, ``/error``, ``/never``, and
    ``/later``, so that a test may be long and small.
    """

    listener: socket.socket
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    silent: list[socket.socket] = field(default_factory=list)  # ended before they asked
    kept: list[socket.socket] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self.answer, args=(connection,))
            self.threads.append(thread)
            thread.start()

    def answer(self, connection: socket.socket) -> None:
        heard: list[bytes] = []
        with suppress(OSError):
            while self._one(connection, heard):
                pass
        if not heard:
            self.silent.append(connection)
        self.kept.append(connection)
        if not self.requests or not self.requests[-1].startswith(b"GET /never"):
            connection.close()

    def settled(self) -> None:
        """Whoever has connected so far is counted: one more comes after all of them."""
        with socket.create_connection(self.listener.getsockname(), 30) as last:
            last.sendall(b"GET / HTTP/1.1\r\n\r\n")
            last.recv(1)
        self.connections -= 1
        self.requests.remove(b"GET / HTTP/1.1\r\n\r\n")
        wait_until(lambda: self.asked == self.connections, 30.0, "all have asked, or ended")

    @property
    def asked(self) -> int:
        """A client that gets no core within its patience has no time to ask."""
        return len(self.requests) + len(self.silent)

    def _one(self, connection: socket.socket, heard: list[bytes]) -> bool:
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(65536)
            if not data:
                return False
            head += data
        heard.append(head)
        self.requests.append(head)
        path = head.split()[1]
        if path in (b"/close", b"/never"):
            return False
        if path == b"/later":
            time.sleep(0.05)
        said = ANSWER.replace(b"200 OK", b"503 No") if path == b"/error" else ANSWER
        connection.sendall(said[:20] if path == b"/half" else said)
        return path != b"/half" and b"keep-alive" in head


@contextmanager
def fake() -> Iterator[Fake]:
    server = Fake(socket.create_server(("127.0.0.1", 0), backlog=512))
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
        for each in [thread, *server.threads]:
            each.join(10)
        for connection in server.kept:
            connection.close()


@pytest.mark.parametrize("mode", ["open", "closed"])
def test_a_connection_per_request(mode: str) -> None:
    with fake() as server:
        records = traffic(Plan(server.address, mode, count=50, concurrency=5))
        assert server.connections == len(records) == len({each.number for each in records}) == 50
    assert {(each.outcome, each.pid, each.version, each.status) for each in records} == {
        (OK, 77, "v3", 200)
    }
    assert all(each.intended <= each.connected <= each.first <= each.ended for each in records)


def test_kept_connections_are_asked_again() -> None:
    with fake() as server:
        records = traffic(Plan(server.address, "kept", count=200, concurrency=4))
        assert server.connections == 4
        assert len(server.requests) == len(records) == 200
    assert sum(each.fresh for each in records) == 4
    assert all(each.ok for each in records)


@pytest.mark.parametrize(
    ("path", "outcome"),
    [("/close", EOF), ("/half", EOF), ("/error", STATUS), ("/never", TIMEOUT)],
)
@pytest.mark.parametrize("mode", ["closed", "kept"])
def test_failures_by_kind_and_never_tried_again(mode: str, path: str, outcome: str) -> None:
    with fake() as server:
        patience = 0.3 if outcome == TIMEOUT else 20.0
        records = traffic(Plan(server.address, mode, count=3, path=path, timeout=patience))
        server.settled()
        assert server.asked == server.connections == 3
        assert not server.silent or outcome == TIMEOUT
    kinds = {each.outcome for each in records}
    assert kinds <= ({outcome, RESET} if outcome == EOF else {outcome})
    assert len(records) == 3


def test_refused() -> None:
    with socket.socket() as held:  # bound, and nobody listens
        held.bind(("127.0.0.1", 0))
        (record,) = traffic(Plan("{}:{}".format(*held.getsockname()), count=1))
    assert record.outcome == REFUSED


def test_the_share_of_slow_requests_and_the_moments_are_the_seeds() -> None:
    plan = {"count": 400, "rate": 2000.0, "poisson": True, "slow_path": "/slow", "slow_share": 0.1}
    with fake() as server:
        first = traffic(Plan(server.address, seed=5, **plan))  # type: ignore[arg-type]
        slow = sum(each.startswith(b"GET /slow ") for each in server.requests)
        assert sum(each.detail == SLOW for each in first) == slow
        again = traffic(Plan(server.address, seed=5, **plan))  # type: ignore[arg-type]
        slow_again = sum(each.startswith(b"GET /slow ") for each in server.requests) - slow
    assert 15 <= slow <= 80
    assert slow_again == slow
    spans = [
        max(r.intended for r in each) - min(r.intended for r in each) for each in (first, again)
    ]
    assert spans[0] == pytest.approx(spans[1], abs=1000)


def test_a_slow_client_sends_byte_by_byte_and_an_idle_one_nothing() -> None:
    with fake() as server:
        with Traffic(Plan(server.address, "idle", concurrency=20)) as idle:
            idle.wait_for(lambda records: len(records) == 20)
            assert server.requests == []
            assert len(idle.stop().ok) == 20
        (record,) = traffic(Plan(server.address, "slow", count=1))
    assert record.ok
    assert record.latency_ms > 1000
