"""Keeps a dispatcher that knows everything: settings, listeners, and by the roster the workers.

Owns the Link of the moment. When one is lost another is started and told all of it; what was not
answered is asked again.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rrdispatch import mutants
from rrdispatch._core import layout
from rrdispatch._core.layout import ControlKind, Policy
from rrdispatch.cluster.estate import Estate
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.link import Answered, Link, Request
from rrdispatch.cluster.roster import Roster
from rrdispatch.cluster.spawn import SHORTAGE
from rrdispatch.dispatch.process import ControlMessage, DispatcherHandle, default_kind
from rrdispatch.errors import DispatcherError
from rrdispatch.settings import Settings

POLICIES = {
    "round-robin": Policy.ROUND_ROBIN,
    "strict": Policy.STRICT,
    "least-connections": Policy.LEAST_CONNECTIONS,
    "source-hash": Policy.SOURCE_HASH,
}
SWITCHES = {
    "no-rescue": layout.SWITCH_NO_TAKE_BACK,
    "no-probe": layout.SWITCH_NO_PROBE,
    "no-pause": layout.SWITCH_NO_PAUSE,
    "leaky-dispatcher": layout.SWITCH_LEAK,
}
STICKY_STALL = 1.0  # seconds at the least: a client that is moved has lost its session
QUIET = 0.15  # a backlog that brought nothing for so long is empty
CLOSING_PART = 0.5  # of drain_timeout: how long backlogs may be emptied
MOST_REPLACED, WITHIN = 5, 10.0
FIRST_PAUSE, MOST_PAUSE = 0.05, 1.0  # before a dispatcher that could not be had is tried again


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


@dataclass(slots=True)
class Totals:
    """Counters of a dispatcher, or of all that are gone."""

    accepted: int = 0
    moved: int = 0
    lost: int = 0

    def plus(self, ping: ControlMessage | None) -> Totals:
        """With what a dispatcher says now, or said last."""
        if ping is None:
            return self
        return Totals(
            self.accepted + ping.values[1], self.moved + ping.values[3], self.lost + ping.values[5]
        )


@dataclass(slots=True)
class Hooks:
    """What the owner wants to hear."""

    hung: Callable[[int], None]
    failed: Callable[[DispatcherError], None]
    worker_refused: Callable[[int, str], None]
    events: Events = field(default_factory=Events)
    estate: Estate | None = None  # kept for heirs at every dispatcher


def stall_timeout(settings: Settings) -> float:
    """Who sticks to a worker waits for it while it is only slow."""
    sticky = settings.policy == "source-hash"
    return max(settings.stall_timeout, STICKY_STALL) if sticky else settings.stall_timeout


class Dispatching:
    """The dispatcher's side of the service, over the lives of all dispatchers."""

    def __init__(
        self,
        settings: Settings,
        listeners: Sequence[socket.socket],
        hooks: Hooks,
        inherited: DispatcherHandle | None = None,
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()
        # Not closed by the dispatcher yet.
        self._open = {index for index, sock in enumerate(listeners) if sock.fileno() >= 0}
        self._closed: Callable[[], None] | None = None
        # Listeners that go while others stay: whom to tell, and until when they may be emptied.
        self._ending: dict[int, tuple[Callable[[], None], float]] = {}
        self._closing_by = 0.0
        self._replaced: list[float] = []
        self.gone = Totals()
        self.roster = Roster(self.ask, hooks.worker_refused, hooks.estate is not None)
        if inherited is not None:
            self.kind = inherited.kind
            self.link = Link(self.kind, self._event, self._lost, inherited)
            return
        self.kind = default_kind() if settings.dispatcher == "auto" else settings.dispatcher
        self.link = Link(self.kind, self._event, self._lost)
        self._tell_everything()

    def add_listener(self, index: int) -> None:
        """One more, opened while the service runs."""
        self._open.add(index)
        self._tell_listener(index)

    def close_listener(self, index: int, answered: Callable[[], None], within: float = 0.0) -> None:
        """That one; what is still in its backlog after ``within`` seconds goes with it."""
        self._ending[index] = answered, self._loop.time() + within
        self._close(index)

    def close_listeners(self, answered: Callable[[], None]) -> None:
        """Empties every backlog and closes the dispatcher's copies."""
        self._closed = answered
        self._closing_by = self._loop.time() + CLOSING_PART * self._settings.drain_timeout
        for index in sorted(self._open):
            self._close(index)
        self._if_all_closed()

    async def refresh(self) -> None:
        """Asks the dispatcher for all its numbers of this moment."""
        self.roster.ask_figures()
        await self.link.ping()

    def counters(self) -> Totals:
        """Of all dispatchers so far, as of the last ping of each."""
        return self.gone.plus(self.link.last_ping)

    def hear(self, messages: Sequence[ControlMessage]) -> None:
        """Events that came while an heir asked for other things."""
        for message in messages:
            self._event(message)

    def ask(self, kind: ControlKind, answered: Answered | None = None, **rest: Any) -> None:
        """A request to the dispatcher of the moment; a refusal is told as a warning."""

        def check(message: ControlMessage) -> None:
            if message.result < 0 and not expected(kind, -message.result):
                reason = errno.errorcode.get(-message.result, str(message.result))
                text = f"the dispatcher refused {kind.name} of {message.worker}: {reason}"
                self._hooks.events.tell("warning", text)
            if answered is not None:
                answered(message)

        self.link.ask(Request(kind, **rest), check)

    def _tell_everything(self) -> None:
        settings = self._settings
        values = (
            POLICIES[settings.policy],
            settings.queue_limit + mutants.enabled("loose-queue"),
            nanoseconds(stall_timeout(settings)),
            settings.band,
            nanoseconds(settings.heartbeat_timeout),
            0,
            sum(bit for name, bit in SWITCHES.items() if mutants.enabled(name)),
        )
        self.ask(ControlKind.SETTINGS, values=values)
        if self._hooks.estate is not None:
            self._hooks.estate.tell(self.ask)
        for index in sorted(self._open):
            self._tell_listener(index)
            if self._closed is not None or index in self._ending:
                self._close(index)
        self.roster.tell_all()

    def _tell_listener(self, index: int) -> None:
        sock = self._listeners[index]
        values = (int(getattr(sock, "inherited", False)),)
        self.ask(ControlKind.LISTENER_ADD, listener=index, values=values, fds=[sock.fileno()])

    def _close(self, index: int) -> None:
        def closed(_: ControlMessage) -> None:
            self._open.discard(index)
            if index in self._ending:
                self._loop.call_soon(self._ending.pop(index)[0])
            self._if_all_closed()

        _, by = self._ending.get(index, (None, self._closing_by))
        left = max(0.0, by - self._loop.time())
        values = (nanoseconds(min(QUIET, left)), nanoseconds(left))
        self.ask(ControlKind.LISTENER_CLOSE, closed, listener=index, values=values)

    def _if_all_closed(self) -> None:
        if not self._open and self._closed is not None:
            self._loop.call_soon(self._closed)
            self._closed = None

    def _event(self, message: ControlMessage) -> None:
        if message.kind == ControlKind.HUNG:
            self._hooks.hung(message.worker)
        else:
            announce(self._hooks.events, message)

    def _lost(self, why: str) -> None:
        """The dispatcher died or was silent: another one is told everything."""
        self.gone = self.gone.plus(self.link.last_ping)
        now = self._loop.time()
        self._replaced = [at for at in self._replaced if at > now - WITHIN]
        if not self.link.worked:
            self._replaced.append(now)
        if mutants.enabled("late-dispatcher"):
            time.sleep(0.1)
        if len(self._replaced) > MOST_REPLACED:
            often = f"{len(self._replaced)} times in {WITHIN:g} s"
            self._give_up(DispatcherError(f"the dispatcher ended {often}: {why}"))
        else:
            self._follow(why)

    def _follow(self, why: str, pause: float = FIRST_PAUSE) -> None:
        """Another one; later, if only what it takes is short now. The backlog holds meanwhile."""
        if self.link.over:
            return
        try:
            self.link = Link(self.kind, self._event, self._lost)
        except (DispatcherError, OSError) as error:
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in SHORTAGE:
                self._give_up(error)
                return
            text = f"there is no dispatcher: {cause.strerror}"
            self._hooks.events.tell("warning", text, hint="it is tried again; the backlog holds")
            self._loop.call_later(pause, self._follow, why, min(2 * pause, MOST_PAUSE))
            return
        self._tell_everything()
        text = f"the dispatcher was replaced: {why}"
        self._hooks.events.tell("dispatcher-replaced", text, pid=self.link.pid, reason=why)

    def _give_up(self, error: Exception) -> None:
        self.roster.give_up()
        self._hooks.failed(
            error if isinstance(error, DispatcherError) else DispatcherError(str(error))
        )


def expected(kind: ControlKind, error: int) -> bool:
    """A refusal that says no more than that it is too early or too late: it was done while nobody
    was there, or the program begins to listen when its worker, or the service, is ending.
    """
    late = {
        ControlKind.WORKER_REMOVE: (errno.ESRCH,),
        ControlKind.LISTENER_CLOSE: (errno.ENOENT,),
        ControlKind.CHANNEL_ADD: (errno.EINVAL, errno.ENOENT, errno.ESRCH),
    }
    return error == errno.EBUSY or error in late.get(kind, ())


def announce(events: Events, message: ControlMessage) -> None:
    """An event of the dispatcher's as one of ours."""
    kind, seconds = ControlKind(message.kind), message.values[0] / 1e9
    name = kind.name.lower().replace("_", "-")
    if kind is ControlKind.STALLED:
        events.tell(name, worker=message.worker, age=seconds)
    elif kind is ControlKind.RECOVERED:
        events.tell(name, worker=message.worker, stalled_for=seconds)
    elif kind in (ControlKind.ACCEPT_ERROR, ControlKind.LISTENER_FAILED):
        what = "accepting failed" if kind is ControlKind.ACCEPT_ERROR else "a listener failed"
        code = errno.errorcode.get(-message.result, str(-message.result))
        events.tell(name, f"{what}: {code}", listener=message.listener)
    elif kind in (ControlKind.FULL, ControlKind.ROOM):
        events.tell(name)
