"""Proxy headers: one set of rules, the same answer from ASGI and WSGI."""

from __future__ import annotations

import pytest

from rrdispatch.serve.proxy import Trust

from .client import Client
from .conftest import Start

BOTH = pytest.mark.parametrize("target", ["web:app", "web:wsgi"], ids=["asgi", "wsgi"])


@pytest.mark.parametrize(
    ("trusted", "peer", "believed"),
    [
        (None, "127.0.0.1", True),
        (None, "::1", True),
        (None, "::ffff:127.0.0.1", True),
        (None, "10.0.0.1", False),
        (None, None, True),
        ("", "127.0.0.1", False),
        ("", None, True),
        ("*", "203.0.113.9", True),
        ("10.0.0.0/8, 192.168.1.5", "10.1.2.3", True),
        ("10.0.0.0/8, 192.168.1.5", "192.168.1.5", True),
        ("10.0.0.0/8, 192.168.1.5", "192.168.1.6", False),
        ("10.0.0.1/8", "10.1.2.3", True),
        ("fd00::/8", "fd00::5", True),
        ("fd00::/8", "10.0.0.1", False),
        ("fd00:0::5", "fd00::5", True),
        ("10.0.0.0/8", "", False),
        ("10.0.0.0/8", "x" * 500, False),
        ("edge", "edge", True),
    ],
)
def test_who_is_believed(trusted: str | None, peer: str | None, believed: bool) -> None:
    assert Trust(trusted).peer(peer) is believed


def test_the_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1")
    assert Trust().peer("10.0.0.1")
    assert not Trust().peer("127.0.0.1")


@pytest.mark.parametrize(
    ("trusted", "header", "client"),
    [
        (None, "1.2.3.4", ("1.2.3.4", 0)),
        (None, "1.2.3.4:99", ("1.2.3.4", 99)),
        (None, "2001:db8::1", ("2001:db8::1", 0)),
        (None, "[2001:db8::1]:99", ("2001:db8::1", 99)),
        (None, "6.6.6.6, 1.2.3.4", ("1.2.3.4", 0)),  # the first is what the client claims
        (None, "6.6.6.6, 1.2.3.4, 127.0.0.1", ("1.2.3.4", 0)),
        (None, "127.0.0.1, ::1", ("127.0.0.1", 0)),
        ("*", "6.6.6.6, 1.2.3.4", ("6.6.6.6", 0)),
        (None, "", None),
        (None, " , ", None),
        (None, "unknown", ("unknown", 0)),
        (None, "1.2.3.4:http", ("1.2.3.4:http", 0)),
    ],
)
def test_whose_request_it_is(
    trusted: str | None, header: str, client: tuple[str, int] | None
) -> None:
    assert Trust(trusted).client(header) == client


FORWARDED = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "6.6.6.6, 203.0.113.9"}


@BOTH
def test_behind_a_proxy(start: Start, target: str) -> None:
    who = Client(start(target).ready().connect()).get("/who", FORWARDED).json()
    assert (who["scheme"], who["client"], who["port"]) == ("https", "203.0.113.9", 0)


@BOTH
def test_behind_a_proxy_on_a_unix_socket(start: Start, target: str) -> None:
    primary = start(target, binds=["unix"], forwarded_allow_ips="10.0.0.1").ready()
    who = Client(primary.connect()).get("/who", FORWARDED).json()
    assert (who["scheme"], who["client"]) == ("https", "203.0.113.9")


@BOTH
def test_an_untrusted_peer_is_not_believed(start: Start, target: str) -> None:
    primary = start(target, forwarded_allow_ips="10.0.0.1").ready()
    client = Client(primary.connect())
    who = client.get("/who", FORWARDED).json()
    assert (who["scheme"], who["client"]) == ("http", "127.0.0.1")
    assert who["port"] == client.sock.getsockname()[1]


@BOTH
def test_switched_off(start: Start, target: str) -> None:
    who = Client(start(target, proxy_headers=False).ready().connect()).get("/who", FORWARDED)
    assert (who.json()["scheme"], who.json()["client"]) == ("http", "127.0.0.1")


@BOTH
def test_nonsense_changes_nothing(start: Start, target: str) -> None:
    headers = {"X-Forwarded-Proto": "gopher", "X-Forwarded-For": ","}
    who = Client(start(target).ready().connect()).get("/who", headers).json()
    assert (who["scheme"], who["client"]) == ("http", "127.0.0.1")


def test_djangos_is_secure(start: Start) -> None:
    """What people need it for: Flask's and Django's request.is_secure come from this."""
    primary = start("flask_app:app").ready()
    client = Client(primary.connect())
    assert client.get("/secure", {"X-Forwarded-Proto": "https"}).body == b"True"
    assert client.get("/secure").body == b"False"
