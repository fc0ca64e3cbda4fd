"""Supervisor: the primary's loop object. Requests in, results out; the plan decides the rest.

One asyncio loop and no thread. Must not know how it is reached: the CLI and the control plane call
the same few methods.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

from rrdispatch import cpus
from rrdispatch.checks import MOST_WORKERS
from rrdispatch.cluster import actions as act
from rrdispatch.cluster import memory, news, report
from rrdispatch.cluster.engine import Engine
from rrdispatch.cluster.events import Events, OnEvent
from rrdispatch.cluster.launch import Launch, Origin, resolve
from rrdispatch.cluster.operations import Operations, ReloadResult
from rrdispatch.cluster.signals import Signals
from rrdispatch.cluster.view import Failure, Finish, ReloadOptions, Rules, Start, View
from rrdispatch.cluster.watching import Watching, require
from rrdispatch.cluster.world import Owner, ProcessWorld
from rrdispatch.errors import ConfigError, Error
from rrdispatch.net.addresses import parse
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
    ) -> None:
        self.settings = settings
        self.events = Events(on_event)
        self._make_world = world
        self._with_signals = signals
        self._origin = Origin.here()
        self._launches: dict[int, Launch] = {}
        self._addresses: list[str] = []
        self._stop_asked = False
        self._watching: Watching | None = None

    async def run(self) -> int:
        """Serves until the end: 0 after a stop, an Error if it could not start or go on."""
        workers = cpus.count(self.settings.instances, cpus.detect()).workers
        if self.settings.watch:
            require()
        self._launches[1] = resolve(self.settings, self._origin)
        self.operations = Operations(self.events)
        listeners = self._bind()
        try:
            self._make(listeners, workers)
        except BaseException:
            _close_all(listeners)
            raise
        signals = Signals(self) if self._with_signals else None
        try:
            self.events.tell("listening", listeners=self.world.told_listeners, workers=workers)
            self.engine.settle()
            self._watch()
            error = await self.operations.done
        finally:
            if signals is not None:
                signals.close()
            if self._watching is not None:
                self._watching.close()
            await self.world.close()
        self.events.tell("stopped", code=error.exit_code if error else 0)
        if error is not None:
            raise error
        return 0

    def _bind(self) -> list[ListeningSocket]:
        listeners: list[ListeningSocket] = []
        try:
            for text in self.settings.bind if self.settings.listen else ():
                listeners.append(bind(parse(text), self.settings.backlog))  # noqa: PERF401
        except Error:
            _close_all(listeners)
            raise
        self._addresses = [str(bound_address(sock)) for sock in listeners]
        return listeners

    def _make(self, listeners: list[ListeningSocket], workers: int) -> None:
        owner = Owner(
            self.settings, self.events, self._launch, self._operation, self._died, self._failed
        )
        self.view = View(rules_of(self.settings), workers, operation=Start())
        self.world = self._make_world(owner, listeners)
        self.world.engine = self.engine = Engine(self.view, self.world)

    def _watch(self) -> None:
        folders, cwd = self.settings.watch_paths, self._launches[1].cwd
        if self.settings.watch:
            self._watching = Watching(folders, cwd, self._files_changed, self._watcher_ended)

    def _files_changed(self, paths: list[str]) -> None:
        """Development: no probation, and an error is only told."""
        if not self._stop_asked:
            self.events.tell("files-changed", f"reload: {paths[0]} has changed", paths=paths)
            self.reload(probation=0.0)

    def _watcher_ended(self, how: str) -> None:
        self.events.tell("warning", f"the watcher ended: {how}", hint="changes are not seen")

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
        why = self._parking_would_not_fit() if wanted.park and not wanted.stop_first else ""
        if why:
            wanted = dataclasses.replace(wanted, park=False)
            notes = (why,)
            self.events.tell("warning", why, hint="use --no-park to choose that yourself")
        token, future = self.operations.new_reload(notes)
        self.engine.tell(news.ReloadAsked(token, wanted))
        return future

    def _parking_would_not_fit(self) -> str:
        free = memory.available()
        takes = [memory.pss(self.world.handles[w.id].pid) for w in self.view.serving]
        if free is None or not takes or (need := max(takes) * self.view.wanted) <= free.free:
            return ""
        return (
            f"not parking the old workers: {self.view.wanted} new ones need about "
            f"{need >> 20} MiB, and the memory limit leaves {free.free >> 20} MiB"
        )

    def scale(self, workers: int) -> None:
        """So many slots; the highest go first."""
        if not 1 <= workers <= MOST_WORKERS:
            raise ConfigError(f"{workers} workers", hint=f"a number from 1 to {MOST_WORKERS}")
        self.events.tell("scaled", f"scaled to {workers} workers", workers=workers)
        self.engine.tell(news.ScaleAsked(workers))

    def stop(self) -> None:
        """Drains and ends; a second time ends now."""
        if self._stop_asked:
            self.kill()
            return
        self._stop_asked = True
        self.events.tell("stopping", "stopping: the workers finish what they have")
        self.engine.tell(news.StopAsked())

    def kill(self) -> None:
        """Ends now."""
        self._stop_asked = True
        self.engine.tell(news.KillAsked())

    def stats(self) -> dict[str, Any]:
        """The view from outside; the dispatcher's counters are at most a quarter second old."""
        return report.stats(self.settings, self.view, self.world, self._addresses)

    async def fresh_stats(self) -> dict[str, Any]:
        """The same with the dispatcher's counters of now."""
        await self.world.dispatching.refresh()
        return self.stats()

    # ---- by signal -----------------------------------------------------------------------------

    def reload_or_hang_up(self, terminal_gone: bool) -> None:
        """SIGHUP: a reload, or the end if the terminal that we were started on is gone."""
        if terminal_gone:
            self.stop()
        else:
            self.events.tell("reloading", "reload by SIGHUP")
            self.reload()

    def scale_by(self, change: int) -> None:
        """SIGTTIN, SIGTTOU; at the ends of the range nothing happens."""
        if 1 <= self.view.wanted + change <= MOST_WORKERS:
            self.scale(self.view.wanted + change)

    def reap_orphans(self) -> None:
        """SIGCHLD, where we adopt."""
        watching = self._watching
        self.world.reap_orphans(watching.reap_if_ours if watching is not None else _nobodys)

    # ---- what the world tells ------------------------------------------------------------------

    def _launch(self, generation: int) -> Launch:
        """The facts of a generation, found when its first worker is started."""
        if generation not in self._launches:
            self._launches = {
                key: launch for key, launch in self._launches.items() if key == self.view.generation
            }
            self._launches[generation] = resolve(self.settings, self._origin)
        return self._launches[generation]

    def _died(self, worker: int, tail: asyncio.Future[str]) -> None:
        known = self.view.workers.get(worker)
        self.operations.died(worker, known.error if known else None, tail)

    def _failed(self, error: Error) -> None:
        """The service cannot go on, whatever the plan thinks."""
        self.operations.fatal = error
        self.engine.tell(news.StopAsked(Failure(error.message)))

    def _operation(self, action: act.Action) -> None:
        if isinstance(action, act.BeginReload):
            self.events.tell("reload-begun", generation=self.view.last_generation)
        elif isinstance(action, act.Fail):
            self.operations.finish(action.finish, self.view)
        elif isinstance(action, Finish):
            self.operations.finish(action, self.view)


def rules_of(settings: Settings) -> Rules:
    """The part of the settings that the plan goes by."""
    names = [item.name for item in dataclasses.fields(Rules)]
    return Rules(**{name: getattr(settings, name) for name in names})


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
    return ReloadOptions(**merged)


def _nobodys(_pid: int) -> bool:
    return False


def _close_all(listeners: list[ListeningSocket]) -> None:
    for sock in listeners:
        sock.unlink()
        sock.close()
