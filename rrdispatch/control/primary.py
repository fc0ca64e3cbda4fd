"""The primary of an embedded Cluster: a process of its own that serves one control socket.

The first request is ``start``. When the other end closes (the service is gone), it drains and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rrdispatch.cluster import output, report
from rrdispatch.cluster.supervisor import Supervisor
from rrdispatch.control import status
from rrdispatch.control.protocol import MOST_REQUEST
from rrdispatch.control.server import Connection
from rrdispatch.errors import Error
from rrdispatch.settings import from_values


class Primary:
    """Joins the control connection and the Supervisor it starts."""

    def __init__(self) -> None:
        self._run: asyncio.Task[int] | None = None
        self._connection: Connection | None = None
        self._supervisor: Supervisor | None = None
        self._beside = contextlib.AsyncExitStack()

    async def serve(self, control: socket.socket) -> int:
        """Until the service ended and the control connection is over."""
        reader, writer = await asyncio.open_unix_connection(sock=control, limit=MOST_REQUEST)
        self._connection = Connection(reader, writer, begin=self._begin)
        await asyncio.wait(self._ends(), return_when=asyncio.FIRST_COMPLETED)
        if self._run is not None and not self._run.done():
            assert self._supervisor is not None
            self._supervisor.stop()
            await asyncio.wait([self._run])
        await self._beside.aclose()
        await self._connection.finish()
        error = self._run.exception() if self._run is not None else None
        if error is not None and not isinstance(error, Error):
            raise error
        return error.exit_code if isinstance(error, Error) else 0

    def _ends(self) -> list[asyncio.Task[Any]]:
        assert self._connection is not None
        loop = asyncio.get_running_loop()
        self._begun = loop.create_future()
        return [loop.create_task(self._connection.serve()), loop.create_task(self._service())]

    async def _service(self) -> None:
        await self._begun
        if self._run is not None:
            await asyncio.wait([self._run])

    async def _begin(self, values: Mapping[str, Any]) -> Supervisor:
        """Errors of settings and binding are the start's; later ones its ``started``'s."""
        assert self._connection is not None
        try:
            settings = from_values(values)
            listener = status.listen(settings)
            if listener is not None:
                self._beside.callback(listener.close)
            supervisor = Supervisor(settings, on_event=self._connection.tell)
            if told := report.fallback(settings):
                supervisor.events.tell("warning", told[0], hint=told[1])
            self._run = asyncio.get_running_loop().create_task(supervisor.run())
            self._supervisor = supervisor
        finally:
            self._begun.set_result(None)  # one start is all there is
        await asyncio.sleep(0)  # the loop's turn: run() binds and makes everything in one go
        if self._run.done():
            self._run.result()
        await self._beside.enter_async_context(status.served(listener, supervisor))
        return supervisor


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rrdispatch.control.primary", description=__doc__)
    parser.add_argument("--control-fd", type=int, required=True)
    number = parser.parse_args(arguments).control_fd
    control = socket.socket(fileno=number)
    control.set_inheritable(False)
    control.setblocking(False)
    output.unblock()
    return asyncio.run(Primary().serve(control))


if __name__ == "__main__":
    sys.exit(main())
