"""The hub in a thread of its own: the script may block, wait or compute meanwhile.

Owns the thread and its loop. What is asked comes in the order of asking, from any thread.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rrdispatch.node.hub import Hub
from rrdispatch.settings import Settings

END_WITHIN = 10.0


class Engine:
    """Started at the first fork(). What is called or posted are names of Hub's methods."""

    def __init__(self, tell: Callable[..., None], settings: Settings, shared: bool) -> None:
        """Raises what the hub raises."""
        self._loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._tell = tell
        self._hub: Hub
        begun: Future[None] = Future()
        work = (lambda: Hub(tell, settings, shared), begun)
        self._thread = threading.Thread(
            target=self._work, args=work, name="rrdispatch-cluster", daemon=True
        )
        self._thread.start()
        begun.result()
        os.register_at_fork(after_in_child=self._abandon)

    def call(self, method: str, *args: Any) -> Any:
        """Its result."""
        answer: Future[Any] = Future()

        def work() -> None:
            try:
                answer.set_result(getattr(self._hub, method)(*args))
            except BaseException as error:
                answer.set_exception(error)

        self._loop.call_soon_threadsafe(work)
        return answer.result()

    def post(self, method: str, *args: Any) -> None:
        """Without waiting; nothing after the end."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(getattr(self._hub, method), *args)

    def send(self, worker: int, data: bytes) -> int:
        """Bytes that wait; added at once, so that nobody adds without end and does not see it."""
        pipe = self._hub.pipe(worker)
        if pipe is None or self._loop.is_closed():
            return 0
        if pipe.add(data):
            self._loop.call_soon_threadsafe(pipe.flush)
        return pipe.waiting

    def close(self) -> None:
        """Dispatcher and door go; no worker lives any more."""
        if self._pid != os.getpid() or self._loop.is_closed():
            return
        done = asyncio.run_coroutine_threadsafe(self._hub.close(), self._loop)
        done.result(END_WITHIN)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_WITHIN)

    def _work(self, make: Callable[[], Hub], begun: Future[None]) -> None:
        asyncio.set_event_loop(self._loop)

        async def begin() -> Hub:
            return make()

        self._loop.set_exception_handler(self._failed)
        try:
            self._hub = self._loop.run_until_complete(begin())
        except BaseException as error:
            self._loop.close()
            begun.set_exception(error)
            return
        begun.set_result(None)
        self._loop.run_forever()
        self._loop.close()

    def _failed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A fault of ours is not kept silent: ``run()`` raises it."""
        error = context.get("exception") or RuntimeError(context.get("message"))
        self._tell("error", error)

    def _abandon(self) -> None:
        if self._pid != os.getpid() and not self._loop.is_closed():
            self._hub.abandon()
