"""The primary's side of the logger process: gives it pipes, asks for last lines, replaces it.

The primary keeps a duplicate of every read end (in the WorkerHandle), so that a dead logger loses
no more than it had read.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rrdispatch import _core
from rrdispatch._core.layout import SpawnRequest
from rrdispatch.cluster.handle import WorkerHandle, pid_of, wait_exit
from rrdispatch.errors import StartError

PROGRAM = str(Path(__file__).with_name("logger.py"))
FIRST_PAUSE, MOST_PAUSE = 0.1, 2.0  # before a logger that could not be started is tried again
LAST_WAIT = 2.0  # for the logger to write what it has, at the very end


@dataclass(slots=True)
class LoggerFds:
    """A logger that runs already, as an heir finds it."""

    control: socket.socket
    pidfd: int


class Logs:
    """One logger at a time, as long as the service runs."""

    def __init__(
        self, name: str, on_replaced: Callable[[], None], inherited: LoggerFds | None = None
    ) -> None:
        self._name = name
        self._on_replaced = on_replaced
        self._loop = asyncio.get_running_loop()
        self._handles: dict[int, WorkerHandle] = {}
        self._tails: dict[int, asyncio.Future[str]] = {}
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        self.on_output: Callable[[str, str, int], None] = lambda *_: None
        self.on_trouble: Callable[[str], None] = lambda _: None
        self._pause = FIRST_PAUSE
        self.pid = 0
        if inherited is None:
            self._start()
        else:
            self._control, self._pidfd = inherited.control, inherited.pidfd
            self._control.setblocking(False)
            self.pid = pid_of(self._pidfd)
            self._listen()

    def fds(self) -> list[int]:
        """What an heir needs of it: control and pidfd."""
        return [self._control.fileno(), self._pidfd]

    def _start(self) -> None:
        try:
            self._control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise StartError(f"the logger could not be started: {error.strerror}") from error
        self._control.setblocking(False)
        arguments = [sys.executable, "-I", "-S", PROGRAM]
        request = SpawnRequest(
            program=sys.executable,
            arguments=arguments,
            environment=_own_environment(),
            cwd="/",
            fds=[(1, 1), (2, 2), (far.fileno(), 3)],
        )
        with far:
            try:
                self.pid, self._pidfd = _core.spawn(request)
            except OSError as error:
                self._control.close()
                text = f"the logger could not be started: {error.strerror} ({error.filename})"
                raise StartError(text) from error
        self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._control, self._readable)
        self._loop.add_reader(self._pidfd, self._exited)

    def add(self, handle: WorkerHandle) -> None:
        """From now on its output is written."""
        self._handles[handle.id] = handle
        self._give(handle)

    def adopt(self, handle: WorkerHandle) -> None:
        """Its output is written already, by the logger that we inherited."""
        self._handles[handle.id] = handle

    def _give(self, handle: WorkerHandle) -> None:
        if handle.stdout >= 0:
            told = {"add": handle.id, "prefix": f"{self._name}.{handle.slot}"}
            self._tell(told, [handle.stdout, handle.stderr])

    def tail(self, worker: int, wait: float = 1.0) -> asyncio.Future[str]:
        """Its last lines, after its end if that comes within ``wait``; never later than that."""
        future: asyncio.Future[str] = self._loop.create_future()
        self._tails[worker] = future
        self._tell({"tail": worker, "wait": wait})
        limit = self._loop.call_later(wait + 1.0, self._tailed, worker, "")
        future.add_done_callback(lambda _: limit.cancel())
        return future

    def _tailed(self, worker: int, text: str) -> None:
        future = self._tails.pop(worker, None)
        if future is not None and not future.done():
            future.set_result(text)

    def forget(self, handle: WorkerHandle) -> None:
        """Nobody will ask for its lines. Its pipes are read to their end all the same."""
        self._handles.pop(handle.id, None)
        self._tell({"forget": handle.id})

    def _tell(self, told: Mapping[str, object], fds: list[int] | None = None) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(told).encode()], fds or [])
        except BlockingIOError:
            self._kill()  # it reads nothing any more: its end is seen, and another one is started
        except OSError:
            return  # it is gone: its pidfd tells

    def _readable(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._let_go()  # its pidfd tells
            return
        told = json.loads(data)
        if "tail" in told:
            self._tailed(int(told["tail"]), "\n".join(told["lines"]))
        elif "ended" in told:
            handle = self._handles.get(int(told["ended"]))
            if handle is not None:
                handle.close_pipes()
        elif "output" in told:
            self.on_output(str(told["output"]), str(told["error"]), int(told["dropped"]))

    def _kill(self) -> None:
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _exited(self) -> None:
        if wait_exit(self._pidfd) is None:
            return
        self._release()
        if self._closing:
            self._ended.set_result(None)
            return
        self._follow()

    def _follow(self) -> None:
        """Another one; later, if it cannot be had now. The pipes hold what they can meanwhile."""
        if self._closing:
            self._ended.set_result(None)
            return
        tails = list(self._tails)
        try:
            self._start()
        except StartError as error:
            self.on_trouble(error.message)
            self._loop.call_later(self._pause, self._follow)
            self._pause = min(2 * self._pause, MOST_PAUSE)
            return
        self._pause = FIRST_PAUSE
        for handle in self._handles.values():
            self._give(handle)
        for worker in tails:
            self._tell({"tail": worker, "wait": 0.2})
        self._on_replaced()

    def _release(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._let_go()

    def _let_go(self) -> None:
        """It sees the end, and goes when the workers' pipes have ended too."""
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
            self._control.close()

    def reap_if_ours(self, pid: int) -> bool:
        """For a PID 1 that peeks at every child."""
        if pid == self.pid and self._pidfd >= 0 and not self._ended.done():
            self._exited()
            return True
        return False

    async def close(self) -> None:
        """Lets it write what is left. A process that left its worker's group may keep it alive."""
        self._closing = True
        self._let_go()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._ended), LAST_WAIT)
        if not self._ended.done() and self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)


def _own_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key in ("LANG", "LC_ALL", "PATH")}
