"""Keeps a dispatcher that knows everything: listeners, workers and their states, settings.

Owns the Link of the moment. When one is lost, another is started and told the state of each worker;
requests that were not answered are asked again. It must not decide what a worker's state should be.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rrdispatch._core.layout import ControlKind, Policy
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.lifecycle import State
from rrdispatch.cluster.link import Answered, Link, Request
from rrdispatch.dispatch.process import ControlMessage, default_kind
from rrdispatch.errors import DispatcherError
from rrdispatch.settings import Settings

POLICIES = {
    "round-robin": Policy.ROUND_ROBIN,
    "strict": Policy.STRICT,
    "least-connections": Policy.LEAST_CONNECTIONS,
}
QUIET = 0.15  # a backlog that brought nothing for so long is empty
CLOSING_PART = 0.5  # of drain_timeout: how long backlogs may be emptied
MOST_REPLACED, WITHIN = 5, 10.0


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a dispatcher counted for one worker; another dispatcher begins anew."""

    picks: int = 0
    moved_away: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """The last account of a dead worker: what was sent, what it took, what was given to others."""

    rescued: int = 0
    sent: int = 0
    received: int = 0


@dataclass(slots=True)
class Known:
    """What the dispatcher should know of one worker."""

    handle: WorkerHandle
    state: State = State.STARTING
    answered: Callable[[], None] | None = None  # to a drain or a remove, as ``state`` says
    figures: Figures = Figures()
    account: Account = Account()


@dataclass(slots=True)
class Totals:
    """Counters of dispatchers that are gone."""

    accepted: int = 0
    moved: int = 0
    lost: int = 0


@dataclass(slots=True)
class Hooks:
    """What the owner wants to hear."""

    hung: Callable[[int], None]
    failed: Callable[[DispatcherError], None]
    worker_refused: Callable[[int, str], None]
    events: Events = field(default_factory=Events)


