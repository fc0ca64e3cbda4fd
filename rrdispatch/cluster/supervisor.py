"""Supervisor: the primary's loop object. Requests in, results out; the plan decides the rest.

One asyncio loop and no thread. Must not know how it is reached: the CLI and the control plane call
the same few methods.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Callable
from typing import Any

from rrdispatch import cpus, mutants
from rrdispatch._core.layout import MAX_LISTENERS
from rrdispatch.checks import MOST_WORKERS
from rrdispatch.cluster import actions as act
from rrdispatch.cluster import beside, memory, news, pin, program, report
from rrdispatch.cluster.engine import Engine
from rrdispatch.cluster.estate import Estate, Fixed
from rrdispatch.cluster.events import Event, Events, OnEvent
from rrdispatch.cluster.inherit import Inherited, launches_of, view_of
from rrdispatch.cluster.launch import Launch, Launches
from rrdispatch.cluster.operations import Operations, ReloadResult
from rrdispatch.cluster.signals import Signals, held
from rrdispatch.cluster.view import Failure, Finish, ReloadOptions, Rules, Start, Stop, View
from rrdispatch.cluster.world import Owner, ProcessWorld
from rrdispatch.errors import BindError, ConfigError, ControlError, Error
from rrdispatch.net.addresses import Address, parse, same_place
from rrdispatch.net.listeners import ListeningSocket, bind, bound_address
from rrdispatch.settings import Settings

WorldMaker = Callable[[Owner, list[ListeningSocket]], ProcessWorld]


class Supervisor:
    """One app's primary: ``await run()`` from the start to the end."""

    operations: Operations
    world: ProcessWorld
    view: View
    engine: Engine

    def __init__(
        self,
        settings: Settings,
        *,
        on_event: OnEvent | None = None,
        world: WorldMaker = ProcessWorld,
        signals: bool = True,
        estate: Estate | None = None,
        inherited: Inherited | None = None,
    ) -> None:
        """``estate``: heirs may follow, and this is kept for them; ``inherited``: this is one."""
        self.settings = settings
        self._estate = estate
        self._inherited = inherited
        self.events = Events(on_event)
        self._make_world = world
        self._with_signals = signals
        self._stop_asked = False
        self._beside: beside.Beside | None = None

    async def run(self) -> int:
        """Serves until the end: 0 after a stop, an Error if it could not start or go on."""
        beside.require(self.settings)
        self.operations = Operations(self.events)
        with held() if self._with_signals else contextlib.nullcontext():
            if self._inherited is None:
                self._begin()
            else:
                self._follow(self._inherited)
            signals = Signals(self) if self._with_signals else None
        error = await self._serve(signals)
        if error is None:
            self.events.tell("stopped", code=0)
            return 0
        told = {"class": type(error).__name__, "message": error.message, "hint": error.hint}
        self.events.tell("stopped", code=error.exit_code, error=told)
        raise error

    def _begin(self) -> None:
        """From nothing."""
        program.check(self.settings)
        facts = cpus.detect()
        workers = cpus.count(self.settings.instances, facts).workers
        self.view = View(rules_of(self.settings, facts.usable), workers, operation=Start())
        self._launches = Launches(self.settings)
        if self.settings.is_preloaded:
            program.check_command(self.settings, self._launches.of(1, 1).argv)
        listeners = bind_all(self.settings)
        try:
            self.world = self._make_world(self._owner(), listeners)
            if self._estate is not None:
                self._estate.begin(self.world.fixed(self._launches))
        except BaseException:
            close_all(listeners)
            raise
        self.world.engine = self.engine = Engine(self.view, self.world)

    def _follow(self, inherited: Inherited) -> None:
        """From what the primary before wrote down and the dispatcher kept."""
        assert self._estate is not None
        state = inherited.state
        self.view = view_of(inherited)
        self._launches = launches_of(self.settings, state)
        self._estate.begin(Fixed(**state["fixed"]))
        self.operations.follow(self.view, state["token"])
        self._stop_asked = isinstance(self.view.operation, Stop)
        self.world = ProcessWorld(self._owner(), inherited.listeners, inherited)
        self.world.engine = self.engine = Engine(self.view, self.world)
        self.world.restore(state)
        self.world.adopt(inherited)
        self._remember()  # who is killed from now on was the one that is told here
        text = f"primary {os.getpid()} follows {state['primary']}, which was killed"
        self.events.tell("inherited", text, pid=os.getpid(), follows=state["primary"])

    def _owner(self) -> Owner:
        return Owner(
            self.settings,
            self.events,
            lambda generation: self._launches.of(generation, self.view.generation),
            self._operation,
            self._died,
            self._failed,
            self._remember,
            self._estate,
        )

    def _remember(self) -> None:
        """For an heir; before each step, so that it knows of whatever may have been done."""
        if self._estate is not None:
            token = self.operations.last_token
            self._estate.save(self._launches, self.world.changing(self.view, token))

    async def _serve(self, signals: Signals | None) -> Error | None:
        """From the first worker to the last; what made it end, if it was not asked to."""
        unsubscribe = self.events.subscribe(self._weigh_first)
        try:
            told = self.world.told_listeners
            if self._inherited is None:
                self.events.tell("listening", listeners=told, workers=self.view.wanted)
            self._tell_if_shared(self.view.wanted)
            self.engine.settle()
            self._beside = beside.Beside(self._asks())
            return await self.operations.done
        finally:
            unsubscribe()
            if signals is not None:
                signals.close()
            if self._beside is not None:
                self._beside.close()
            await self.world.close()

    def _asks(self) -> beside.Asks:
        cwd = self.launch.cwd
        return beside.Asks(
            self.settings, self.events, self.engine, self.world, cwd, self._reload_now, self.reload
        )

    # ---- what can be asked ---------------------------------------------------------------------

    async def started(self) -> None:
        """Until the start is over; raises what made it fail."""
        await asyncio.shield(self.operations.started)

    def reload(self, **options: Any) -> asyncio.Future[ReloadResult]:
        """A new generation replaces the old one; ReloadError if it was withdrawn.

        ``batch``, ``park``, ``stop_first``, ``probation`` are those of the settings if not said.
        """
        wanted = reload_options(self.settings, options)
        notes: tuple[str, ...] = ()
        parks = wanted.park and not wanted.stop_first
        why = self._would_not_fit(self.view.wanted) if parks else ""
        if why:
            wanted = dataclasses.replace(wanted, park=False)
            notes = (f"not parking the old workers: {why}",)
            self.events.tell("warning", notes[0], hint="--no-park is that by choice")
        token, future = self.operations.new_reload(notes)
        self.engine.tell(news.ReloadAsked(token, wanted))
        return future

    def scale(self, workers: int) -> None:
        """So many slots; the highest go first."""
        if not 1 <= workers <= MOST_WORKERS:
            raise ConfigError(f"{workers} workers", hint=f"a number from 1 to {MOST_WORKERS}")
        self._tell_if_shared(workers)
        self.engine.tell(news.ScaleAsked(workers))
        plural = "worker" if workers == 1 else "workers"
        self.events.tell("scaled", f"scaled to {workers} {plural}", workers=workers)

    def scale_by(self, change: int) -> None:
        """SIGTTIN, SIGTTOU; at the ends of the range nothing happens."""
        if 1 <= self.view.wanted + change <= MOST_WORKERS:
            self.scale(self.view.wanted + change)

    def reopen_logs(self) -> asyncio.Future[None]:
        """The log files by their names: somebody has moved them; ControlError if that fails."""
        return self.world.logs.reopen()

    def ignored(self, name: str) -> None:
        """A signal that means nothing here."""
        self.events.tell("warning", f"{name} is ignored", hint="SIGHUP reloads, SIGTERM stops")

    def stop(self) -> None:
        """Drains and ends; a second time ends now. Told when an heir would know of it, too."""
        if self._stop_asked:
            self.kill()
            return
        self._stop_asked = True
        self.engine.tell(news.StopAsked())
        self.events.tell("stopping", "stopping: the workers finish what they have")

    @property
    def stopping(self) -> bool:
        """It was asked to, by whomever, or does so of itself."""
        return self._stop_asked or isinstance(self.view.operation, Stop)

    def kill(self) -> None:
        """Ends now."""
        self._stop_asked = True
        self.engine.tell(news.KillAsked())
        self.events.tell("killing", "ending now")

    @property
    def launch(self) -> Launch:
        """What the workers of the proven generation run with."""
        return self._launches.of(self.view.generation, self.view.generation)

    def recycle(self, slot: int) -> None:
        """Its worker goes when its successor is ready."""
        serving = [worker for worker in self.view.serving if worker.slot == slot]
        if not serving:
            raise ControlError(f"no worker serves in slot {slot}")
        for worker in serving:
            self.engine.tell(news.Recycle(worker.id))

    async def fresh_stats(self) -> dict[str, Any]:
        """The view from outside, with the dispatcher's numbers of now."""
        await self.world.dispatching.refresh()
        return self.stats()

    def stats(self) -> dict[str, Any]:
        """The same at once; the dispatcher's numbers are at most a quarter second old."""
        return report.stats(self.settings, self.view, self.world)

    def reap_if_ours(self, pid: int) -> bool:
        """For a PID 1 that peeks at every child."""
        others = self._beside
        return self.world.reap_if_ours(pid) or (others is not None and others.reap_if_ours(pid))

    # ---- what the world tells ------------------------------------------------------------------

    def _reload_now(self) -> None:
        """Development: no probation; an error is told as an event."""
        if not self._stop_asked:
            self.reload(probation=0.0)

    def _tell_if_shared(self, workers: int) -> None:
        """More workers than cores: no core is one's own."""
        if self.settings.pin and (text := pin.wraps(workers)):
            self.events.tell("warning", text, hint="--no-pin, or fewer workers: -i max")

    def _would_not_fit(self, more: int) -> str:
        handles = self.world.workers.handles
        return memory.would_not_fit((handles[w.id].pid for w in self.view.serving), more)

    def _weigh_first(self, event: Event) -> None:
        """The first worker has booted alone: would all of them fit?"""
        booted = event["event"] == "worker-ready" and isinstance(self.view.operation, Start)
        if booted and len(self.view.workers) == 1:
            why = self._would_not_fit(self.view.wanted - 1)
            if why:
                self.events.tell("warning", why, hint="use fewer workers: -i")

    def _died(self, worker: int, tail: asyncio.Future[str]) -> None:
        known = self.view.workers.get(worker)
        self.operations.died(worker, known.error if known else None, tail)

    def _failed(self, error: Error) -> None:
        """The service cannot go on, whatever the plan thinks."""
        self.operations.fatal = error
        self.engine.tell(news.StopAsked(Failure(error.message)))

    def _operation(self, action: act.Action) -> None:
        if isinstance(action, act.BeginReload):
            self.events.tell("reloading", "reload begins", generation=self.view.last_generation)
        elif isinstance(action, act.Fail):
            self.operations.finish(action.finish, self.view)
        elif isinstance(action, Finish):
            self.operations.finish(action, self.view)


