"""The primary's side of a control connection: reads requests, calls the Supervisor, writes answers.

A literal table of methods; nothing is looked up by a name from outside. Must not know who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rrdispatch import __version__, cpus
from rrdispatch.cluster import report
from rrdispatch.cluster.supervisor import Supervisor
from rrdispatch.control import protocol, status
from rrdispatch.control.app import App
from rrdispatch.control.definitions import RUN, STOP
from rrdispatch.control.protocol import BadRequestError, Request
from rrdispatch.errors import ConfigError, ControlError

RECEIVED_WITHIN = 5.0  # seconds from a request's first byte to its last
FIRST_WITHIN = 10.0  # from the connection to that first byte
MOST_TASKS = 64  # requests of one client under way
MOST_UNREAD = 1 << 20  # bytes that a client left unread before it misses events

Begin = Callable[[Mapping[str, Any]], Awaitable[Supervisor]]
Method = Callable[["Connection", dict[str, Any]], Awaitable[Any]]


class Connection:
    """One client, from its first line to its last."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        supervisor: Supervisor | None = None,
        begin: Begin | None = None,
        app: App | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._begin = begin
        self._supervisor = supervisor
        self._app = app
        self._spoke = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def supervisor(self) -> Supervisor:
        if self._supervisor is None:
            raise ControlError("nothing was started", hint="the first request is start")
        return self._supervisor

    async def serve(self) -> None:
        """Until the client is gone. Requests are answered as they are done, not in order."""
        try:
            while data := await self._line():
                self._take(data)
                await self._catch_up()
        except ValueError:  # a line longer than the reader's limit
            error = BadRequestError(protocol.INVALID_REQUEST, "the request is longer than 64 KiB")
            self.write(protocol.failure(None, error))
        except ConnectionError:
            # Gone without a goodbye: the same as its end.
            pass
        finally:
            if self._unsubscribe is not None:
                self._unsubscribe()

    async def _catch_up(self) -> None:
        """Who asks without reading, or more than can be answered, is not listened to meanwhile."""
        while len(self._tasks) >= MOST_TASKS:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        if self._writer.transport.get_write_buffer_size() >= MOST_UNREAD:
            await self._writer.drain()

    async def _line(self) -> bytes:
        """A request. On a control socket, where places are few, who stops in its midst is shut out,
        and who never begins; the service that embeds us may take all the time it likes.
        """
        if self._app is None:
            return await self._reader.readline()
        try:
            begins = None if self._spoke else FIRST_WITHIN
            first = await asyncio.wait_for(self._reader.read(1), begins)
            self._spoke = True
            if first in (b"", b"\n"):
                return first
            return first + await asyncio.wait_for(self._reader.readline(), RECEIVED_WITHIN)
        except asyncio.TimeoutError:
            error = BadRequestError(protocol.INVALID_REQUEST, "the request did not come in time")
            self.write(protocol.failure(None, error))
            return b""

    async def finish(self) -> None:
        """Waits for the answers under way and writes them."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._writer.close()
        try:
            await asyncio.wait_for(self._writer.wait_closed(), 1.0)
        except (OSError, asyncio.TimeoutError):
            return  # the client is gone, or does not read

    def write(self, data: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(data)

    def _take(self, data: bytes) -> None:
        try:
            request = protocol.parse_request(data)
        except BadRequestError as error:
            self.write(protocol.failure(None, error))
            return
        task = asyncio.get_running_loop().create_task(self._answer(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request) -> None:
        try:
            method = METHODS.get(request.method)
            if method is None:
                text = f"there is no method {request.method[:64]!r}"
                raise BadRequestError(protocol.NO_METHOD, text)
            value = await method(self, request.params)
        except Exception as error:
            if request.id is not None:
                self.write(protocol.failure(request.id, error))
            return
        if request.id is not None:
            self.write(protocol.result(request.id, value))

    # ---- methods -------------------------------------------------------------------------------

    async def start(self, params: dict[str, Any]) -> dict[str, Any]:
        """``settings``: starts the service; answered when it serves."""
        if self._begin is None or self._supervisor is not None:
            raise ControlError("it is started already")
        settings = params.get("settings")
        if not isinstance(settings, dict):
            raise ConfigError("start needs settings")
        self._unsubscribe = lambda: None  # whoever starts a service hears its events
        self._supervisor = await self._begin(settings)
        await self._supervisor.started()
        return await self._supervisor.fresh_stats()

    async def reload(self, params: dict[str, Any]) -> dict[str, Any] | None:
        """Answered when it has succeeded or was rolled back; ``wait`` false: at once."""
        waits = params.pop("wait", True)
        result = self.supervisor.reload(**params)
        if not waits:
            return None
        done = await result
        return {"generation": done.generation, "seconds": done.seconds, "notes": list(done.notes)}

    async def scale(self, params: dict[str, Any]) -> None:
        supervisor, workers = self.supervisor, params.get("workers")
        if isinstance(workers, bool) or not isinstance(workers, int):
            raise ConfigError(f"scale: {workers!r} is not a number of workers")
        supervisor.scale(workers)
        if self._app is not None:
            self._app.scaled(workers)

    async def reopen_logs(self, _params: dict[str, Any]) -> None:
        """Answered when the files are open under their names."""
        await self.supervisor.reopen_logs()

    async def stats(self, _params: dict[str, Any]) -> dict[str, Any]:
        """And the version, since it may be an older one that answers than the one that asks."""
        listener = self._app.place.status if self._app is not None else None
        where = None if listener is None else status.address(listener)
        found = await self.supervisor.fresh_stats()
        more = {"version": __version__, "status_address": where}
        return {**found, **more, "service_manager": "NOTIFY_SOCKET" in os.environ}

    async def stop(self, params: dict[str, Any]) -> None:
        """Answered at once; the end of the connection is the end of the service.

        ``once``: it is no second stop, which would end at once, however the first one came about.
        ``wanted``: what it is then, "stop" or "run": `resurrect` starts it again.
        """
        self._wants_end(params)
        if not (params.get("once") and self.supervisor.stopping):
            self.supervisor.stop()

    async def kill(self, params: dict[str, Any]) -> None:
        self._wants_end(params)
        self.supervisor.kill()

    def _wants_end(self, params: Mapping[str, Any]) -> None:
        """Before it is asked: the service may be over before we are back here."""
        if self._app is not None:
            self._app.wants_end(RUN if params.get("wanted") == RUN else STOP)

    async def reset(self, _params: dict[str, Any]) -> None:
        """The counts of restarts begin anew."""
        for slot in self.supervisor.view.slots.values():
            slot.restarts = 0

    async def recycle(self, params: dict[str, Any]) -> None:
        """The worker of ``slot`` is replaced; its successor serves before it goes."""
        slot = params.get("slot")
        if isinstance(slot, bool) or not isinstance(slot, int):
            raise ConfigError(f"recycle: {slot!r} is not a slot")
        self.supervisor.recycle(slot)

    async def launch(self, _params: dict[str, Any]) -> dict[str, Any]:
        """What the workers run with: interpreter, folder, command, environment."""
        found = self.supervisor.launch
        return {
            "python": found.python,
            "cwd": found.cwd,
            "argv": list(found.argv),
            "environment": dict(found.environment),
            "cores": self._cores(),
        }

    def _cores(self) -> dict[str, Any]:
        facts, wanted = cpus.detect(), self.supervisor.settings.instances
        return {**facts.as_dict(), "why": str(cpus.count(wanted, facts))}

    async def ends(self, _params: dict[str, Any]) -> list[dict[str, Any]]:
        """When and why workers ended that nobody had asked to."""
        return report.ends(self.supervisor.view, self.supervisor.world.now())

    async def signal(self, params: dict[str, Any]) -> list[int]:
        """``signal`` (a name without SIG) to the workers, or to that of ``slot``; their pids."""
        number = signal_number(params.get("signal"))
        slot, handles = params.get("slot"), self.supervisor.world.workers.handles
        alive = [
            handles[worker.id]
            for worker in self.supervisor.view.alive
            if worker.id in handles and slot in (None, worker.slot)
        ]
        sent = []
        for handle in alive:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle.pidfd, number)
                sent.append(handle.pid)
        if not sent:
            raise ControlError("there is no worker to send a signal to")
        return sent

    async def subscribe(self, _params: dict[str, Any]) -> None:
        """From now on every event comes as a notification."""
        if self._unsubscribe is None:
            self._unsubscribe = self.supervisor.events.subscribe(self.tell)

    def tell(self, event: dict[str, Any]) -> None:
        """A client that does not read misses events; it holds nobody up."""
        if self._writer.transport.get_write_buffer_size() < MOST_UNREAD:
            self.write(protocol.event(event))


METHODS: dict[str, Method] = {
    "start": Connection.start,
    "reload": Connection.reload,
    "scale": Connection.scale,
    "reopen_logs": Connection.reopen_logs,
    "stats": Connection.stats,
    "stop": Connection.stop,
    "kill": Connection.kill,
    "subscribe": Connection.subscribe,
    "reset": Connection.reset,
    "signal": Connection.signal,
    "recycle": Connection.recycle,
    "launch": Connection.launch,
    "ends": Connection.ends,
}


def signal_number(name: object) -> signal.Signals:
    """ConfigError for what is none."""
    known = signal.Signals.__members__
    found = known.get("SIG" + name.upper().removeprefix("SIG")) if isinstance(name, str) else None
    if found is None:
        raise ConfigError(f"{name!r} is not a signal", hint="for example USR1 or HUP")
    return found
