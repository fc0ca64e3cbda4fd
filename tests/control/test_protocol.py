"""JSON-RPC lines: what is refused, and that errors come out as they went in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrdispatch import errors
from rrdispatch.control import protocol
from rrdispatch.control.protocol import BadRequestError
from rrdispatch.control.server import METHODS


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", protocol.PARSE_ERROR),
        (b"{", protocol.PARSE_ERROR),
        (b"\xff\xfe", protocol.PARSE_ERROR),
        (b"[" * 60000, protocol.PARSE_ERROR),
        (b"[]", protocol.INVALID_REQUEST),
        (b'{"method": "stats", "id": 1}', protocol.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": 1}', protocol.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": "stats", "id": true}', protocol.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": "stats", "id": 1.5}', protocol.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": "x", "params": [1]}', protocol.INVALID_PARAMS),
    ],
)
def test_bad_requests_have_the_standard_codes(line: bytes, code: int) -> None:
    with pytest.raises(BadRequestError) as bad:
        protocol.parse_request(line)
    assert bad.value.code == code


def test_a_request_comes_out_as_it_went_in() -> None:
    request = protocol.parse_request(protocol.request("scale", {"workers": 3}, 7))
    assert (request.method, request.params, request.id) == ("scale", {"workers": 3}, 7)


def test_a_request_that_is_too_long_is_refused_by_its_own_side() -> None:
    with pytest.raises(errors.ControlError, match="65536"):
        protocol.request("start", {"settings": "x" * 70000}, 1)


@pytest.mark.parametrize("kind", protocol.CLASSES.values(), ids=protocol.CLASSES.keys())
def test_an_error_comes_out_as_it_went_in(kind: type[errors.Error]) -> None:
    error = kind("it failed", hint="do that")
    for name in ("traceback", "output"):
        if hasattr(error, name):
            setattr(error, name, f"some {name}")
    told = json.loads(protocol.failure(1, error))["error"]
    back = protocol.exception(told)
    assert type(back) is kind
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_other_exceptions_are_control_errors() -> None:
    told = json.loads(protocol.failure(1, ZeroDivisionError("x")))["error"]
    assert isinstance(protocol.exception(told), errors.ControlError)


@pytest.mark.parametrize("name", ["SystemExit", "Error.__init__", "os.system", "", "None"])
def test_only_our_own_classes_are_made_of_names(name: str) -> None:
    told = {"message": "m", "data": {"class": name}}
    assert type(protocol.exception(told)) is errors.ControlError


@given(st.binary(max_size=300))
def test_no_line_breaks_the_parser(line: bytes) -> None:
    try:
        request = protocol.parse_request(line)
    except BadRequestError as bad:
        assert bad.code < 0
    else:
        assert isinstance(request.method, str)


def test_methods_are_a_literal_table() -> None:
    wanted = {"start", "reload", "scale", "stats", "stop", "kill", "subscribe", "reset", "signal"}
    wanted |= {"reopen_logs", "recycle", "launch", "ends"}
    assert set(METHODS) == wanted
