"""Runs ``serve(listener)``: an app that accepts by itself.

Owns the signals and the drain. With several bound addresses it is called once per listener, in
threads or tasks side by side. In a drain ``accept()`` gives what waits and then raises
``ListenerClosed``, as a closed listening socket would; the app returns when it has finished, and
one that does not return is left when its last connection has been closed.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from rrdispatch._core.layout import QUEUE_LIMIT_MAX
from rrdispatch.worker.listener import Listener, ListenerClosed
from rrdispatch.worker.runtime import Runtime
from rrdispatch.worker.streams import drain_servers

from .detect import is_async
from .loops import loop_factory, run
from .options import Options
from .stopping import Stops, exit_now, handled_signals

# How long an app may go on after its last connection. One that waits in a poll of its own, as
# socketserver does, never returns by itself.
LAST_WORD = 0.5


def serve(app: Callable[[Listener], Any], options: Options, runtime: Runtime) -> int:
    """Until the app has returned; the exit code."""
    if is_async(app):
        work = _Async(app, options, runtime)
        stops = Stops(options.stop_signal, work.asked.set)
        return run(work.work(), loop_factory(options.loop), stops)
    runtime.capacity = runtime.capacity or 1  # it works on what it took before it takes again
    return _Sync(app, options, runtime).work()


class _Sync:
    """``def serve(listener)``: in the main thread, further listeners in threads of their own."""

    def __init__(self, app: Callable[[Listener], Any], options: Options, runtime: Runtime) -> None:
        self._app = app
        self._options = options
        self._runtime = runtime
        self._failure: BaseException | None = None
        self._draining = False
        self._returned = threading.Event()

    def work(self) -> int:
        for number in handled_signals(self._options.stop_signal):
            signal.signal(number, self._asked)
        first, *others = self._runtime.listeners
        threads = [threading.Thread(target=self._serve, args=(one,), daemon=True) for one in others]
        for thread in threads:
            thread.start()
        self._serve(first)
        for thread in threads:
            thread.join()
        self._returned.set()
        if self._failure is not None:
            raise self._failure
        return 0

    def _serve(self, listener: Listener) -> None:
        try:
            self._app(listener)
        except ListenerClosed:
            return
        except BaseException as error:
            # One that failed ends the worker: a half that serves on would hide it.
            if threading.current_thread() is threading.main_thread():
                raise
            self._failure = error
            # To the main thread: only there it interrupts the poll of accept().
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGTERM)

    def _asked(self, *_: object) -> None:
        if not self._draining:
            self._draining = True
            self._runtime.drain()
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Leave when the last connection has ended, or at the deadline, if the app does not."""
        ended = threading.Event()
        self._runtime.counts.on_closed = ended.set
        deadline = time.monotonic() + self._options.drain_deadline
        while time.monotonic() < deadline:
            if self._quiet():
                if self._returned.wait(LAST_WORD):
                    return
                if self._quiet():
                    break
            ended.wait(min(0.1, max(0.0, deadline - time.monotonic())))
            ended.clear()
        exit_now(0 if self._failure is None else 1)

    def _quiet(self) -> bool:
        """Nothing is open, and nothing waits that may still be taken."""
        if self._runtime.counts.open > 0:
            return False
        return all(one.drained or not one.waiting for one in self._runtime.listeners)


class _Async:
    """``async def serve(listener)``: a task per listener."""

    def __init__(self, app: Callable[[Listener], Any], options: Options, runtime: Runtime) -> None:
        self._app = app
        self._options = options
        self._runtime = runtime
        self.asked = asyncio.Event()  # to stop

    async def work(self) -> int:
        asked = self.asked
        tasks = {asyncio.ensure_future(self._app(listener)) for listener in self._runtime.listeners}
        waiting = asyncio.ensure_future(asked.wait())
        while tasks and not asked.is_set():
            done, _ = await asyncio.wait({*tasks, waiting}, return_when=asyncio.FIRST_COMPLETED)
            tasks -= done
            _raise_first(done - {waiting})
        waiting.cancel()
        if asked.is_set():
            await self._drain(tasks)
        return 0

    async def _drain(self, tasks: set[asyncio.Future[Any]]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.drain_deadline
        self._runtime.drain()
        drain_servers()
        await self._sweep()
        await self._empty(deadline)
        if not tasks:
            return
        _, left = await asyncio.wait(tasks, timeout=LAST_WORD)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=max(LAST_WORD, deadline - loop.time()))
        _raise_first(task for task in tasks if task.done())

    async def _sweep(self) -> None:
        """Let a server that is not ours take what waits, one per turn of the loop; then no more."""
        loop = asyncio.get_running_loop()
        for listener in self._runtime.listeners:
            for _ in range(QUEUE_LIMIT_MAX):
                if listener.drained:
                    break
                await asyncio.sleep(0)
            loop.remove_reader(listener.channel)

    async def _empty(self, deadline: float) -> None:
        """Until the last connection has ended."""
        loop = asyncio.get_running_loop()
        counts = self._runtime.counts
        event = asyncio.Event()

        def closed() -> None:
            loop.call_soon_threadsafe(event.set)

        counts.on_closed = closed
        while counts.open > 0 and loop.time() < deadline:
            one = asyncio.ensure_future(event.wait())
            await asyncio.wait({one}, timeout=deadline - loop.time())
            one.cancel()
            event.clear()
        counts.on_closed = None


def _raise_first(done: Iterable[asyncio.Future[Any]]) -> None:
    for task in done:
        if not task.cancelled() and not isinstance(task.exception(), ListenerClosed):
            task.result()
