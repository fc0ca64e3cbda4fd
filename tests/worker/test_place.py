"""A worker's place and its voice: docs/protocol.md section 2."""

from __future__ import annotations

import contextlib
import json
import os
import socket

import pytest

from rrdispatch.errors import ProtocolError
from rrdispatch.worker.notify import Notifier, ready
from rrdispatch.worker.place import Place

LISTENERS = [
    {"fd": 5, "family": "inet", "address": ["127.0.0.1", 8000]},
    {"fd": 6, "family": "inet6", "address": ["::1", 8000, 0, 0]},
    {"fd": 7, "family": "unix", "address": "/run/x.sock"},
]
ENVIRONMENT = {
    "RRDISPATCH_PROTOCOL": "1",
    "RRDISPATCH_NAME": "shop",
    "RRDISPATCH_SLOT": "2",
    "RRDISPATCH_GENERATION": "3",
    "RRDISPATCH_WORKERS": "4",
    "RRDISPATCH_LISTENERS": json.dumps(LISTENERS),
    "RRDISPATCH_SCOREBOARD": "8",
    "RRDISPATCH_NOTIFY": "9",
    "RRDISPATCH_LIFELINE": "10",
    "RRDISPATCH_APP": '{"target": "shop:app"}',
}


def test_everything() -> None:
    place = Place.from_environment(ENVIRONMENT)
    assert (place.name, place.slot, place.generation, place.workers) == ("shop", 2, 3, 4)
    assert (place.scoreboard, place.notify, place.lifeline) == (8, 9, 10)
    assert place.app == {"target": "shop:app"}
    assert [bound.fd for bound in place.listeners] == [5, 6, 7]
    assert [str(bound) for bound in place.listeners] == [
        "127.0.0.1:8000", "[::1]:8000", "unix:/run/x.sock",
    ]  # fmt: skip
    assert place.listeners[1].address == ("::1", 8000, 0, 0)
    assert sorted(place.descriptors()) == [5, 6, 7, 8, 9, 10]


def test_what_may_be_absent() -> None:
    optional = ("RRDISPATCH_LIFELINE", "RRDISPATCH_APP")
    environment = {key: value for key, value in ENVIRONMENT.items() if key not in optional}
    place = Place.from_environment(environment)
    assert place.lifeline is None
    assert place.app == {}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("PROTOCOL", "2", "this worker speaks 1"),
        ("SLOT", "-1", "RRDISPATCH_SLOT is '-1', not a number"),
        ("SLOT", None, "RRDISPATCH_SLOT is not set"),
        ("LISTENERS", "[", "RRDISPATCH_LISTENERS is not JSON"),
        ("LISTENERS", "{}", "RRDISPATCH_LISTENERS is not a JSON list"),
        ("LISTENERS", '[{"fd": 5}]', "RRDISPATCH_LISTENERS has a wrong entry"),
        ("LISTENERS", '[{"fd": 5, "family": "ipx", "address": "x"}]', "a wrong entry"),
        ("APP", "[]", "RRDISPATCH_APP is not a JSON dict"),
    ],
)
def test_what_is_wrong_is_named(key: str, value: str | None, said: str) -> None:
    environment = {**ENVIRONMENT, f"RRDISPATCH_{key}": value or ""}
    if value is None:
        del environment[f"RRDISPATCH_{key}"]
    with pytest.raises(ProtocolError, match=said.replace("[", r"\[")):
        Place.from_environment(environment)


@pytest.fixture
def ends() -> tuple[socket.socket, Notifier]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0)
    return ours, Notifier(theirs.detach())


def heard(sock: socket.socket) -> list[str]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(sock.recv(1 << 20).decode())
    return found


def test_each_thing_is_said_once(ends: tuple[socket.socket, Notifier]) -> None:
    sock, notifier = ends
    assert notifier.ready(kind="asgi", capacity=5, batch=16)
    assert not notifier.ready()
    assert notifier.recycle()
    assert not notifier.recycle()
    notifier.stopping()
    notifier.status("two\nlines\tof  it")
    assert heard(sock) == [
        "READY=1\nKIND=asgi\nCAPACITY=5\nBATCH=16", "RECYCLE=1", "STOPPING=1",
        "STATUS=two lines of it",
    ]  # fmt: skip
    close(sock, notifier)


@pytest.mark.parametrize("filler", ["x", "\n", "\U0001f600", "\udcff"])
def test_an_error_fits_into_one_datagram(ends: tuple[socket.socket, Notifier], filler: str) -> None:
    sock, notifier = ends
    notifier.error("target", "m" * 10_000, hint="h", traceback=filler * 200_000 + "the end")
    (text,) = heard(sock)
    assert len(text.encode()) <= 65536
    key, _, value = text.partition("=")
    told = json.loads(value)
    assert key == "ERROR"
    assert told["traceback"].endswith("the end")
    assert (told["code"], told["hint"]) == ("target", "h")
    assert "\n" not in text
    close(sock, notifier)


def test_nobody_listens(ends: tuple[socket.socket, Notifier]) -> None:
    sock, notifier = ends
    sock.close()
    notifier.ready()
    notifier.error("app", "x")
    os.close(notifier._fd)
    notifier.status("x")


def test_a_primary_that_does_not_read_blocks_nobody(
    ends: tuple[socket.socket, Notifier],
) -> None:
    sock, notifier = ends
    for _ in range(2000):
        notifier.status("x" * 900)
    assert len(heard(sock)) < 2000
    close(sock, notifier)


def test_outside_of_a_worker() -> None:
    assert ready() is False


def close(sock: socket.socket, notifier: Notifier) -> None:
    sock.close()
    os.close(notifier._fd)
