"""The real world behind the plan: carries out actions, and tells the engine what comes of them.

Owns the workers, the dispatcher, the logger and our copies of the listeners; decides nothing.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rrdispatch._core.layout import AppTag
from rrdispatch._core.layout import State as DispatcherState
from rrdispatch.cluster import actions as act
from rrdispatch.cluster import news, pin, share
from rrdispatch.cluster.dispatching import CLOSING_PART, Dispatching, Hooks, Totals
from rrdispatch.cluster.engine import Engine
from rrdispatch.cluster.estate import Changing, Estate, Fixed
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.inherit import Inherited, door_of, nofile_of, told_listeners
from rrdispatch.cluster.launch import Launch, Launches
from rrdispatch.cluster.lifecycle import State, Wanted
from rrdispatch.cluster.logs import Logs
from rrdispatch.cluster.plan import stopped_by
from rrdispatch.cluster.programs import AskedBy, Opened, Programs
from rrdispatch.cluster.pulse import Pulse
from rrdispatch.cluster.share import Shared
from rrdispatch.cluster.spawn import Post
from rrdispatch.cluster.view import Stop, View
from rrdispatch.cluster.workers import Ears, Limits, SlotTotals, Workers
from rrdispatch.errors import Error
from rrdispatch.net.listeners import ListeningSocket
from rrdispatch.settings import Settings

PARK, RESUME = "PARK=1", "RESUME=1"  # said to a worker (docs/protocol.md 2); twice does no harm
TICK = 0.0005  # so much after a deadline the plan looks: it is over then


@dataclass(slots=True)
class Owner:
    """Who the world belongs to."""

    settings: Settings
    events: Events
    launch: Callable[[int], Launch]  # of a generation
    operation: Callable[[act.Action], None]  # begun, or over
    died: Callable[[int, asyncio.Future[str]], None]  # a worker, and its last lines
    failed: Callable[[Error], None]  # the service cannot go on
    remember: Callable[[], None] = lambda: None  # before each step, for an heir
    estate: Estate | None = None


class ProcessWorld:
    """World by real processes."""

    def __init__(
        self,
        owner: Owner,
        listeners: Sequence[ListeningSocket],
        inherited: Inherited | None = None,
    ) -> None:
        self._owner = owner
        self._settings = owner.settings
        self._listeners = list(listeners)
        self.told_listeners = told_listeners(listeners, inherited)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._pulse = Pulse(self._loop)
        self.engine: Engine | None = None
        self.limits = Limits() if inherited is None else Limits(nofile_of(inherited))
        self.limits.raise_ours()
        try:
            self._start_processes(inherited)
        except BaseException:
            self.limits.restore()
            raise
        self._performers: dict[type, Callable[[Any], None]] = {
            act.Spawn: self._spawn,
            act.MakeReady: self._become,
            act.Unpark: self._become,
            act.Park: self._become,
            act.Drain: self._drain,
            act.AskToStop: self._ask_to_stop,
            act.Kill: self._kill,
            act.Remove: self._remove,
            act.CloseListeners: self._close_listeners,
        }

    def _start_processes(self, inherited: Inherited | None) -> None:
        """Dispatcher and logger; if the second cannot be had the first goes again."""
        owner = self._owner
        found = inherited.dispatcher if inherited else None
        hooks = Hooks(self._hung, owner.failed, self._refused, owner.events, owner.estate)
        given = [] if self._settings.share_listener else self._listeners
        self.dispatching = Dispatching(self._settings, given, hooks, found)
        try:
            logger = inherited.logger if inherited else None
            self.logs = Logs(self._settings, self._logger_replaced, logger)
        except BaseException:
            self.dispatching.link.abort()
            raise
        self._keep_logger()
        self.logs.on_gone = self._keep_logger  # its numbers may be other descriptors' soon
        ears = Ears(self._tell, owner.died, self._exited, owner.events, owner.remember)
        self.workers = Workers(self.logs, ears, self._settings.heartbeat_timeout)
        self.programs = self._open_door(inherited) if self._settings.is_preloaded else None
        self.shared = None
        if self._settings.share_listener:
            mine = [sock for sock in self._listeners if sock.fileno() >= 0]
            self.shared = Shared(mine, self._settings.backlog, owner.events)
            self._keep_shared(self.shared.fds())
            if inherited is None:
                self.shared.make_blocking()

    def _open_door(self, inherited: Inherited | None) -> Programs:
        owner, handles = self._owner, self.workers.handles
        asked_by = AskedBy(
            handles, self._tell, owner.events, lambda: self.dispatching, owner.remember
        )
        opened = Opened(self._listeners, self.told_listeners)
        opened.followed = owner.estate is not None
        if inherited is not None:
            opened.door, opened.secret = door_of(inherited)
        programs = Programs(self._settings.take, opened, asked_by)
        if owner.estate is not None:
            owner.estate.keep(AppTag.DOOR, [programs.door.fileno()], self.dispatching.ask)
        return programs

    def _keep_logger(self) -> None:
        if self._owner.estate is not None:
            self._owner.estate.keep(AppTag.LOGGER, self.logs.fds(), self.dispatching.ask)

    def _keep_shared(self, fds: Sequence[int]) -> None:
        if self._owner.estate is not None:
            self._owner.estate.share(fds, self.dispatching.ask)

    def adopt(self, inherited: Inherited) -> None:
        """What runs already, once the engine knows it; steps that may not have been done are done
        again: none of them does harm twice.
        """
        assert self.engine is not None
        roster, known = self.dispatching.roster, self.engine.view.workers
        for number, handle in inherited.handles.items():
            state = known[number].state
            handle.reaped = state is State.DEAD
            self.workers.adopt(handle, logged=inherited.logger is not None)
            self._tell_again(handle, state, inherited.states[number])
            roster.adopt(handle, state, inherited.states[number])
            if self.programs is not None:
                self.programs.adopt(handle)
            if state in (State.DRAINING, State.STOPPING) and not known[number].queue_empty:
                roster.become(number, State.DRAINING, partial(self._drained, number))
            elif state is State.DRAINING:
                self._watch_until_quiet(number)
            if state is State.STOPPING:
                self._ask_to_stop(act.AskToStop(number, not known[number].leaves))
            elif state is State.KILLED or (state is State.STARTING and handle.notify is None):
                handle.signal_group(signal.SIGKILL)
        self.dispatching.hear(inherited.events)
        stop = self.engine.view.operation
        if isinstance(stop, Stop) and stop.closing and not stop.closed:
            self._close_listeners(act.CloseListeners())

    def _tell_again(self, handle: WorkerHandle, state: State, known_as: int) -> None:
        """A worker is told before the dispatcher is: what that knows, it was told."""
        if state is State.PARKED and known_as != DispatcherState.PARKED:
            handle.tell(PARK)
        elif state is State.READY and known_as == DispatcherState.PARKED:
            handle.tell(RESUME)

    def fixed(self, launches: Launches) -> Fixed:
        """What an heir is to know from the beginning."""
        return Fixed(
            settings=self._settings.values(),
            cwd=launches.origin.cwd,
            environ=launches.origin.environ,
            nofile=self.limits.original,
            dispatcher=self.dispatching.kind,
            secret=self.programs.secret.hex() if self.programs else "",
        )

    def changing(self, view: View, token: int) -> Changing:
        """What an heir is to know of this moment."""
        workers, told = self.workers, zip(self.told_listeners, self._listeners, strict=True)
        return Changing(
            view=view,
            handles=workers.handles,
            listeners=[{**a, "identity": s.identity, "inherited": s.inherited} for a, s in told],
            totals=workers.totals,
            counters=self.dispatching.gone,
            token=token,
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        """The counts of what was gone before us."""
        self.dispatching.gone = Totals(**state["counters"])
        for slot, told in state["totals"].items():
            self.workers.totals[int(slot)] = SlotTotals(**told)

    def listening(self) -> list[dict[str, Any]]:
        """Where it listens at this moment."""
        return self.told_listeners if self.programs is None else self.programs.told()

    # ---- World ---------------------------------------------------------------------------------

    def now(self) -> float:
        return self._loop.time()

    def slept(self) -> float:
        return self._pulse.slept()

    def wake_at(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.programs is not None and self.engine is not None and _settled(self.engine.view):
            self.programs.close_unused(self.engine.view.generation)
        self._owner.remember()
        if when is not None and self.engine is not None:
            self._timer = self._loop.call_at(when + TICK, self.engine.settle)

    def perform(self, action: act.Action) -> None:
        self._owner.remember()
        self._performers.get(type(action), self._owner.operation)(action)

    def _tell(self, told: news.News) -> None:
        assert self.engine is not None
        self.engine.tell(told)

    def _spawn(self, action: act.Spawn) -> None:
        assert self.engine is not None
        post = Post(
            worker=action.worker,
            slot=action.slot,
            generation=action.generation,
            workers=self.engine.view.wanted,
            listeners=() if self.programs or self.shared else self.told_listeners,
            nofile=self.limits.original,
            shim=self.programs.shim(action.worker) if self.programs else None,
            shared=self.shared.fds() if self.shared else (),
            names=share.variables(self.told_listeners) if self.shared else {},
            core=pin.core_of(action.slot) if self._settings.pin else None,
        )
        handle = self.workers.spawn(self._owner.launch, post)
        if handle is not None:
            self.dispatching.roster.add(handle)

    def _become(self, action: act.MakeReady | act.Park | act.Unpark) -> None:
        name = {act.MakeReady: "worker-ready", act.Park: "parked"}.get(type(action), "unparked")
        state = State.PARKED if isinstance(action, act.Park) else State.READY
        if not isinstance(action, act.MakeReady):
            handle = self.workers.handles[action.worker]
            handle.tell(PARK if state is State.PARKED else RESUME)
        self.dispatching.roster.become(action.worker, state)
        self.workers.announce(name, action.worker)

    def _drain(self, action: act.Drain) -> None:
        drained = partial(self._drained, action.worker)
        self.dispatching.roster.become(action.worker, State.DRAINING, drained)
        handle = self.workers.handles.get(action.worker)
        inflight = handle.counts().inflight if handle is not None else 0
        self.workers.announce("draining", action.worker, inflight=inflight)

    def _drained(self, worker: int) -> None:
        self._tell(news.Drained(worker))
        self._watch_until_quiet(worker)

    def _watch_until_quiet(self, worker: int) -> None:
        assert self.engine is not None
        known = self.engine.view.workers.get(worker)
        if self.programs is not None and known is not None and known.asked_at is not None:
            by, _ = stopped_by(self.engine.view, known)
            self.programs.watch_until_quiet(worker, self._stop_signal(), by)

    def _stop_signal(self) -> signal.Signals:
        return signal.Signals["SIG" + self._settings.stop_signal]

    def _ask_to_stop(self, action: act.AskToStop) -> None:
        handle = self.workers.handles[action.worker]
        if action.signal:
            handle.signal(self._stop_signal())
        handle.signal_group(signal.SIGCONT)

    def _kill(self, action: act.Kill) -> None:
        if why := action.fault or action.late:
            self.workers.announce("killed", action.worker, f"killed: {why}")
        self.workers.handles[action.worker].signal_group(signal.SIGKILL)

    def _remove(self, action: act.Remove) -> None:
        def removed(account: Any) -> None:
            self.workers.forget(action.worker, account)
            self._tell(news.Removed(action.worker))

        self.dispatching.roster.remove(action.worker, removed)

    def _close_listeners(self, _action: act.CloseListeners) -> None:
        def closed() -> None:
            self.close_listeners()
            self._tell(news.ListenersClosed())

        if self.shared is None:
            self.dispatching.close_listeners(closed)
        else:
            self.shared.close(closed, CLOSING_PART * self._settings.drain_timeout)

    # ---- what comes from outside ---------------------------------------------------------------

    def _exited(self, handle: WorkerHandle, how: str) -> None:
        """For people only if nobody wanted it."""
        assert self.engine is not None
        view = self.engine.view
        worker, slot = view.workers[handle.id], view.slots.get(handle.slot)
        wanted = worker.wanted is Wanted.GONE or worker.leaves
        text = "" if wanted else f"ended: {news.describe(worker, how)}"
        if slot is not None and slot.ended:
            text = f"ended: {news.describe(worker, how)}; it is not replaced"
        self.workers.announce("exited", handle.id, text, how=how)
        if slot is not None and slot.errored and not wanted:
            rules = view.rules
            often = f"more than {rules.max_restarts} times in {rules.restart_window:g} s"
            text = f"is given up: its slot died {often}; {text}"
            self.workers.announce("errored", handle.id, text)

    def _hung(self, worker: int) -> None:
        self._tell(news.Hung(worker))

    def _refused(self, worker: int, reason: str) -> None:
        handle = self.workers.handles.get(worker)
        if handle is not None:
            self._tell(news.Erred(worker, {"message": f"the dispatcher refused it: {reason}"}))
            handle.signal_group(signal.SIGKILL)

    def _logger_replaced(self) -> None:
        self._keep_logger()
        self.workers.unwritten.clear()  # what the dead one could not write, this one tries anew
        self._owner.events.tell("logger-replaced", "the logger was replaced", pid=self.logs.pid)

    def reap_if_ours(self, pid: int) -> bool:
        """For a PID 1 that peeks at every child."""
        return (
            self.workers.reap_if_ours(pid)
            or self.logs.reap_if_ours(pid)
            or self.dispatching.link.reap_if_ours(pid)
        )

    # ---- the end -------------------------------------------------------------------------------

    def close_listeners(self) -> None:
        """Our copies; unix sockets' files go with them."""
        if self.shared is not None:
            self.shared.stop_watching()
            self._keep_shared(())
        for sock in self._listeners:
            if sock.fileno() >= 0:
                sock.unlink()
                sock.close()

    async def close(self) -> None:
        """After the last worker: the dispatcher, the logger, whatever is open."""
        self.wake_at(None)
        self._pulse.close()
        if self.programs is not None:
            self.programs.close()
        self.close_listeners()
        await self.dispatching.link.stop()
        self.workers.close()
        await self.logs.close()
        self.limits.restore()


def _settled(view: View) -> bool:
    """Every slot is served by the release of the moment, and nothing else is under way."""
    serving = {worker.slot for worker in view.serving if worker.generation == view.generation}
    return view.operation is None and serving >= view.slots.keys()
