"""A line as it is written, and read back."""

from __future__ import annotations

import json

import pytest

from rrdispatch.cluster.logformat import Format, Line, Who, iso, parse

WHO = Who("my.web-1", 3, "err")
KNOWN = Line(b"", "known", 9, "out")


@pytest.mark.parametrize("time", [True, False])
@pytest.mark.parametrize("kind", ["text", "json"])
@pytest.mark.parametrize("message", [b"", b"plain", b"a.0 out | b", b"\x1b[31mred", "é\r".encode()])
def test_there_and_back(kind: str, time: bool, message: bytes) -> None:
    text = Format(kind, time, True).text(WHO, message + b"\nsecond", 1_700_000_000_123)
    first, second = text[:-1].split(b"\n")
    stamp = "2023-11-14T22:13:20.123Z" if time else ""
    assert parse(kind, first, KNOWN) == Line(message, "my.web-1", 3, "err", stamp)
    assert parse(kind, second, KNOWN).message == b"second"


def test_a_piece_of_a_line() -> None:
    for kind in ("text", "json"):
        text = Format(kind, False, True).text(WHO, b"rest\nnew", 0, continues=True)
        first, second = text[:-1].split(b"\n")
        assert parse(kind, first, KNOWN).part
        assert not parse(kind, second, KNOWN).part


def test_raw_is_what_was_printed() -> None:
    assert Format("raw", True, True).text(WHO, b"a\nb", 0) == b"a\nb\n"
    assert parse("raw", b"2023 x.0 out | b", KNOWN) == Line(b"2023 x.0 out | b", "known", 9, "out")


@pytest.mark.parametrize("raw", [b"rrdispatch: 3 lines dropped", b"{}", b"[1]", b'{"message": 1}'])
@pytest.mark.parametrize("kind", ["text", "json"])
def test_what_is_none_of_ours_is_shown_as_it_is(kind: str, raw: bytes) -> None:
    assert parse(kind, raw, KNOWN) == Line(raw, "known", 9, "out")


def test_a_line_of_our_own_is_json_where_all_are() -> None:
    told = json.loads(Format("json", True, True).note("web", "3 lines dropped", 0))
    who = {"app_name": "web", "slot": None, "type": "err", "message": "3 lines dropped"}
    assert told == {"timestamp": "1970-01-01T00:00:00.000Z", **who}
    assert parse("json", json.dumps(who).encode(), KNOWN).slot == KNOWN.slot
    for kind in ("text", "raw"):
        assert Format(kind, True, True).note("web", "3 lines dropped", 0) == b"3 lines dropped\n"


def test_bytes_that_are_no_text() -> None:
    text = Format("json", False, True).text(WHO, b"\xff", 0)
    assert json.loads(text)["message"] == "\ufffd"


def test_time_is_utc() -> None:
    assert iso(0) == "1970-01-01T00:00:00.000Z"
