"""The status port of a running app: /ready, /live, /metrics, and clients of the worst kind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
from typing import Any

import pytest

from rrdispatch.control.status import MOST_CLIENTS, MOST_REQUEST, WITHIN
from tests.cli.plane import Plane, finish, free_address, get
from tests.harness import processes
from tests.harness.readable import readable
from tests.harness.servers import wait_until

PORT = ("--status-bind", "127.0.0.1:0")
CALM = ("--stall-timeout", "60")  # a worker that has no core for a moment keeps its turn


def place(plane: Plane) -> tuple[str, int]:
    host, _, port = json.loads(plane.ok("show", "web", "--json"))[0]["status_address"].partition(
        ":"
    )
    return host, int(port)


def ask(where: tuple[str, int], path: str, method: str = "GET") -> tuple[int, bytes]:
    with contextlib.closing(http.client.HTTPConnection(*where, timeout=60)) as client:
        client.request(method, path)
        answer = client.getresponse()
        return answer.status, answer.read()


@pytest.fixture
def where(plane: Plane) -> tuple[str, int]:
    plane.start("shop:app", *PORT, *CALM)
    return place(plane)


def test_what_it_answers(plane: Plane, where: tuple[str, int]) -> None:
    pytest.importorskip("prometheus_client")
    code, body = ask(where, "/ready?verbose")
    assert (code, json.loads(body)) == (
        200, {"ready": True, "state": "serving", "serving": 2, "wanted": 2},
    )  # fmt: skip
    assert ask(where, "/ready", "HEAD") == (200, b"")
    assert ask(where, "/live")[0] == 200
    assert ask(where, "/", "GET")[0] == 404
    assert ask(where, "/ready", "POST")[0] == 405
    for _ in range(4):
        get(plane.row())
    wait_until(lambda: b'accepted_total{app="web"} 4.0' in ask(where, "/metrics")[1], 60.0)
    assert 'rrdispatch_slot_connections_total{app="web",slot="1"} 2.0' in plane.ok("metrics")


def test_clients_that_are_slow_or_many_or_mad(plane: Plane, where: tuple[str, int]) -> None:
    with contextlib.ExitStack() as stack:
        slow = []
        for _ in range(3 * MOST_CLIENTS):
            slow.append(stack.enter_context(socket.create_connection(where, 60)))
            slow[-1].sendall(b"GET /ready HTTP/1.1\r\nX-Slow: ")
        assert ask(where, "/ready")[0] == 200

        def gave_way() -> int:
            return sum(readable(one, 0.0) for one in slow)

        wait_until(lambda: gave_way() >= 2 * MOST_CLIENTS, WITHIN - 1)  # not for being slow
        assert get(plane.row())["pid"]
    for said in (b"x" * 4 * MOST_REQUEST, b"\x16\x03\x01\r\n\r\n", b"GET /ready\r\n\r\n", b""):
        with socket.create_connection(where, 60) as client, contextlib.suppress(OSError):
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            assert not client.recv(1000).startswith(b"HTTP/1.1 200")
    assert ask(where, "/ready")[0] == 200


def test_at_a_stop_it_is_unready_at_once_while_all_is_served(plane: Plane) -> None:
    # Of its own host: nobody else may get the port afterwards.
    own = ("--status-bind", f"{free_address()[0]}:0")
    plane.start("shop:app", *own, "--shutdown-delay", "300")
    where, row = place(plane), plane.row()
    stop = plane.begin("stop", "web")
    wait_until(lambda: ask(where, "/ready")[0] == 503, 60.0)
    assert ask(where, "/live")[0] == 200
    assert get(row)["pid"]
    plane.ok("stop", "web", "--now")
    finish(stop)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(where, 10)


def test_unready_while_no_worker_serves(plane: Plane) -> None:
    plane.start("shop:app", *PORT, "--max-restarts", "1000")  # it goes on trying
    where = place(plane)
    (plane.here / "shop.py").write_text("raise RuntimeError('gone bad')\n")
    for worker in plane.row()["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: ask(where, "/ready")[0] == 503, 60.0)


def test_an_heir_answers_on(plane: Plane, where: tuple[str, int]) -> None:
    before = plane.row()["primary_pid"]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: processes.state(before) in ("", "Z"), 60.0)
    assert ask(where, "/ready")[0] == 200  # whoever asks meanwhile waits
    wait_until(lambda: plane.row()["primary_pid"] not in (None, before), 60.0)
    assert place(plane) == where


def test_a_port_that_is_taken_is_an_error_of_the_start(
    plane: Plane, where: tuple[str, int]
) -> None:
    taken = f"127.0.0.1:{where[1]}"
    told = plane.type("start", "shop:app", "--name", "two", "-b", "127.0.0.1:0",
                      "--status-bind", taken)  # fmt: skip
    assert told.code == 3, told
    assert taken in told.err
    assert [row["name"] for row in plane.rows()] == ["web"]
    told = plane.type("start", "shop:app", "--name", "two", "--status-bind", "unix:/x")
    assert told.code == 2


def test_two_apps_of_a_file_with_one_port_are_refused_before_a_start(plane: Plane) -> None:
    apps = "".join(
        f'[apps.{name}]\ntarget = "shop:app"\nbind = "127.0.0.1:0"\n' for name in ("one", "two")
    )
    (plane.here / "rrdispatch.toml").write_text(f'status_bind = "127.0.0.1:9100"\n{apps}')
    told = plane.type("start")
    assert told.code == 2, told
    assert "one and two both listen on 127.0.0.1:9100" in told.err
    assert plane.rows() == []


def test_in_the_foreground_without_a_control_socket(plane: Plane) -> None:
    run = plane.begin("run", "shop:app", "-i", "1", "-b", "127.0.0.1:0", *PORT)
    try:
        assert run.stderr is not None
        lines: list[str] = []
        while not any("ready after" in line for line in lines):
            lines.append(run.stderr.readline())
            assert lines[-1], lines
        told: Any = next(line for line in lines if "/ready, /live and /metrics on " in line)
        host, _, port = told.split()[-1].partition(":")
        assert ask((host, int(port)), "/ready")[0] == 200
    finally:
        run.terminate()
        assert finish(run).code == 0
