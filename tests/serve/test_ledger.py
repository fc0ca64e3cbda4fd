"""Each runner notes the way of a connection: taken, first byte, done; by whatever sends."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from websockets.sync.client import connect

from rrdispatch import ledger
from rrdispatch._core.layout import Field
from rrdispatch._core.layout import LedgerEvent as Event

from .client import Client
from .conftest import Start
from .test_tls import FILES, tls

WAY = [Event.TAKEN, Event.FIRST, Event.DONE]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "ledger"
    ledger.create(path, 1000)
    return path


def told(path: Path) -> list[Event]:
    found = [one for one in ledger.read(path).entries if one.event >= Event.TAKEN]
    assert len({one.cookie for one in found}) == 1
    return [Event(one.event) for one in found]


@pytest.mark.parametrize(
    ("target", "loop"),
    [("web:app", "asyncio"), ("web:app", "uvloop"), ("web:wsgi", "auto")],
    ids=["asgi-asyncio", "asgi-uvloop", "wsgi"],
)
@pytest.mark.parametrize("secret", [False, True], ids=["plain", "tls"])
def test_http(start: Start, kept: Path, target: str, loop: str, secret: bool) -> None:
    environment = {ledger.VARIABLE: str(kept)}
    files = FILES if secret else {}
    primary = start(target, loop=loop, environment=environment, **files).ready()
    sock = primary.connect()
    with contextlib.closing(tls(sock) if secret else sock) as end:
        client = Client(end)
        assert client.get("/").status == 200
        assert client.get("/", {"Connection": "close"}).status == 200
    primary.until(Field.CLOSED, 1)
    assert told(kept) == WAY


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_websocket(start: Start, kept: Path, loop: str) -> None:
    environment = {ledger.VARIABLE: str(kept)}
    primary = start("web:app", loop=loop, environment=environment).ready()
    with connect("ws://test/", sock=primary.connect()) as websocket:
        websocket.send("one")
        assert websocket.recv() == "one"
        assert told(kept) == WAY[:2]
    primary.until(Field.CLOSED, 1)
    assert told(kept) == WAY
