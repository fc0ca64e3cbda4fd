"""Requests to the dispatcher, when the kernel has no room for them."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any

import pytest

from rrdispatch import _core
from rrdispatch._core.layout import AppTag, ControlKind
from rrdispatch.cluster.link import Link, Request


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
