"""What the primary does for a program, and what it does not."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from typing import Any

import pytest

from rrdispatch.cluster import door, programs
from rrdispatch.cluster.allowed import FILTERS, may_listen
from rrdispatch.cluster.door import Answer, Request
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.programs import AskedBy, Opened, Programs
from rrdispatch.net.listeners import ListeningSocket, describe, sockaddr

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="options have Linux' numbers")
ONE, NOBODY = (1).to_bytes(4, sys.byteorder), 65534
FOUR = b"\x02\x00" + (8000).to_bytes(2, "big") + bytes((127, 0, 0, 1)) + bytes(8)
SIX = b"\x0a\x00" + (8000).to_bytes(2, "big") + bytes(4) + bytes(15) + b"\x01" + bytes(4)


@pytest.mark.parametrize(
    ("only", "four", "six"),
    [
        ((), True, True),
        (("8000",), True, True),
        (("*:8000",), True, True),
        (("8001", "80"), False, False),
        (("127.0.0.1:8000",), True, False),
        (("127.0.0.2:8000, [::1]:8000",), False, True),
        (("localhost:8000",), True, True),
        (("[::ffff:127.0.0.1]:8000",), True, False),
        (("nonsense", "a.b:8000", ":"), False, False),
    ],
)
def test_where_programs_may_listen(only: tuple[str, ...], four: bool, six: bool) -> None:
    assert (may_listen(only, FOUR), may_listen(only, SIX)) == (four, six)


def answer(request: dict[str, Any], only: tuple[str, ...] = (), euid: int = 0) -> Answer | None:
    """Of a primary that listens somewhere already, at its door."""

    async def main() -> Answer | None:
        nothing: Any = lambda *_: None  # noqa: E731
        with ListeningSocket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            asked_by = AskedBy({1: WorkerHandle(1, 0, 1)}, nothing, Events(), nothing, nothing)
            programs = Programs(only, Opened([sock], [describe(sock)]), asked_by)
            told = {"worker": 1, "key": programs._key(1), "pid": 0, "backlog": 8, "v6only": 0}
            told |= {"level": 0, "option": 0, "address": sockaddr(sock), "value": ONE}
            try:
                return programs._answer(Request(**{**told, **request}))
            finally:
                programs.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: euid)
        return asyncio.run(main())


def set_option(level: int, option: int, uid: int, euid: int) -> int:
    told = {"kind": door.OPTION, "level": level, "option": option, "uid": uid}
    found = answer(told, euid=euid)
    assert found is not None
    return found.result


def test_root_sets_for_others_what_anybody_might() -> None:
    assert set_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, NOBODY, 0) == 0
    assert set_option(socket.IPPROTO_TCP, socket.TCP_NODELAY, NOBODY, 0) == 0
    assert set_option(socket.SOL_SOCKET, socket.SO_MARK, NOBODY, 0) == -errno.EPERM
    assert set_option(socket.SOL_SOCKET, socket.SO_OOBINLINE, NOBODY, 0) == -errno.EPERM


@pytest.mark.parametrize(("uid", "euid"), [(0, 0), (NOBODY, NOBODY)])
def test_who_asks_for_no_more_than_it_has_is_not_restricted(uid: int, euid: int) -> None:
    assert set_option(socket.SOL_SOCKET, socket.SO_OOBINLINE, uid, euid) == 0


@pytest.mark.parametrize("option", sorted(FILTERS))
def test_nobody_puts_a_filter_on_the_listener(option: int) -> None:
    assert set_option(socket.SOL_SOCKET, option, 0, 0) == -errno.EPERM


def test_the_primary_listens_only_where_it_may() -> None:
    told = {"kind": door.LISTEN, "address": FOUR, "uid": os.getuid()}
    assert answer(told, ("9000",)) == Answer(-errno.EPERM)


def test_the_key_of_one_worker_opens_for_nobody_else() -> None:
    """Who has no key, or another worker's, is given nothing; and no key follows from another."""
    told = {"kind": door.LISTEN, "uid": os.getuid()}
    for key in (bytes(16), b"", os.urandom(16)):
        assert answer({**told, "key": key}) == Answer(-errno.EPERM)
    for worker in (0, 2):
        assert answer({**told, "worker": worker}) == Answer(-errno.EPERM)
    allowed = answer({**told, "kind": door.OPTION, "level": socket.SOL_SOCKET, "option": 9})
    assert allowed == Answer(0), "its own key does"


def test_a_channel_that_cannot_be_named_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(fd: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "dup", full)
    with pytest.raises(OSError, match="Too many open files"):
        programs._named_channel(1, b"address")
    assert set(os.listdir("/proc/self/fd")) <= before
