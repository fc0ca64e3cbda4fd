"""The Cluster with ``await``: ``rrdispatch.aio.Cluster``. No thread; any asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any

from rrdispatch.cluster.operations import ReloadResult
from rrdispatch.control.aclient import AsyncClient, Event
from rrdispatch.control.process import PrimaryProcess, settings_of
from rrdispatch.control.protocol import end_error
from rrdispatch.errors import ControlError, Error

ANSWER_WITHIN = 10.0
END_WITHIN = 10.0


class Cluster:
    """``async with Cluster("app:app", bind=":8000", workers=4) as cluster: ...``"""

    def __init__(
        self,
        target: str,
        *,
        bind: str | Sequence[str] | None = None,
        workers: int | str = "max",
        on_event: Callable[[Event], object] | None = None,
        **settings: Any,
    ) -> None:
        self.settings = settings_of(target, bind, workers, settings)
        self._on_event = on_event
        self._process: PrimaryProcess | None = None
        self._client: AsyncClient | None = None
        self._readers: list[asyncio.Queue[Event | None]] = []
        self._over: asyncio.Event | None = None
        self._finishing = asyncio.Lock()  # 3.10 on: bound to the loop that uses it first
        self.exit_code: int | None = None
        self.error: Error | None = None  # what ended it, if nobody asked for its end

    async def start(self) -> Cluster:
        """Returns when it serves; raises what a foreground start would raise."""
        if self._process is not None:
            raise ControlError("the cluster is started already")
        self._over, self._finishing = asyncio.Event(), asyncio.Lock()
        self.exit_code = self.error = None
        self._process = PrimaryProcess.start()
        self._client = AsyncClient(self._event, self._ended)
        try:
            await self._client.open(self._process.control)
            await self._client.call("start", settings=self.settings.values())
        except BaseException:
            await self._finish(kill=False)
            raise
        return self

    async def __aenter__(self) -> Cluster:
        return await self.start() if self._process is None else self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def reload(self, **options: Any) -> ReloadResult:
        """New code in every worker; ReloadError, with the old code serving, if it fails."""
        done = await self._call("reload", None, **options)
        return ReloadResult(done["generation"], done["seconds"], tuple(done["notes"]))

    async def scale(self, workers: int) -> None:
        """So many workers from now on."""
        await self._call("scale", workers=workers)

    async def stats(self) -> dict[str, Any]:
        """What it is and does at this moment."""
        found: dict[str, Any] = await self._call("stats")
        return found

    async def addresses(self) -> list[str]:
        """Where it listens, with the real port where 0 was asked for."""
        return [listener["address"] for listener in (await self.stats())["listeners"]]

    async def events(self) -> AsyncIterator[Event]:
        """Every event from now on, until the cluster has ended."""
        if self._over is None or self._over.is_set():
            return
        reader: asyncio.Queue[Event | None] = asyncio.Queue()
        self._readers.append(reader)
        while (event := await reader.get()) is not None:
            yield event

    async def stop(self) -> int:
        """Drains, waits for the end, and returns the exit code."""
        return await self._finish(kill=False)

    async def kill(self) -> int:
        """Ends it now."""
        return await self._finish(kill=True)

    async def run(self) -> int:
        """Starts it if need be and waits until it ends. Signals are the service's own."""
        if self._process is None:
            await self.start()
        assert self._over is not None
        await self._over.wait()
        code = await self.stop()
        if self.error is not None:
            raise self.error
        return code

    async def _call(self, method: str, timeout: float | None = ANSWER_WITHIN, **params: Any) -> Any:
        if self._client is None:
            raise ControlError("the cluster is not started", hint="use it in async with")
        try:
            return await asyncio.wait_for(self._client.call(method, **params), timeout)
        except asyncio.TimeoutError:
            raise ControlError(f"the primary did not answer {method}") from None

    async def _finish(self, *, kill: bool) -> int:
        """Asks at once; the first one who asks waits for the end, the others for that one."""
        with contextlib.suppress(ControlError):  # gone, or not started: nothing to ask
            await self._call("kill" if kill else "stop")
        async with self._finishing:
            if self._process is not None and self._client is not None:
                await self._end(self._process, self._client)
        return self.exit_code or 0

    async def _end(self, process: PrimaryProcess, client: AsyncClient) -> None:
        settings = self.settings
        limit = settings.shutdown_delay + settings.drain_timeout + END_WITHIN
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_readable(process.pidfd), limit)
        if not process.wait(0):
            process.kill()  # it does not keep its promise; its workers' lifelines do
        await client.close()
        self._ended()
        self._process = self._client = None
        self.exit_code = process.reap()

    def _event(self, event: Event) -> None:
        self.error = end_error(event) or self.error
        for reader in self._readers:
            reader.put_nowait(event)
        if self._on_event is not None:
            self._on_event(event)

    def _ended(self) -> None:
        if self._over is not None:
            self._over.set()
        readers, self._readers = self._readers, []
        for reader in readers:
            reader.put_nowait(None)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def once() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, once)
    try:
        await ready
    finally:
        loop.remove_reader(fd)
