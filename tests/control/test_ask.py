"""Requests from a command: each has an end, whatever the other side does."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from rrdispatch.control import protocol
from rrdispatch.control.ask import GoneError, Line
from rrdispatch.errors import ControlError, ProtocolError, ReloadError


@pytest.fixture
def pair() -> Iterator[tuple[Line, socket.socket]]:
    ours, its = socket.socketpair()
    with ours, its:
        yield Line("web", ours), its


def after_request(its: socket.socket, data: bytes, then: Callable[[], object]) -> None:
    def serve() -> None:
        its.recv(65536)
        its.sendall(data)
        then()

    threading.Thread(target=serve, daemon=True).start()


def test_an_answer_in_pieces_with_events_in_between(pair: tuple[Line, socket.socket]) -> None:
    line, its = pair
    seen: list[str] = []
    line._on_event = lambda event: seen.append(event["event"])
    answer = protocol.event({"event": "one"}) + protocol.result(1, {"a": 1})
    after_request(its, answer[:30], lambda: its.sendall(answer[30:]))
    assert line.call("stats") == {"a": 1}
    assert seen == ["one"]


def test_silence_has_an_end(pair: tuple[Line, socket.socket]) -> None:
    line, _its = pair
    began = time.monotonic()
    with pytest.raises(ControlError, match="web did not answer stats in time"):
        line.call("stats", 0.05)
    assert time.monotonic() - began < 30


def test_one_that_talks_without_answering_has_an_end(pair: tuple[Line, socket.socket]) -> None:
    line, its = pair
    over = threading.Event()

    def talk() -> None:
        its.settimeout(0.1)
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                its.send(protocol.event({"event": "more"}))

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        with pytest.raises(ControlError, match="in time"):
            line.call("stats", 0.2)
    finally:
        over.set()
        thread.join()


def test_the_end_is_told(pair: tuple[Line, socket.socket]) -> None:
    line, its = pair
    after_request(its, b"", its.close)
    with pytest.raises(GoneError, match="the primary of web ended before it answered"):
        line.call("stats")


@pytest.mark.parametrize("data", [b"rubbish\n", b"[]\n", b"\xff\n"])
def test_what_is_no_answer(pair: tuple[Line, socket.socket], data: bytes) -> None:
    line, its = pair
    after_request(its, data, lambda: None)
    with pytest.raises(ProtocolError):
        line.call("stats")


def test_errors_come_back_as_they_were(pair: tuple[Line, socket.socket]) -> None:
    line, its = pair
    after_request(its, protocol.failure(1, ReloadError("no", output="words")), lambda: None)
    with pytest.raises(ReloadError, match="no") as caught:
        line.call("reload")
    assert caught.value.output == "words"


def test_a_primary_of_another_version_is_told_as_such(pair: tuple[Line, socket.socket]) -> None:
    line, its = pair
    error = {"code": protocol.NO_METHOD, "message": "there is no method 'launch'"}
    told = {"jsonrpc": "2.0", "id": 1, "error": error}
    after_request(its, json.dumps(told).encode() + b"\n", lambda: None)
    with pytest.raises(ControlError, match="of another version: there is no method") as caught:
        line.call("launch")
    assert caught.value.hint == "rrdispatch stop web, then start it again"
