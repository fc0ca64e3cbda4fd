"""A thread of the dashboard works on when nobody awaits it any more; what it opens is closed."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from rrdispatch.cluster.logformat import Line
from rrdispatch.control import statedir
from rrdispatch.control.definitions import Definition
from rrdispatch.control.logread import LogRef, Reader
from rrdispatch.monit import tail
from rrdispatch.monit.live import Follower
from tests.monit.fake import PATIENCE


class Gate:
    """A call that does not go on before the test says so."""

    def __init__(self) -> None:
        self.inside, self.open = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.inside.set()
        assert self.open.wait(PATIENCE)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.inside.wait, PATIENCE)


class Logs:
    """Of two workers."""

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / "one", folder / "two"]
        for path in self._paths:
            path.write_text("a line\n")

    def refs(self) -> list[LogRef]:
        return [LogRef(str(path), "raw", 5, Line(b"", "web")) for path in self._paths]


def test_the_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, true = Gate(), tail.last

    def slow(ref: LogRef, *more: Any) -> Reader:
        if ref.path.endswith("two"):
            gate.wait()
        return true(ref, *more)

    async def leave() -> None:
        left = tail.Tail(Definition("web"), None)
        reading = asyncio.ensure_future(left.more())
        await gate.reached()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await left.close()
        gate.open.set()

    monkeypatch.setattr(tail, "last", slow)
    monkeypatch.setattr(tail, "logs_of", lambda *_: Logs(tmp_path))
    asyncio.run(leave())
    names = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    links = [os.readlink(name) for name in names if os.path.islink(name)]
    assert [link for link in links if link.startswith(str(tmp_path))] == []


def test_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    ours, its = socket.socketpair()

    def connect(*_: Any) -> socket.socket:
        gate.wait()
        return ours

    async def leave() -> None:
        follower = Follower(Definition("web"), 1.0)
        await gate.reached()
        task = follower.cancel()
        await asyncio.wait([task])
        gate.open.set()

    monkeypatch.setattr(statedir, "connect", connect)
    with its:
        asyncio.run(leave())
        closed = ours.fileno() < 0
        ours.close()
        assert closed
