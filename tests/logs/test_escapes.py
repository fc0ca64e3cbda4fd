"""What is printed may colour a terminal, and nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrdispatch.cli.escapes import harmless


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"plain \xc3\xa9\ttab", "plain é\ttab"),
        (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m"),
        (b"\x1b[1;38;5;8mgrey", "\x1b[1;38;5;8mgrey\x1b[0m"),
        (b"\x1b[38;2;8;8;8mgrey", "\x1b[38;2;8;8;8mgrey\x1b[0m"),
        (b"\x1b[8mhidden", "\\x1b[8mhidden"),
        (b"\x1b[0;08;1mhidden", "\\x1b[0;08;1mhidden"),
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        (b"\x1b[2J\x1b[H", "\\x1b[2J\\x1b[H"),
        (b"over\rwritten\r", "over\\x0dwritten"),
        (b"\x9b31m", "\\x9b31m"),
        (b"\xc2\x9b31m", "\\x9b31m"),
        (b"\xff", "\\xff"),
        ("\u202eevil".encode(), "\\u202eevil"),
        (b"\x1b" * 3, "\\x1b" * 3),
    ],
)
def test_shown(printed: bytes, shown: str) -> None:
    assert harmless(printed) == shown


def test_no_colour() -> None:
    assert harmless(b"\x1b[31mred\x1b[0m", colour=False) == "red"


@given(st.binary(max_size=200))
def test_nothing_but_colours_is_left(printed: bytes) -> None:
    rest = re.sub("\x1b\\[[0-9;]*m", "", harmless(printed))
    assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]", rest)
    rest.encode()
