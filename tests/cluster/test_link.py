"""Requests to the dispatcher, when the kernel has no room for them; and when it is silent."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
from typing import Any

import pytest

from rrdispatch import _core
from rrdispatch._core.layout import AppTag, ControlKind
from rrdispatch.cluster import link as links
from rrdispatch.cluster.link import Link, Request
from tests.harness import processes
from tests.harness.servers import wait_until


@pytest.mark.parametrize("number", [errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM])
def test_a_request_for_whose_fds_there_is_no_room_is_sent_later(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, refused, kinds = _core.control_send, [1, 1, 1], []

    def short(fd: int, message: bytes, fds: Any = ()) -> None:
        if fds and refused:
            refused.pop()
            raise OSError(number, os.strerror(number))
        send(fd, message, fds)

    async def main() -> None:
        monkeypatch.setattr("rrdispatch.cluster.link.SILENT", 1 << 20)  # it may start slowly
        link = Link("python", lambda _: None, pytest.fail)
        monkeypatch.setattr(_core, "control_send", short)
        answered = asyncio.Event()

        def answer(message: Any) -> None:
            kinds.append(message.kind)
            answered.set()

        values = (int(AppTag.STATE),)
        link.ask(Request(ControlKind.KEEP, values=values, fds=[0]), lambda m: kinds.append(m.kind))
        link.ask(Request(ControlKind.PING), answer)
        assert link.behind
        await asyncio.wait_for(answered.wait(), 30.0)
        assert not link.behind
        await link.stop()

    asyncio.run(main())
    assert kinds == [ControlKind.KEEP, ControlKind.PING]
    assert not refused


def test_who_has_answered_just_now_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop had no core between its look at the socket and the look at the process."""

    async def main() -> None:
        with monkeypatch.context() as patience:
            patience.setattr(links, "SILENT", 1 << 20)  # it may start slowly
            link = Link("python", lambda _: None, pytest.fail)
            while not await link.ping():
                pass
        processes.kill(link.pid, signal.SIGSTOP)
        for _ in range(links.SILENT):
            link._tick()
            link._timer.cancel()  # only these
        processes.kill(link.pid, signal.SIGCONT)
        assert select.select([link._handle.fileno()], [], [], 30.0)[0]
        wait_until(lambda: processes.state(link.pid) == "S", 30.0, "it sleeps again")
        link._tick()
        assert link._unanswered < links.SILENT
        await link.stop()

    asyncio.run(main())
