"""The one door: every event of the primary comes in here, the plan's actions go out. No I/O."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from rrdispatch.cluster.actions import Action, enact
from rrdispatch.cluster.news import News, Slept, apply
from rrdispatch.cluster.plan import plan
from rrdispatch.cluster.view import View


class World(Protocol):
    """What the plan acts on: processes and a dispatcher, or a fake of them."""

    def now(self) -> float:
        """Seconds of a monotonic clock."""

    def slept(self) -> float:
        """Seconds for which we did not run, of which it was not asked yet."""

    def wake_at(self, when: float | None) -> None:
        """Call ``Engine.settle`` at ``when``; replaces what was asked before."""

    def perform(self, action: Action) -> None:
        """Does it, or begins to; what comes of it is told to the engine."""


class Engine:
    """Applies news to the view and carries out plans until there is nothing to do."""

    def __init__(self, view: View, world: World) -> None:
        self.view = view
        self._world = world
        self._news: deque[News] = deque()
        self._settling = False

    def tell(self, news: News) -> None:
        """Something happened. Safe to call while an action is being performed."""
        self._news.append(news)
        self.settle()

    def settle(self) -> None:
        """Plans and acts until the view is as it should be at this moment."""
        if self._settling:
            return
        self._settling = True
        try:
            while self._once():
                pass
        finally:
            self._settling = False

    def _once(self) -> bool:
        """What was missed comes first: news may wait that say that a deadline was kept; and the
        last action may have been what we were stopped in.
        """
        if seconds := self._world.slept():
            self._news.appendleft(Slept(seconds))
        while self._news:
            apply(self._news.popleft(), self.view, self._world.now())
        now = self._world.now()
        planned = plan(self.view, now)
        for action in planned.actions:
            enact(action, self.view, now)
            self._world.perform(action)
            if self._news:  # the rest of the plan may no longer fit
                return True
        if not planned.actions:
            self._world.wake_at(planned.deadline)
        return bool(planned.actions)
