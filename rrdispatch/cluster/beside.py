"""What stands beside the plan and asks things of it: changed files, memory, the hour.

Made from the settings, closed with the service. Each says what it sees; the plan decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rrdispatch.cluster import cron, watching
from rrdispatch.cluster.engine import Engine
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.memwatch import MemoryWatch
from rrdispatch.cluster.unseen import Unseen
from rrdispatch.cluster.world import ProcessWorld
from rrdispatch.settings import Settings


@dataclass(slots=True)
class Asks:
    """What they look at, and what they may ask for."""

    settings: Settings
    events: Events
    engine: Engine
    world: ProcessWorld
    cwd: str  # of the workers
    reload: Callable[[], object]  # at once: somebody waits for it
    reload_as_set: Callable[[], object]


def require(settings: Settings) -> None:
    """An Error where something that is asked for cannot be had."""
    if settings.watch:
        watching.require()
    cron.require(settings.cron_restart)


class Beside:
    """All of them that the settings ask for."""

    def __init__(self, asks: Asks) -> None:
        settings = asks.settings
        self._watching: watching.Watching | None = None
        self._memory: MemoryWatch | None = None
        if settings.watch:
            told = watching.what(settings, asks.cwd)
            self._watching = watching.Watching(told, asks.reload, asks.events)
        if settings.max_memory_restart:
            self._memory = MemoryWatch(settings.max_memory_restart, asks.world.workers, asks.engine)

        self._unseen: Unseen | None = None
        if settings.is_preloaded and not settings.wait_ready:
            self._unseen = Unseen(settings.take, asks.world.workers, asks.engine)
        self._asks = asks
        self._cron: cron.Cron | None = None
        if settings.cron_restart is not None:
            self._cron = cron.Cron(settings.cron_restart, self._hour_has_come)

    def _hour_has_come(self) -> None:
        """Whatever is under way gives new workers, or ends them all."""
        asks = self._asks
        text = f"reload: it is time ({asks.settings.cron_restart})"
        if asks.engine.view.operation is not None:
            asks.events.tell("cron", f"no {text}, but another operation is under way", reload=False)
            return
        asks.events.tell("cron", text, reload=True)
        asks.reload_as_set()

    def reap_if_ours(self, pid: int) -> bool:
        """For a PID 1 that peeks at every child."""
        return self._watching is not None and self._watching.reap_if_ours(pid)

    def close(self) -> None:
        for each in (self._watching, self._memory, self._cron, self._unseen):
            if each is not None:
                each.close()
