"""The shim when something is wrong: the primary, the channel, or what comes over either."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from rrdispatch import _core

from .kit import free_port, shim_needed
from .primary import ANSWER, LISTEN, MAGIC, READY, fake_primary
from .scripts import run

pytestmark = shim_needed

LISTENS = """
server.bind(("127.0.0.1", port))
before = len(os.listdir("/proc/self/fd"))
for _ in range(5):  # whoever has no core for seconds tries again
    start = time.monotonic()
    error = attempt(server.listen)
    soon = time.monotonic() - start < 4
    if soon:
        break
told(error)
told(soon)
told(len(os.listdir("/proc/self/fd")) - before)
told(server.getsockname()[1] == port)
told(attempt(server.accept))
"""


def refused(told: str, error: str) -> None:
    """It failed so, soon, leaked nothing, and left the socket as it was."""
    assert told.splitlines() == [error, "True", "0", "True", "OSError Invalid argument"]


# ---- the primary --------------------------------------------------------------------------------


def test_nobody_serves_the_socket(tmp_path: Path) -> None:
    with fake_primary(tmp_path) as primary:
        gone = {**primary.preloaded, "RRDISPATCH_SOCKET": str(tmp_path / "no")}
        refused(run(LISTENS, free_port(), gone), "ConnectionRefusedError Connection refused")


def test_the_socket_is_there_and_its_server_is_not(tmp_path: Path) -> None:
    with fake_primary(tmp_path) as primary:
        environment = primary.preloaded
    refused(run(LISTENS, free_port(), environment), "ConnectionRefusedError Connection refused")


def test_no_answer(tmp_path: Path) -> None:
    with fake_primary(tmp_path) as primary:
        primary.behaviour.silent = True
        quick = {**primary.preloaded, "RRDISPATCH_SHIM_TIMEOUT_MS": "300"}
        refused(run(LISTENS, free_port(), quick), "TimeoutError Connection timed out")


def test_it_waits_longer_where_an_heir_may_come(tmp_path: Path) -> None:
    """As it is told to: longer than the 5 s of others."""
    script = LISTENS.replace("time.monotonic() - start < 4", "time.monotonic() - start >= 5.5")
    with fake_primary(tmp_path) as primary:
        primary.behaviour.silent = True
        patient = {**primary.preloaded, "RRDISPATCH_SHIM_TIMEOUT_MS": "5600"}
        refused(run(script, free_port(), patient), "TimeoutError Connection timed out")


def test_its_queue_is_full(tmp_path: Path) -> None:
    path = tmp_path / "full"
    seqpacket = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with fake_primary(tmp_path) as primary, socket.socket(*seqpacket) as door:
        door.bind(str(path))
        door.listen(0)
        full = {
            **primary.preloaded,
            "RRDISPATCH_SOCKET": str(path),
            "RRDISPATCH_SHIM_TIMEOUT_MS": "300",
        }
        with socket.socket(*seqpacket) as first:
            first.connect(str(path))
            refused(run(LISTENS, free_port(), full), "TimeoutError Connection timed out")


def test_it_dies_over_the_request_and_its_heir_answers(tmp_path: Path) -> None:
    with fake_primary(tmp_path) as primary:
        primary.behaviour.hang_up = 3
        assert run(LISTENS.replace("told(attempt(server.accept))", ""), free_port(),
                   primary.preloaded).splitlines() == ["fine", "True", "0", "True"]  # fmt: skip
        assert len(primary.asked(LISTEN)) == 4


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: b"",
        lambda _: b"x" * 7,
        lambda _: os.urandom(16),
        lambda good: good + b"x",
        lambda good: good[:-1],
        lambda _: b"z" * 60000,
        lambda _: ANSWER.pack(MAGIC, 2, 0, 0),
        lambda _: ANSWER.pack(MAGIC + 1, 1, 0, 0),
        lambda _: ANSWER.pack(MAGIC, 1, 5, 0),
        lambda _: ANSWER.pack(MAGIC, 1, -100000, 0),
    ],
)
def test_garbage(tmp_path: Path, answer: Callable[[bytes], bytes]) -> None:
    with fake_primary(tmp_path) as primary:
        primary.behaviour.answer = answer
        refused(run(LISTENS, free_port(), primary.preloaded), "OSError Protocol error")


def test_an_answer_without_fds(tmp_path: Path) -> None:
    with fake_primary(tmp_path) as primary:
        primary.behaviour.without_fds = True
        refused(run(LISTENS, free_port(), primary.preloaded), "OSError Protocol error")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errno.EADDRINUSE, "OSError Address already in use"),
        (errno.EACCES, "PermissionError Permission denied"),
        (errno.EADDRNOTAVAIL, "OSError Cannot assign requested address"),
    ],
)
def test_it_refuses(tmp_path: Path, error: int, told: str) -> None:
    with fake_primary(tmp_path) as primary:
        primary.behaviour.refuse = error
        refused(run(LISTENS, free_port(), primary.preloaded), told)


def test_a_channel_without_its_name_is_none(tmp_path: Path) -> None:
    with fake_primary(tmp_path) as primary:
        sending, receiving = _core.channel_pair()
        primary._listen = lambda _: [receiving, receiving]  # type: ignore[method-assign]
        try:
            refused(run(LISTENS, free_port(), primary.preloaded), "OSError Protocol error")
        finally:
            os.close(sending)
            os.close(receiving)


def test_ready_without_an_answer_does_not_stop_the_program(tmp_path: Path) -> None:
    body = """
server.bind(("127.0.0.1", port))
server.listen()
told("listens")
server.setblocking(False)
for _ in range(20):
    attempt(server.accept)
told("goes on")
"""
    with fake_primary(tmp_path) as primary:
        patient = {**primary.preloaded, "RRDISPATCH_SHIM_TIMEOUT_MS": "20000"}
        primary.behaviour.answer = lambda good: good if len(primary.requests) == 1 else b"no"
        assert run(body, free_port(), patient).splitlines() == ["listens", "goes on"]
        # It tries again, but not for ever.
        assert len(primary.asked(READY)) == 3


# ---- the port is another's ----------------------------------------------------------------------


def test_in_use_is_said_by_bind(tmp_path: Path) -> None:
    body = """
told(attempt(server.bind, ("127.0.0.1", port)))
told(server.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
"""
    with fake_primary(tmp_path) as primary, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        told = run(body, port, primary.preloaded).splitlines()
        assert told == ["OSError Address already in use", "0"]
        assert primary.requests == []
