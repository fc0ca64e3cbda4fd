"""Every worker that a dispatcher should know, and how far it should have got with each.

Says it to the dispatcher of the moment, and all of it again to the next one. It must not decide
what a worker's state should be.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rrdispatch._core.layout import BATCH_MAX, ControlKind, WorkerTag
from rrdispatch._core.layout import State as DispatcherState
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.lifecycle import State
from rrdispatch.cluster.link import Answered
from rrdispatch.dispatch.process import ControlMessage

AGAIN = 0.01  # for a dispatcher that has not yet seen that a worker is dead


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


class Ask(Protocol):
    """Dispatching.ask."""

    def __call__(
        self, kind: ControlKind, answered: Answered | None = None, **rest: Any
    ) -> None: ...


class Roster:
    """The workers' side of Dispatching, over the lives of all dispatchers."""

    def __init__(self, ask: Ask, refused: Callable[[int, str], None], heirs: bool = False) -> None:
        """``heirs``: what they need of a worker is kept at the dispatcher too."""
        self._heirs = heirs
        self._ask = ask
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._known: dict[int, Known] = {}
        self._alone = False  # there is no dispatcher any more, nor will there be

    def add(self, handle: WorkerHandle) -> None:
        """A new worker, starting."""
        self._known[handle.id] = known = Known(handle)
        self._add(known)

    def adopt(self, handle: WorkerHandle, state: State, known_as: int) -> None:
        """One of the primary before; ``known_as`` is how far it had got with the dispatcher."""
        self._known[handle.id] = known = Known(handle, state)
        if known_as == DispatcherState.DEAD:
            return  # its pidfd will tell
        if state is State.READY and known_as != DispatcherState.READY:
            self._say(known, State.READY)
        elif state is State.PARKED and known_as != DispatcherState.PARKED:
            self._say(known, State.READY)
            self._say(known, State.PARKED)

    def add_channel(self, handle: WorkerHandle, listener: int) -> None:
        """Its program listens from now on."""
        channel = handle.channels[listener]
        ends = [channel.sender, channel.receiver]
        self._ask(ControlKind.CHANNEL_ADD, worker=handle.id, listener=listener, fds=ends)

    def become(self, worker: int, state: State, answered: Callable[[], None] | None = None) -> None:
        """READY, PARKED or DRAINING from now on; a drain is answered when its queue is empty."""
        known = self._known[worker]
        known.state, known.answered = state, answered
        if self._alone:
            self._loop.call_soon(self._done, known, state)
        else:
            self._say(known, state)

    def remove(self, worker: int, answered: Callable[[Account], None]) -> None:
        """A worker that was reaped: forgotten when its queue was given to others."""
        known = self._known.get(worker)
        if known is None:
            self._loop.call_soon(answered, Account())
        else:
            self.become(worker, State.DEAD, lambda: answered(known.account))

    def tell_all(self) -> None:
        """To a new dispatcher. What was not answered is asked again."""
        for known in list(self._known.values()):
            self._add(known)
            if known.state is State.PARKED:
                self._say(known, State.READY)
            if known.state is not State.STARTING:
                self._say(known, known.state)

    def give_up(self) -> None:
        """Without a dispatcher: what waits stays where it is, and nobody answers for it."""
        self._alone = True
        for known in list(self._known.values()):
            self._done(known, known.state)

    def ask_figures(self) -> None:
        """``figures`` are of this moment when the dispatcher has answered."""
        for known in self._known.values():
            if known.state is not State.DEAD:
                self._ask_figures(known)

    def figures(self, worker: int) -> Figures:
        """As of the last ``ask_figures``."""
        known = self._known.get(worker)
        return known.figures if known is not None else Figures()

    def _ask_figures(self, known: Known) -> None:
        def answered(message: ControlMessage) -> None:
            if message.result == 0:
                known.figures = Figures(message.values[6], message.values[5])

        self._ask(ControlKind.STATS, answered, worker=known.handle.id)

    def _add(self, known: Known) -> None:
        handle = known.handle

        def added(message: ControlMessage) -> None:
            if message.result < 0:
                self._refused(handle.id, errno.errorcode.get(-message.result, "unknown"))

        values = (handle.slot, handle.generation, handle.mask)
        fds = handle.fds_for_dispatcher()
        self._ask(ControlKind.WORKER_ADD, added, worker=handle.id, values=values, fds=fds)
        if self._heirs:
            voice = handle.fds_for_heirs()
            self._keep(known, WorkerTag.VOICE, voice)
            if handle.sd_notify is not None:
                self._keep(known, WorkerTag.SD_NOTIFY, [handle.sd_notify.fileno()])

    def _keep(self, known: Known, tag: WorkerTag, fds: list[int]) -> None:
        self._ask(ControlKind.KEEP, worker=known.handle.id, values=(tag,), fds=fds)

    def _say(self, known: Known, state: State) -> None:
        handle = known.handle
        if state is State.READY:
            values = (handle.capacity, min(handle.batch, BATCH_MAX))
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
            self._loop.call_later(AGAIN, self._again, known)
            return
        self._known.pop(known.handle.id, None)
        if message.result == 0:
            known.account = Account(*message.values[:3])
        self._done(known, State.DEAD)

    def _again(self, known: Known) -> None:
        if known.handle.id in self._known and not self._alone:
            self._say(known, State.DEAD)

    def _done(self, known: Known, state: State) -> None:
        if known.state is state and known.answered is not None:
            answered, known.answered = known.answered, None
            answered()
