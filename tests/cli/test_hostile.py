"""Whatever is written on a control socket: it is answered or cut off, and the app serves on."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Iterator

import pytest

from rrdispatch.control import statedir
from rrdispatch.control.clients import MOST_CLIENTS
from tests.cli.plane import Plane, get
from tests.harness import processes
from tests.harness.servers import wait_until

MESSAGES, EACH = 10_000, 500
SEED = 20261126


@pytest.fixture
def web(plane: Plane) -> Plane:
    plane.start()
    return plane


def connect(plane: Plane) -> socket.socket:
    return statedir.connect("web", plane.home, 60.0)


def line(number: int, rnd: random.Random) -> bytes:
    """Nothing that is a request to stop."""
    good = {"jsonrpc": "2.0", "id": number, "method": "stats", "params": {}}
    kind = number % 9
    if kind == 0:
        return bytes(rnd.randrange(256) for _ in range(rnd.randrange(1, 200))).replace(b"\n", b"")
    if kind == 1:
        text = json.dumps(good)
        return text[: rnd.randrange(len(text))].encode()
    if kind == 2:
        return b"[" * rnd.randrange(1, 5000)
    wrong = rnd.choice([None, [], {}, -1, 10**40, 1e308, "\0", "x" * 3000, True, {"a": []}])
    if kind == 3:
        return json.dumps({**good, "method": wrong}).encode()
    if kind == 4:
        return json.dumps({**good, "params": wrong}).encode()
    if kind == 5:
        return json.dumps({**good, "id": wrong}).encode()
    if kind == 6:
        return json.dumps({**good, "method": "scale", "params": {"workers": wrong}}).encode()
    if kind == 7:
        return json.dumps({**good, "method": "signal", "params": {"signal": wrong}}).encode()
    return json.dumps({**good, "method": "reload", "params": {"batch": wrong, "x": 1}}).encode()


def answers(control: socket.socket, count: int) -> Iterator[dict[str, object]]:
    with control.makefile("rb") as lines:
        for _ in range(count):
            data = lines.readline()
            assert data, "shut out"
            yield json.loads(data)


def test_ten_thousand_messages_that_are_none(web: Plane) -> None:
    rnd = random.Random(SEED)
    before = web.row()
    for first in range(0, MESSAGES, EACH):
        with connect(web) as control:
            lines = [line(number, rnd) for number in range(first, first + EACH)]
            sender = b"".join(each + b"\n" for each in lines)
            for at in range(0, len(sender), 16384):
                control.sendall(sender[at : at + 16384])
            control.sendall(b'{"jsonrpc": "2.0", "id": "last", "method": "stats"}\n')
            for answer in answers(control, 2 * EACH):
                if answer.get("id") == "last":
                    break
            else:
                raise AssertionError("no answer to what was a request")
    after = web.row()
    assert get(after)["pid"] in [worker["pid"] for worker in before["workers"]]
    assert after["primary_pid"] == before["primary_pid"]
    assert (after["status"], after["generation"]) == ("online", 1)


def test_an_endless_line_is_cut_off(web: Plane) -> None:
    with connect(web) as control:
        try:
            for _ in range(64):
                control.sendall(b"x" * 65536)
        except OSError:
            pass  # cut off while it was talking
        told = control.recv(4096)
    assert b"longer than 64 KiB" in told or told == b""
    assert web.row()["status"] == "online"


def test_half_a_request_is_cut_off(web: Plane) -> None:
    with connect(web) as control:
        control.sendall(b'{"jsonrpc"')
        assert b"did not come in time" in control.recv(4096)
        assert control.recv(1) == b""


def test_many_who_say_nothing_keep_nobody_out_for_long(web: Plane) -> None:
    crowd = [connect(web) for _ in range(MOST_CLIENTS + 8)]
    try:
        wait_until(lambda: web.row()["status"] == "online", 60.0)
    finally:
        for each in crowd:
            each.close()


def test_those_who_read_nothing_hold_nobody_up(web: Plane) -> None:
    """And are not listened to: their requests stay in the socket instead of filling the memory."""
    primary = web.row()["primary_pid"]
    requests = b'{"jsonrpc": "2.0", "id": 1, "method": "stats"}\n' * 100
    with connect(web) as control:
        control.settimeout(3.0)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                sent += control.send(requests)
        assert sent < 64 << 20
        assert web.row()["status"] == "online"
        assert processes.memory(primary).private < 100_000  # kilobytes
