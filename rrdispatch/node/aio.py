"""``rrdispatch.aio.cluster``: the same cluster in an event loop.

Handlers run in that loop and may be coroutine functions; ``run`` and ``disconnect`` are awaited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from rrdispatch.node import api, child
from rrdispatch.node.emitter import Emitter
from rrdispatch.node.primary import Worker


class AsyncCluster:
    """Everything else is ``cluster``'s own."""

    def __init__(self, cluster: api.Cluster) -> None:
        object.__setattr__(self, "_cluster", cluster)
        object.__setattr__(self, "_state", _State(cluster))

    def __getattr__(self, name: str) -> Any:
        if asyncio._get_running_loop() is not None:
            self._state.bind()  # before there is a handler, which is to run in it
        return getattr(api if name in api.CONSTANTS else self._cluster, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._cluster, name, value)

    def fork(self, env: Mapping[str, object] | None = None) -> Worker:
        """As the cluster's; from now on the running loop hears of it."""
        self._state.bind()
        worker: Worker = self._cluster.fork(env)
        return worker

    async def run(self) -> None:
        """Until no worker lives; in a worker, until it is to end. Raises what a handler raised."""
        await self._state.run()

    async def disconnect(self) -> None:
        """Every worker gets nothing more and ends; returns when all have."""
        await self._state.disconnect()


class _State:
    """The loop, and who waits in it."""

    def __init__(self, cluster: api.Cluster) -> None:
        self._cluster = cluster
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Future[object]] = set()
        self._waiting: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None

    def bind(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        self._loop = loop
        Emitter.spawn = self._spawn
        facts = self._cluster.facts_here()
        facts.failed = self._failed
        facts.bind(loop)

    async def run(self) -> None:
        self.bind()
        own = child.current()
        self._waiting = asyncio.get_running_loop().create_future()
        if own is not None and not own.over:
            own.done = self._over
        elif own is not None or not self._cluster.call_when_empty(self._over):
            self._over()
        if self._failure is not None:
            self._failed(self._failure)
        try:
            await self._waiting
        finally:
            self._waiting = None
        if own is None:
            await asyncio.to_thread(self._cluster.close)

    async def disconnect(self) -> None:
        self.bind()
        gone = asyncio.get_running_loop().create_future()

        def all_gone() -> None:
            if not gone.done():
                gone.set_result(None)

        self._cluster.disconnect(all_gone)
        await gone

    def _over(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _spawn(self, result: Awaitable[object]) -> None:
        task = asyncio.ensure_future(result)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[object]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        """As an exception in a handler ends a script that is in ``run()``."""
        self._failure = error
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


cluster = AsyncCluster(api.cluster)