class Dispatching:
    """The dispatcher's side of the service, over the lives of all dispatchers."""

    def __init__(
        self, settings: Settings, listeners: Sequence[socket.socket], hooks: Hooks
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        self._known: dict[int, Known] = {}
        self._open: set[int] = set(range(len(listeners)))  # not closed by the dispatcher yet
        self._closed: Callable[[], None] | None = None
        self._closing_by = 0.0
        self._replaced: list[float] = []
        self._given_up = False
        self.totals = Totals()
        self.kind = default_kind() if settings.dispatcher == "auto" else settings.dispatcher
        self.link = Link(self.kind, self._event, self._lost)
        self._tell_everything()

    # ---- what the plan asks for ----------------------------------------------------------------

    def add(self, handle: WorkerHandle) -> None:
        self._known[handle.id] = Known(handle)
        self._add(handle)

    def ready(self, worker: int) -> None:
        self._become(worker, State.READY)

    def park(self, worker: int) -> None:
        self._become(worker, State.PARKED)

    def drain(self, worker: int, answered: Callable[[], None]) -> None:
        self._become(worker, State.DRAINING, answered)

    def remove(self, worker: int, answered: Callable[[Account], None]) -> None:
        """For a worker that was reaped."""
        known = self._known.get(worker)
        if known is None:
            self._loop.call_soon(answered, Account())
        else:
            self._become(worker, State.DEAD, lambda: answered(known.account))

    def close_listeners(self, answered: Callable[[], None]) -> None:
        """Empties every backlog and closes the dispatcher's copies."""
        self._closed = answered
        self._closing_by = self._loop.time() + CLOSING_PART * self._settings.drain_timeout
        for index in sorted(self._open):
            self._close(index)
        self._listener_closed(-1)

    # ---- what is told to a dispatcher ----------------------------------------------------------

    def _tell_everything(self) -> None:
        settings = self._settings
        self._ask(
            ControlKind.SETTINGS,
            values=(
                POLICIES[settings.policy],
                settings.queue_limit,
                nanoseconds(settings.stall_timeout),
                settings.band,
                nanoseconds(settings.heartbeat_timeout),
            ),
        )
        for index in sorted(self._open):
            fd = self._listeners[index].fileno()
            self._ask(ControlKind.LISTENER_ADD, listener=index, fds=[fd])
            if self._closed is not None:
                self._close(index)
        for known in list(self._known.values()):
            self._add(known.handle)
            if known.state is State.PARKED:
                self._state(known, State.READY)
            if known.state is not State.STARTING:
                self._state(known, known.state)

    def _ask(self, kind: ControlKind, answered: Answered | None = None, **rest: Any) -> None:
        def check(message: ControlMessage) -> None:
            if message.result < 0:
                reason = errno.errorcode.get(-message.result, str(message.result))
                text = f"the dispatcher refused {kind.name} of {message.worker}: {reason}"
                self._hooks.events.tell("warning", text)
            if answered is not None:
                answered(message)

        self.link.ask(Request(kind, **rest), check)

    def _add(self, handle: WorkerHandle) -> None:
        def added(message: ControlMessage) -> None:
            if message.result < 0:
                reason = errno.errorcode.get(-message.result, str(message.result))
                self._hooks.worker_refused(handle.id, reason)

        self._ask(
            ControlKind.WORKER_ADD,
            added,
            worker=handle.id,
            values=(handle.slot, handle.generation),
            fds=handle.fds_for_dispatcher(),
        )

    def _become(
        self, worker: int, state: State, answered: Callable[[], None] | None = None
    ) -> None:
        known = self._known[worker]
        known.state, known.answered = state, answered
        if self._given_up:
            self._loop.call_soon(self._done, known, state)
        else:
            self._state(known, state)

    def _state(self, known: Known, state: State) -> None:
        handle = known.handle
        if state is State.READY:
            batch = min(handle.batch, 16)
            values = (handle.capacity, batch)
            self._ask(ControlKind.WORKER_READY, worker=handle.id, values=values)
        elif state is State.PARKED:
            self._ask(ControlKind.WORKER_PARK, worker=handle.id)
        elif state is State.DRAINING:
            drained: Answered = lambda _: self._done(known, state)  # noqa: E731
            self._ask(ControlKind.WORKER_DRAIN, drained, worker=handle.id)
        else:
            removed: Answered = lambda message: self._removed(known, message)  # noqa: E731
            self._ask(ControlKind.WORKER_REMOVE, removed, worker=handle.id)

    def _removed(self, known: Known, message: ControlMessage) -> None:
        if message.result == -errno.EBUSY:  # it has not seen the pidfd yet
            self._loop.call_later(0.01, self._again, known)
            return
        self._known.pop(known.handle.id, None)
        if message.result == 0:
            known.account = Account(*message.values[:3])
        self._done(known, State.DEAD)

    def _again(self, known: Known) -> None:
        if known.handle.id in self._known:
            self._state(known, State.DEAD)

    def _done(self, known: Known, state: State) -> None:
        if known.state is state and known.answered is not None:
            answered, known.answered = known.answered, None
            answered()

    def _close(self, index: int) -> None:
        left = max(0.0, self._closing_by - self._loop.time())
        self._ask(
            ControlKind.LISTENER_CLOSE,
            lambda _: self._listener_closed(index),
            listener=index,
            values=(nanoseconds(min(QUIET, left)), nanoseconds(left)),
        )

    def _listener_closed(self, index: int) -> None:
        self._open.discard(index)
        if not self._open and self._closed is not None:
            self._loop.call_soon(self._closed)
            self._closed = None

    # ---- what it tells -------------------------------------------------------------------------

    def _event(self, message: ControlMessage) -> None:
        kind, worker = ControlKind(message.kind), message.worker
        tell = self._hooks.events.tell
        if kind is ControlKind.HUNG:
            self._hooks.hung(worker)
        elif kind is ControlKind.STALLED:
            tell("stalled", worker=worker, age=message.values[0] / 1e9)
        elif kind is ControlKind.RECOVERED:
            tell("recovered", worker=worker, stalled_for=message.values[0] / 1e9)
        elif kind in (ControlKind.ACCEPT_ERROR, ControlKind.LISTENER_FAILED):
            name = errno.errorcode.get(-message.result, str(-message.result))
            what = "accepting failed" if kind is ControlKind.ACCEPT_ERROR else "a listener failed"
            tell(kind.name.lower().replace("_", "-"), f"{what}: {name}", listener=message.listener)
        elif kind in (ControlKind.FULL, ControlKind.ROOM):
            tell(kind.name.lower())

    def _lost(self, why: str) -> None:
        """The dispatcher died or was silent: another one is told everything."""
        self._count(self.link.last_ping)
        now = self._loop.time()
        self._replaced = [at for at in self._replaced if at > now - WITHIN] + [now]
        try:
            if len(self._replaced) > MOST_REPLACED:
                often = f"{len(self._replaced)} times in {WITHIN:g} s"
                raise DispatcherError(f"the dispatcher ended {often}: {why}")
            self.link = Link(self.kind, self._event, self._lost)
        except DispatcherError as error:
            self._give_up(error)
            return
        self._tell_everything()
        text = f"the dispatcher was replaced: {why}"
        self._hooks.events.tell("dispatcher-replaced", text, pid=self.link.pid, reason=why)

    def _give_up(self, error: DispatcherError) -> None:
        """Without a dispatcher: what waits stays where it is, and nobody answers for it."""
        self._given_up = True
        for known in self._known.values():
            self._done(known, known.state)
        self._hooks.failed(error)

    def _count(self, ping: ControlMessage | None) -> None:
        if ping is not None:
            self.totals.accepted += ping.values[1]
            self.totals.moved += ping.values[3]
            self.totals.lost += ping.values[5]

    async def refresh(self) -> None:
        """Asks the dispatcher for all its numbers of this moment."""
        for known in self._known.values():
            if known.state is not State.DEAD:
                self._refresh_one(known)
        await self.link.ping()

    def _refresh_one(self, known: Known) -> None:
        def answered(message: ControlMessage) -> None:
            if message.result == 0:
                known.figures = Figures(message.values[6], message.values[5])

        self.link.ask(Request(ControlKind.STATS, worker=known.handle.id), answered)

    def figures(self, worker: int) -> Figures:
        """As of the last ``refresh``."""
        known = self._known.get(worker)
        return known.figures if known is not None else Figures()

    def counters(self) -> Totals:
        """Of all dispatchers so far, as of the last ping."""
        ping = self.link.last_ping
        values = ping.values if ping is not None else (0,) * 12
        return Totals(
            self.totals.accepted + values[1],
            self.totals.moved + values[3],
            self.totals.lost + values[5],
        )