def rules_of(settings: Settings, cores: int) -> Rules:
    """The part of the settings that the plan goes by."""
    names = [item.name for item in dataclasses.fields(Rules) if hasattr(settings, item.name)]
    values = {name: getattr(settings, name) for name in names}
    if mutants.enabled("no-drain"):
        values["drain_timeout"] = 0.0
    values["awaits"] = settings.watch or settings.cron_restart is not None
    values["program"] = settings.is_preloaded
    values["loads"] = not settings.is_program
    values["word_wanted"] = settings.wait_ready
    return Rules(**values, boot_at_once=max(4, 2 * cores))


def reload_options(settings: Settings, said: dict[str, Any]) -> ReloadOptions:
    """Of the settings, unless said; ConfigError for a wrong one."""
    names = [item.name for item in dataclasses.fields(ReloadOptions)]
    for name, value in said.items():
        if name not in names:
            raise ConfigError(f"reload has no option {name!r}", hint=f"one of {', '.join(names)}")
        kinds = (int, float) if name == "probation" else type(getattr(settings, name))
        if not isinstance(value, kinds) or (name in ("batch", "probation") and value < 0):
            raise ConfigError(f"reload: {name} cannot be {value!r}")
    merged = {name: getattr(settings, name) for name in names} | said
    merged["batch"] = max(1, merged["batch"])
    if mutants.enabled("no-probation"):
        merged["probation"] = 0.0
    return ReloadOptions(**merged)


def bind_all(settings: Settings) -> list[ListeningSocket]:
    """Every listener, or an error and none."""
    ours = settings.listen and not settings.is_preloaded
    wanted = settings.bind if ours else ()
    if len(wanted) > MAX_LISTENERS:
        raise ConfigError(f"{len(wanted)} addresses to listen on", hint=f"at most {MAX_LISTENERS}")
    listeners: list[ListeningSocket] = []
    try:
        for text in wanted:
            listeners.append(_bind(parse(text), settings.backlog, listeners))
    except Error:
        close_all(listeners)
        raise
    return listeners


def _bind(address: Address, backlog: int, others: list[ListeningSocket]) -> ListeningSocket:
    """One listener; who holds its place may be another one of this service."""
    try:
        return bind(address, backlog)
    except BindError:
        for other in map(bound_address, others):
            if same_place(address, other):
                raise BindError(
                    f"cannot listen on {address}: this service listens on {other} already",
                    hint="leave one of them out",
                ) from None
        raise


def close_all(listeners: list[ListeningSocket]) -> None:
    """What a start that failed had opened."""
    for sock in listeners:
        sock.unlink()
        sock.close()
