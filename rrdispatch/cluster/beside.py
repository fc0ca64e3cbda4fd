"""What stands beside the plan and asks things of it: changed files, memory, the hour.

Made from the settings, closed with the service. Each says what it sees; the plan decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rrdispatch.cluster import watching
from rrdispatch.cluster.engine import Engine
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.memwatch import MemoryWatch
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
    reload: Callable[[], object]


def require(settings: Settings) -> None:
    """MissingExtraError where something that is asked for cannot be had."""
    if settings.watch:
        watching.require()


class Beside:
    """All of them that the settings ask for."""

    def __init__(self, asks: Asks) -> None:
        settings = asks.settings
        self._watching: watching.Watching | None = None
        self._memory: MemoryWatch | None = None
        if settings.watch:
            folders = settings.watch_paths
            self._watching = watching.Watching(folders, asks.cwd, asks.reload, asks.events)
        if settings.max_memory_restart:
            self._memory = MemoryWatch(settings.max_memory_restart, asks.world.workers, asks.engine)

    def reap_if_ours(self, pid: int) -> bool:
        """For a PID 1 that peeks at every child."""
        return self._watching is not None and self._watching.reap_if_ours(pid)

    def close(self) -> None:
        for each in (self._watching, self._memory):
            if each is not None:
                each.close()
