"""The primary's side of the logger process: gives it pipes, asks for last lines, replaces it.

The primary keeps a duplicate of every read end until that is read to its end, and the journal of
what was read and is not yet in a file: a logger that dies is followed by one that goes on where it
was.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrdispatch import _core
from rrdispatch._core.layout import SpawnRequest
from rrdispatch.cluster import journal
from rrdispatch.cluster.handle import WorkerHandle, pid_of, wait_exit
from rrdispatch.cluster.logfiles import is_device, open_log
from rrdispatch.cluster.logformat import ERR
from rrdispatch.cluster.logplan import plan_of, worker_path
from rrdispatch.cluster.outbox import Outbox
from rrdispatch.errors import ConfigError, ControlError, StartError
from rrdispatch.settings import Settings

PROGRAM = str(Path(__file__).with_name("logger.py"))
# Behind the standard library: nothing that lies beside rrdispatch takes the place of a part of it.
_RUN = (
    "import sys; sys.path.append(sys.argv[1][:-len('/rrdispatch/cluster/logger.py')]); "
    "from rrdispatch.cluster.logger import main; main()"
)
MOST_LEAVING = 64  # workers that are gone while somebody holds their pipes open
FIRST_PAUSE, MOST_PAUSE = 0.1, 2.0  # after a logger that could not be started, or died soon
SOON = 5.0
REOPEN_WITHIN = 5.0
MOST_SAID = 8192  # characters: six bytes each, at worst, in a message that has to be taken whole
SLOW = 9.0  # seconds that a logger on a busy machine may take on top of what it was told
LAST_WAIT = 2.0  # for the logger to write what it has, at the very end


@dataclass(slots=True)
class LoggerFds:
    """A logger that runs already, as an heir finds it."""

    control: socket.socket
    pidfd: int


class Logs:
    """One logger at a time, as long as the service runs."""

    def __init__(
        self,
        settings: Settings,
        on_replaced: Callable[[], None],
        inherited: LoggerFds | None = None,
    ) -> None:
        self.plan = plan_of(settings.values())
        self._on_replaced = on_replaced
        self._loop = asyncio.get_running_loop()
        self._handles: dict[int, WorkerHandle] = {}
        self._leaving: dict[int, Leaving] = {}
        self._reopening: list[asyncio.Future[None]] = []
        self._tails: dict[int, asyncio.Future[str]] = {}
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        self._orderly = False  # the last one's end
        self.on_output: Callable[[str, str, int], None] = lambda *_: None
        self.on_gone: Callable[[], None] = lambda: None  # and no other one is there yet
        self.on_trouble: Callable[[str], None] = lambda _: None
        self._pause = FIRST_PAUSE
        self._started_at = 0.0
        self._next: asyncio.TimerHandle | None = None  # when there is none
        self._unsaid: deque[dict[str, object]] = deque(maxlen=MOST_LEAVING)  # until then
        self.pid = 0
        if inherited is None:
            check(self.plan)
            self._start()
            self._tell({"begin": 1})
        else:
            self._control, self._pidfd = inherited.control, inherited.pidfd
            self._control.setblocking(False)
            self._outbox = Outbox(self._control, self._kill)
            self.pid = pid_of(self._pidfd)
            self._listen()

    def fds(self) -> list[int]:
        """What an heir needs of it: control and pidfd; nothing while there is none."""
        return [] if self._pidfd < 0 else [self._control.fileno(), self._pidfd]

    def _start(self) -> None:
        try:
            self._control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise StartError(f"the logger could not be started: {error.strerror}") from error
        self._control.setblocking(False)
        arguments = [sys.executable, "-I", "-S", "-c", _RUN, PROGRAM]
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
        self._started_at = self._loop.time()
        self._outbox = Outbox(self._control, self._kill)
        self._tell({"setup": self.plan})
        self._listen()

    def _listen(self) -> None:
        self._loop.add_reader(self._control, self._readable)
        self._loop.add_reader(self._pidfd, self._exited)

    def add(self, handle: WorkerHandle) -> None:
        """From now on its output is written."""
        self._handles[handle.id] = handle
        if self.plan["files"] and handle.journal < 0:
            handle.journal = self._journal()
        self._give(handle)

    def _journal(self) -> int:
        """-1 if there is none to be had: then what a logger has read dies with it."""
        try:
            return journal.create()
        except OSError as error:
            self.on_trouble(f"a log has no journal: {error.strerror}")
            return -1

    def adopt(self, handle: WorkerHandle) -> None:
        """Its output is written already, by the logger that we inherited."""
        self._handles[handle.id] = handle

    def _give(self, handle: WorkerHandle) -> None:
        if handle.stdout >= 0:
            fds = [fd for fd in (handle.stdout, handle.stderr, handle.journal) if fd >= 0]
            self._tell({"add": handle.id, "slot": handle.slot}, fds)

    def say(self, slot: int, text: str) -> None:
        """Into the log, where it is a file: elsewhere people are told by events."""
        if ERR not in self.plan["files"] or not text:
            return
        told = {"say": slot, "text": text[-MOST_SAID:]}
        if self._next is None:
            self._tell(told)
        else:
            self._unsaid.append(told)

    def tail(self, worker: int, wait: float = 1.0) -> asyncio.Future[str]:
        """Its last lines, after its end if that comes within ``wait``; never later than that."""
        future: asyncio.Future[str] = self._loop.create_future()
        self._tails[worker] = future
        self._tell({"tail": worker, "wait": wait})
        limit = self._loop.call_later(wait + SLOW, self._tailed, worker, "")
        future.add_done_callback(lambda _: limit.cancel())
        return future

    def _tailed(self, worker: int, text: str) -> None:
        future = self._tails.pop(worker, None)
        if future is not None and not future.done():
            future.set_result(text)

    def forget(self, handle: WorkerHandle) -> None:
        """Nobody will ask for its lines. Its pipes are read to their end all the same: until then
        they are kept here, for another logger.
        """
        self._handles.pop(handle.id, None)
        self._tell({"forget": handle.id})
        if fds := handle.take_pipes():
            self._leaving[handle.id] = Leaving(handle.id, handle.slot, fds)
        if len(self._leaving) > MOST_LEAVING:
            self._leaving.pop(next(iter(self._leaving))).close()

    def _tell(self, told: Mapping[str, object], fds: list[int] | None = None) -> None:
        self._outbox.put(json.dumps(told).encode(), fds or ())

    def _readable(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._outbox.close()  # its pidfd tells
            return
        told = json.loads(data)
        if "tail" in told:
            self._tailed(int(told["tail"]), "\n".join(told["lines"]))
        elif "ended" in told:
            self._read_to_the_end(int(told["ended"]))
        elif "reopened" in told:
            self._reopened(str(told["error"]))
        elif "output" in told:
            self.on_output(str(told["output"]), str(told["error"]), int(told["dropped"]))

    def _read_to_the_end(self, worker: int) -> None:
        if worker in self._leaving:
            self._leaving.pop(worker).close()
        elif worker in self._handles:
            self._handles[worker].close_pipes()

    def reopen(self) -> asyncio.Future[None]:
        """The files by their names, which may be others by now; ControlError if that fails."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._reopening.append(future)
        self._tell({"reopen": 1})
        limit = self._loop.call_later(REOPEN_WITHIN, self._reopened, "the logger does not answer")
        future.add_done_callback(lambda _: limit.cancel())
        return future

    def _reopened(self, why: str) -> None:
        waiting, self._reopening = self._reopening, []
        for future in waiting:
            if not future.done() and why:
                future.set_exception(ControlError(f"the logs were not opened again: {why}"))
            elif not future.done():
                future.set_result(None)

    def _kill(self) -> None:
        """It reads nothing any more: its end is seen, and another one is started."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _exited(self) -> None:
        how = wait_exit(self._pidfd)
        if how is None:
            return
        self._orderly = how == "exit code 0"
        self._release()
        self._reopened("")  # another one opens them
        if self._closing:
            self._follow()
        elif self._loop.time() - self._started_at >= SOON:
            self._pause = FIRST_PAUSE
            self._follow()
        else:
            self._follow_later()

    def _follow_later(self) -> None:
        self.on_gone()
        self._next = self._loop.call_later(self._pause, self._follow)
        self._pause = min(2 * self._pause, MOST_PAUSE)

    def _follow(self) -> None:
        """Another one; later, if it cannot be had now. The pipes hold what they can meanwhile."""
        self._next = None
        if self._closing and (self._orderly or not self._leaving):
            self._ended.set_result(None)
            return
        tails = list(self._tails)
        try:
            self._start()
        except StartError as error:
            self.on_trouble(error.message)
            self._follow_later()
            return
        self._reopened("")  # who asked meanwhile
        for handle in self._handles.values():
            self._give(handle)
        for gone in self._leaving.values():
            self._tell({"add": gone.id, "slot": gone.slot}, gone.fds)
        self._tell({"begin": 1})
        while self._unsaid:
            self._tell(self._unsaid.popleft())
        for worker in tails:
            self._tell({"tail": worker, "wait": 0.2})
        if self._closing:
            self._outbox.end()
        else:
            self._on_replaced()

    def _release(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        self._outbox.close()

    def reap_if_ours(self, pid: int) -> bool:
        """For a PID 1 that peeks at every child."""
        if pid == self.pid and self._pidfd >= 0 and not self._ended.done():
            self._exited()
            return True
        return False

    async def close(self) -> None:
        """Lets it write what is left. A process that left its worker's group may keep it alive."""
        self._closing = True
        self._outbox.end()  # it sees that, and goes when the workers' pipes have ended too
        if self._next is not None:
            self._next.cancel()
            self._follow()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._ended), LAST_WAIT)
        if self._next is not None:
            self._next.cancel()
        if not self._ended.done() and self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        self._outbox.close()
        for gone in self._leaving.values():
            gone.close()


@dataclass(slots=True)
class Leaving:
    """The pipes of a worker that is gone, as long as there may be something in them."""

    id: int
    slot: int
    fds: list[int]  # stdout, stderr, journal

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


def check(plan: Mapping[str, Any]) -> None:
    """That the files can be written: said now, not by lines that are missing."""
    for path in plan["files"].values():
        if is_device(path) and not os.path.isdir(path):
            continue
        try:
            os.close(open_log(path if plan["merge"] else worker_path(path, 0)))
        except OSError as error:
            raise ConfigError(
                f"the log {path} cannot be written: {error.strerror}",
                hint="check the folder and its permissions, or name another file: --log",
            ) from error


def _own_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key in ("LANG", "LC_ALL", "PATH")}
