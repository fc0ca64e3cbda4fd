"""Addresses as people type them."""

from __future__ import annotations

import re

import pytest

from rrdispatch.errors import ConfigError
from rrdispatch.net.addresses import InetAddress, InheritedAddress, UnixAddress, parse


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("127.0.0.1:8000", InetAddress("127.0.0.1", 8000), "127.0.0.1:8000"),
        ("localhost:0", InetAddress("localhost", 0), "localhost:0"),
        ("my-host.example:65535", InetAddress("my-host.example", 65535), "my-host.example:65535"),
        (":8000", InetAddress("", 8000), ":8000"),
        ("8000", InetAddress("127.0.0.1", 8000), "127.0.0.1:8000"),
        (" 8000 ", InetAddress("127.0.0.1", 8000), "127.0.0.1:8000"),
        ("[::1]:8000", InetAddress("::1", 8000), "[::1]:8000"),
        ("[fe80::1%eth0]:80", InetAddress("fe80::1%eth0", 80), "[fe80::1%eth0]:80"),
        ("unix:app.sock", UnixAddress("app.sock"), "unix:app.sock"),
        ("unix:/run/app.sock", UnixAddress("/run/app.sock"), "unix:/run/app.sock"),
        ("unix:///run/app.sock", UnixAddress("/run/app.sock"), "unix:/run/app.sock"),
        ("unix:/a:b/c d.sock", UnixAddress("/a:b/c d.sock"), "unix:/a:b/c d.sock"),
        ("fd://3", InheritedAddress(3), "fd://3"),
    ],
)
def test_right_forms_round_trip(text, address, written):
    assert parse(text) == address
    assert str(address) == written
    assert parse(written) == address


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "host", "host:", "host:x", "host:-1", "host:65536", "1.2.3.4:80:90", "::1:8000",
        "[::1]", "[::1:8000", "[host]:80", "http://host:80", "a b:80", "unix:", "unix:a\0b", "fd://",
        "fd://x", "fd://-1", "99999", "host:\uff18", f"unix:/{'x' * 107}",
    ],
)  # fmt: skip
def test_wrong_text_is_named_with_the_right_forms(text):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert repr(text) in caught.value.message
    assert "HOST:PORT" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http://127.0.0.1:80", "without 'http://'"),
        ("tcp://[::1]:80", "without 'tcp://'"),
        ("fd:3", "written as fd://N"),
        ("::1:80", "[ADDRESS]:PORT"),
    ],
)
def test_the_reason_is_the_right_one(text, reason):
    with pytest.raises(ConfigError, match=re.escape(reason)):
        parse(text)
