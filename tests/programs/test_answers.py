"""What is answered at the door, with a dispatcher that a test makes slow."""

from __future__ import annotations

import asyncio
import os
import socket
from types import SimpleNamespace
from typing import Any

from rrdispatch import _core
from rrdispatch.cluster import door
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.programs import AskedBy, Opened, Programs
from rrdispatch.net.channels import Channel
from rrdispatch.net.listeners import ListeningSocket, describe, sockaddr

WORKER = 1


def ask_to_listen(shim: dict[str, str], address: bytes) -> tuple[bytes, int]:
    """The answer's bytes, and how many fds came with it."""
    key = bytes.fromhex(shim["RRDISPATCH_KEY"].partition(":")[2])
    head = (door.MAGIC, door.VERSION, door.LISTEN, WORKER, key, os.getpid(), 8, 0, 0, 0)
    data = door.REQUEST.pack(*head, len(address), 0, address, b"")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(20)
        client.connect(shim["RRDISPATCH_SOCKET"].replace("@", "\0"))
        client.send(data)
        answer, fds, _, _ = socket.recv_fds(client, 1024, 4)
    for fd in fds:
        os.close(fd)
    return answer, len(fds)


def test_a_channel_is_given_when_the_dispatcher_has_it() -> None:
    """Until it was sent there it would end with the primary, and the program with it."""
    done: list[Any] = []

    async def main(bound: socket.socket) -> None:
        handle = WorkerHandle(WORKER, 0, 1)
        handle.open_scoreboard(_core.scoreboard_create(0, 1))
        link = SimpleNamespace(behind=True)
        roster = SimpleNamespace(add_channel=lambda _, index: done.append(("channel", index)))
        dispatching: Any = SimpleNamespace(
            link=link, roster=roster, add_listener=lambda index: done.append(("listener", index))
        )
        asked_by = AskedBy(
            {WORKER: handle}, done.append, Events(None), lambda: dispatching,
            lambda: done.append("written down"),
        )  # fmt: skip
        opened = Opened([], [])
        programs = Programs((), opened, asked_by)
        try:
            shim = dict(programs.shim(WORKER).told)
            asked = (ask_to_listen, shim, sockaddr(bound))
            assert await asyncio.to_thread(*asked) == (b"", 0)
            link.behind = False
            answer, fds = await asyncio.to_thread(*asked)
            assert door.ANSWER.unpack(answer)[2:] == (0, 0)
            assert fds == 2
        finally:
            programs.close()
            handle.close()
            for sock in opened.listeners:
                sock.close()

    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", 0))
        asyncio.run(main(bound))
    assert done == ["written down", ("listener", 0), ("channel", 0)]


def test_an_heir_closes_what_only_adopted_workers_listened_on() -> None:
    closed: list[int] = []

    async def main() -> None:
        dispatching: Any = SimpleNamespace(close_listener=lambda index, _: closed.append(index))
        dropped, kept = Channel.create(), Channel.create()
        handles = {
            1: WorkerHandle(1, 0, 1, channels={0: dropped, 1: kept}, adopted=True),
            2: WorkerHandle(2, 0, 2, channels={1: kept}, adopted=True),
        }
        nothing: Any = lambda *_: None  # noqa: E731
        asked_by = AskedBy(handles, nothing, Events(), lambda: dispatching, nothing)
        with ListeningSocket() as one, ListeningSocket() as two:
            programs = Programs((), Opened([one, two], [describe(one), describe(two)]), asked_by)
            for handle in handles.values():
                programs.adopt(handle)
            programs.close_unused(2)
            assert closed == [], "somebody holds both"
            handles[1].reaped = handles[2].reaped = True
            programs.close_unused(2)
            programs.close()
        dropped.close()
        kept.close()

    asyncio.run(main())
    assert closed == [0]
