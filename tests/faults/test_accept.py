"""No descriptor left for whoever comes: they wait, and so does the loop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path
from typing import Any, cast

import pytest

from rrdispatch.cluster import door
from rrdispatch.cluster.supervisor import Supervisor
from rrdispatch.control import clients
from rrdispatch.net import entrance

TIMES = 3


class Short:
    """A listening socket that has no descriptor for a client, for a while."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self._sock, self._number = sock, number
        self.refused = 0

    def accept(self) -> Any:
        if self.refused < TIMES:
            self.refused += 1
            raise OSError(self._number, os.strerror(self._number))
        return self._sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


async def comes_in(path: str, kind: int, inside: Any) -> None:
    """After as many pauses as there were refusals, and no exception."""
    loop, troubles = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: troubles.append(context))
    with socket.socket(socket.AF_UNIX, kind) as client:
        before = loop.time()
        client.connect(path)
        while not inside():  # noqa: ASYNC110 (who comes in tells nobody)
            await asyncio.sleep(0.01)
        assert loop.time() - before >= TIMES * entrance.AGAIN_AFTER
    assert troubles == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_the_door(number: int) -> None:
    async def main() -> None:
        opened = door.Door(lambda _: None, lambda _: True)
        cast("Any", opened)._entrance._listener = Short(opened._listener, number)
        path = opened.path.replace("@", "\0")
        await comes_in(path, socket.SOCK_SEQPACKET, lambda: opened._clients)
        opened.close()

    asyncio.run(main())


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_the_control_socket(number: int, tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "control"))
            listener.listen()
            listener.setblocking(False)
            short = cast("Any", Short(listener, number))
            everybody = clients.Clients(short, cast("Supervisor", None))
            await comes_in(str(tmp_path / "control"), socket.SOCK_STREAM, lambda: everybody._tasks)
            await everybody.close()

    asyncio.run(main())
