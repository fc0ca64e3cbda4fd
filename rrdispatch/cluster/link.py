"""The primary's line to the dispatcher of the moment: requests with answers, events, signs of life.

Owns one DispatcherHandle and what was asked of it. A dispatcher that dies or is silent is reported
once by ``on_lost``; what to tell its successor is the owner's business.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rrdispatch import mutants
from rrdispatch._core.layout import ControlKind
from rrdispatch.cluster.handle import wait_end, wait_exit
from rrdispatch.cluster.outbox import AGAIN_AFTER, NO_ROOM
from rrdispatch.dispatch.process import ControlMessage, DispatcherHandle
from rrdispatch.errors import DispatcherError

Answered = Callable[[ControlMessage], None]

PING_EVERY = 0.25
SILENT = 12 if mutants.enabled("late-dispatcher") else 4  # pings without an answer: one second
STARVED = 40  # the same while it is runnable: the machine is busy, not the dispatcher stuck


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as DispatcherHandle.request takes it."""

    kind: ControlKind
    worker: int = 0
    listener: int = 0
    values: Sequence[int] = ()
    fds: Sequence[int] = ()


class Link:
    """One dispatcher, from its start to its end."""

    def __init__(
        self,
        kind: str,
        on_event: Callable[[ControlMessage], None],
        on_lost: Callable[[str], None],
        handle: DispatcherHandle | None = None,
    ) -> None:
        """``handle``: one that runs already, as an heir finds it."""
        self.kind = kind
        self._on_event = on_event
        self._on_lost: Callable[[str], None] | None = on_lost
        self._loop = asyncio.get_running_loop()
        self._asked: dict[int, Answered | None] = {}
        self._unsent: deque[tuple[Request, Answered | None]] = deque()
        self._again: asyncio.TimerHandle | None = None
        self._unanswered = 0
        self.over = False  # nobody wants it, or a successor, any more
        self.worked = False  # it answered something: its program and its settings are good
        self.last_ping: ControlMessage | None = None
        self._handle = handle or DispatcherHandle.start(kind)
        self.pid = self._handle.pid
        self._ended = self._loop.create_future()
        self._loop.add_reader(self._handle.fileno(), self._readable)
        self._loop.add_reader(self._handle.pidfd, self._exited)
        self._timer = self._loop.call_later(PING_EVERY, self._tick)

    def ask(self, request: Request, answered: Answered | None = None) -> None:
        """Sends a request. The fds are duplicated by the kernel, now or, if it is busy, later."""
        if self._unsent or not self._send(request, answered):
            self._unsent.append((request, answered))

    @property
    def behind(self) -> bool:
        """Something that was asked has not left this process yet."""
        return bool(self._unsent)

    async def ping(self) -> ControlMessage | None:
        """Its counters of this moment; None if it does not answer."""
        answer: asyncio.Future[ControlMessage] = self._loop.create_future()

        def answered(message: ControlMessage) -> None:
            if not answer.done():
                answer.set_result(message)

        self.ask(Request(ControlKind.PING), answered)
        with suppress(asyncio.TimeoutError):
            self.last_ping = await asyncio.wait_for(answer, 1.0)
        return self.last_ping

    def _send(self, request: Request, answered: Answered | None) -> bool:
        """If not, it is known by then when to try again."""
        if self._handle.fileno() < 0:
            return True  # it is gone: nobody will answer, and its successor is told everything
        try:
            sequence = self._handle.request(
                request.kind,
                worker=request.worker,
                listener=request.listener,
                values=request.values,
                fds=request.fds,
            )
        except DispatcherError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                return True  # its pidfd tells
            self._loop.add_writer(self._handle.fileno(), self._writable)
            return False
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            self._loop.remove_writer(self._handle.fileno())
            self._again = self._loop.call_later(AGAIN_AFTER, self._writable)
            return False
        self._asked[sequence] = answered
        return True

    def _writable(self) -> None:
        while self._unsent:
            if not self._send(*self._unsent[0]):
                return
            self._unsent.popleft()
        if self._handle.fileno() >= 0:
            self._loop.remove_writer(self._handle.fileno())

    def _readable(self) -> None:
        try:
            messages = self._handle.receive()
        except EOFError:
            self._loop.remove_reader(self._handle.fileno())
            return  # its pidfd tells
        for message in messages:
            if message.kind >= ControlKind.STARTED:
                self._on_event(message)
                continue
            self.worked = True
            answered = self._asked.pop(message.sequence, None)
            if message.kind == ControlKind.PING and answered is None:
                self._unanswered, self.last_ping = 0, message
            if answered is not None:
                answered(message)

    def _tick(self) -> None:
        """Counts our own ticks, not seconds: a primary that was not running must not accuse."""
        self._timer = self._loop.call_later(PING_EVERY, self._tick)
        if self._is_silent():
            self._lost(f"silent for {self._unanswered * PING_EVERY:g} s")
            return
        self._unanswered += 1
        self.ask(Request(ControlKind.PING))

    def _is_silent(self) -> bool:
        if self._unanswered < SILENT:
            return False
        if self._unanswered < STARVED and _runnable(self.pid):
            return False
        # Its answers may have come after the loop looked, and before the look at its state.
        self._readable()
        return self._unanswered >= SILENT

    def _exited(self) -> None:
        how = self._reap()
        if how is not None:
            self._lost(how)

    def _reap(self) -> str | None:
        how = wait_exit(self._handle.pidfd)
        if how is not None:
            self._loop.remove_reader(self._handle.pidfd)
            if not self._ended.done():
                self._ended.set_result(None)
        return how

    def _lost(self, why: str) -> None:
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            self._close()
            on_lost(why)

    def reap_if_ours(self, pid: int) -> bool:
        """For a PID 1 that peeks at every child."""
        if pid == self.pid and not self._ended.done():
            self._exited()
            return True
        return False

    async def stop(self, limit: float = 2.0) -> None:
        """Its end: asked for, then forced."""
        self._on_lost, self.over = None, True
        self.ask(Request(ControlKind.STOP))
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._ended), limit)
        self._close()

    def abort(self) -> None:
        """Its end, at once."""
        self._on_lost, self.over = None, True
        self._close()

    def abandon(self) -> None:
        """In a forked child: our copies; loop and dispatcher are the parent's."""
        self._handle.close()

    def _close(self) -> None:
        """Kills what is left of it, reaps it and closes what we hold of it."""
        self._timer.cancel()
        if self._again is not None:
            self._again.cancel()
        handle = self._handle
        if handle.fileno() >= 0:
            self._loop.remove_reader(handle.fileno())
            self._loop.remove_writer(handle.fileno())
        self._unsent.clear()
        self._asked.clear()
        if not self._ended.done():
            self._loop.remove_reader(handle.pidfd)
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle.pidfd, signal.SIGKILL)
            # SIGKILL ends a stopped process too; only one stuck in the kernel would make us wait.
            wait_end(handle.pidfd)
            self._ended.set_result(None)
        handle.close()


def _runnable(pid: int) -> bool:
    """It wants the processor and waits for its turn (or spins)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] == "R"
