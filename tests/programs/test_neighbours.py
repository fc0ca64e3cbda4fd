"""Who listens already, of both families."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rrdispatch.net.neighbours import somebody_listens
from tests.programs.program import Program, free_port

ANY, ANY_SIX = "0.0.0.0", "::"


def has_six() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


pytestmark = pytest.mark.skipif(not has_six(), reason="no IPv6 here")


@contextmanager
def listening(host: str, port: int, six_only: bool = False) -> Iterator[None]:
    with socket.socket(_family(host)) as listener:
        if ":" in host:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, six_only)
        listener.bind((host, port))
        listener.listen()
        yield


def _family(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@pytest.mark.parametrize(
    ("host", "only", "theirs", "their_only", "overlap"),
    [
        (ANY, False, "127.0.0.1", False, True),
        ("127.0.0.1", False, ANY, False, True),
        ("127.0.0.1", False, "127.0.0.2", False, False),
        (ANY, False, ANY_SIX, False, True),
        (ANY, False, ANY_SIX, True, False),
        ("127.0.0.1", False, ANY_SIX, False, True),
        ("127.0.0.1", False, ANY_SIX, True, False),
        (ANY, False, "::1", False, False),
        (ANY_SIX, False, ANY, False, True),
        (ANY_SIX, True, ANY, False, False),
        (ANY_SIX, True, "::1", False, True),
        ("::1", False, ANY, False, False),
        ("::1", False, ANY_SIX, True, True),
    ],
)
def test_who_is_in_the_way(
    host: str, only: bool, theirs: str, their_only: bool, overlap: bool
) -> None:
    port = free_port()
    assert not somebody_listens(_family(host), host, port, only)
    with listening(theirs, port, their_only):
        assert somebody_listens(_family(host), host, port, only) is overlap


@pytest.mark.parametrize("hosts", [(ANY, ANY_SIX), (ANY_SIX, ANY)])
def test_a_program_may_listen_on_both(hosts: tuple[str, str]) -> None:
    port = free_port()
    with Program("both.py", "--", str(port), *hosts, port=port, options=("-i", "2")):
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), 10.0) as client:
                assert client.recv(100).decode() == host
