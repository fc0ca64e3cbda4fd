"""A primary over its control socket, spoken to in bytes."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from rrdispatch.control.process import PrimaryProcess, settings_of
from rrdispatch.control.protocol import INVALID_REQUEST, NO_METHOD, PARSE_ERROR
from tests.cluster.service import APPS

LIMIT = 60.0


class Talk:
    """Lines to and from a primary."""

    def __init__(self, process: PrimaryProcess) -> None:
        self.process = process
        process.control.settimeout(LIMIT)
        self._file = process.control.makefile("rb")

    def send(self, data: bytes) -> None:
        self.process.control.sendall(data + b"\n")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        self.send(json.dumps(request).encode())
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that is no event."""
        while True:
            data = self._file.readline()
            assert data, "the primary is gone"
            message: dict[str, Any] = json.loads(data)
            if message.get("method") != "event":
                return message

    def close(self) -> None:
        self._file.close()
        self.process.control.close()


@pytest.fixture
def talk() -> Iterator[Talk]:
    process = PrimaryProcess.start()
    talking = Talk(process)
    try:
        yield talking
    finally:
        talking.close()
        if not process.wait(LIMIT):
            process.kill()
        assert process.reap() == 0


def start(talk: Talk) -> dict[str, Any]:
    settings = settings_of("plain:serve", "127.0.0.1:0", 1, {"cwd": str(APPS)})
    return talk.call("start", settings=settings.values())


def test_before_the_start_nothing_can_be_asked(talk: Talk) -> None:
    for method in ("stats", "reload", "scale", "stop", "kill", "subscribe"):
        assert "nothing was started" in talk.call(method)["error"]["message"]


def test_a_start_with_wrong_settings_is_all_there_is(talk: Talk) -> None:
    assert talk.call("start", settings={"speed": 3})["error"]["data"]["class"] == "ConfigError"
    assert talk.process.wait(LIMIT)


def test_nonsense_is_answered_and_the_next_request_works(talk: Talk) -> None:
    talk.send(b"hello")
    assert talk.answer()["error"]["code"] == PARSE_ERROR
    talk.send(b"[]")
    assert talk.answer()["error"]["code"] == INVALID_REQUEST
    assert talk.call("__class__")["error"]["code"] == NO_METHOD
    assert start(talk)["result"]["state"] == "serving"
    assert "started already" in start(talk)["error"]["message"]
    assert talk.call("scale", workers="x")["error"]["data"]["class"] == "ConfigError"
    assert talk.call("scale", workers=True)["error"]["data"]["class"] == "ConfigError"
    assert talk.call("reload", speed=1)["error"]["data"]["class"] == "ConfigError"
    assert talk.call("stats")["result"]["workers"][0]["state"] == "ready"


def test_a_request_without_end_closes_the_connection_and_the_service(talk: Talk) -> None:
    start(talk)
    talk.send(b"x" * 70000)
    assert "64 KiB" in talk.answer()["error"]["message"]
    assert talk.process.wait(LIMIT)


def test_a_client_that_is_gone_is_a_stop(talk: Talk) -> None:
    start(talk)
    talk.process.control.shutdown(socket.SHUT_RDWR)
    assert talk.process.wait(LIMIT)


def test_a_client_that_reads_nothing_holds_nobody_up(talk: Talk) -> None:
    start(talk)
    for _ in range(3000):
        talk.send(b'{"jsonrpc": "2.0", "method": "stats"}')  # a notification: no answer
    assert talk.call("stats")["result"]["state"] == "serving"
