"""A world without processes: workers are scripts, time passes at once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from rrdispatch.cluster import actions as act
from rrdispatch.cluster import news
from rrdispatch.cluster.engine import Engine
from rrdispatch.cluster.lifecycle import State
from rrdispatch.cluster.view import Finish, ReloadOptions, Rules, Start, View


@dataclass
class Script:
    """What a worker will do: seconds after its spawn, or None for never."""

    ready: float | None = 0.5
    loaded: float | None = None
    dies: float | None = None
    drains: float = 0.01  # from the stop signal to the exit; infinity = ignores it
    queue: float = 0.001  # until the dispatcher says that its queue is empty
    killed: float = 0.001  # from SIGKILL to the exit


@dataclass
class FakeWorld:
    """Carries out actions by scheduling what comes of them."""

    script: Callable[[act.Spawn], Script] = lambda spawn: Script()
    clock: float = 1000.0
    timers: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    log: list[tuple[float, act.Action]] = field(default_factory=list)
    woken: float | None = None
    missed: float = 0.0
    closes_in: float = 0.1
    fewest_serving: int | None = None

    def __post_init__(self) -> None:
        self.engine: Engine | None = None
        self.scripts: dict[int, Script] = {}

    def now(self) -> float:
        return self.clock

    def slept(self) -> float:
        missed, self.missed = self.missed, 0.0
        return missed

    def wake_at(self, when: float | None) -> None:
        self.woken = when

    def later(self, delay: float, told: news.News) -> None:
        assert self.engine is not None
        if delay != float("inf"):
            self.timers.append((self.clock + delay, len(self.log), lambda: self.deliver(told)))

    def deliver(self, told: news.News) -> None:
        assert self.engine is not None
        worker = getattr(told, "worker", None)
        known = self.engine.view.workers.get(worker) if worker is not None else None
        over = known is None or known.state in (State.DEAD, State.GONE)
        if worker is None or not over or isinstance(told, news.Removed):
            self.engine.tell(told)

    def perform(self, action: act.Action) -> None:
        self.log.append((self.clock, action))
        match action:
            case act.Spawn(worker=worker):
                script = self.scripts[worker] = self.script(action)
                if script.ready is not None:
                    self.later(script.ready, news.Ready(worker))
                if script.loaded is not None:
                    self.later(script.loaded, news.Loaded(worker))
                if script.dies is not None:
                    self.later(script.dies, news.Exited(worker, "exit code 1"))
            case act.Drain(worker=worker):
                self.later(self.scripts[worker].queue, news.Drained(worker))
            case act.AskToStop(worker=worker):
                self.later(self.scripts[worker].drains, news.Exited(worker, "exit code 0"))
            case act.Kill(worker=worker):
                self.later(self.scripts[worker].killed, news.Exited(worker, "SIGKILL"))
            case act.Remove(worker=worker):
                self.later(0.001, news.Removed(worker))
            case act.CloseListeners():
                self.later(self.closes_in, news.ListenersClosed())
        self.note()

    def note(self) -> None:
        if self.fewest_serving is not None and self.engine is not None:
            self.fewest_serving = min(self.fewest_serving, len(self.engine.view.serving))

    def run(self, seconds: float = 1e9, until: Callable[[], bool] = lambda: False) -> None:
        """Lets time pass: at most ``seconds``, until nothing is to come or ``until``."""
        assert self.engine is not None
        end = self.clock + seconds
        for _ in range(200_000):
            self.engine.settle()
            self.note()
            if until() or self.engine.view.finished:
                return
            dues = [timer[0] for timer in self.timers]
            if self.woken is not None:
                dues.append(self.woken)
            if not dues or min(dues) > end:
                self.clock = end if end < 1e8 else self.clock
                return
            self.clock = max(self.clock, min(dues))
            self.timers.sort(key=lambda timer: timer[:2])
            while self.timers and self.timers[0][0] <= self.clock:
                self.timers.pop(0)[2]()
        raise AssertionError("the world never comes to rest")

    def of(self, *kinds: type) -> list[Any]:
        return [action for _, action in self.log if isinstance(action, kinds)]

    def times(self, kind: type) -> list[float]:
        return [at for at, action in self.log if isinstance(action, kind)]

    def finishes(self, operation: str) -> list[Finish]:
        told = [a.finish if isinstance(a, act.Fail) else a for _, a in self.log]
        return [f for f in told if isinstance(f, Finish) and f.operation == operation]


class Bench:
    """An engine on a fake world, and short words for the tests."""

    def __init__(self, slots: int = 4, rules: Rules | None = None, **world: object) -> None:
        self.world = FakeWorld(**world)  # type: ignore[arg-type]
        self.view = View(rules or Rules(), slots, random=random.Random(1))
        self.view.operation = Start()
        self.engine = self.world.engine = Engine(self.view, self.world)
        self.token = 0

    def started(self) -> Bench:
        self.world.run(until=lambda: bool(self.world.finishes("start")))
        self.world.log.clear()
        return self

    def reload(self, **options: object) -> int:
        self.token += 1
        self.engine.tell(news.ReloadAsked(self.token, ReloadOptions(**options)))  # type: ignore[arg-type]
        return self.token

    def result(self, token: int) -> Finish:
        """Lets time pass until the reload is over."""
        self.world.run(until=lambda: any(f.token == token for f in self.world.finishes("reload")))
        return next(f for f in self.world.finishes("reload") if f.token == token)

    def tell(self, told: news.News) -> None:
        self.engine.tell(told)

    def states(self) -> dict[int, list[tuple[int, str]]]:
        """Per slot: (generation, state) of all that is not dead."""
        slots: dict[int, list[tuple[int, str]]] = {}
        for worker in self.view.workers.values():
            if worker.alive:
                slots.setdefault(worker.slot, []).append((worker.generation, worker.state.value))
        return slots

    def worker(self, slot: int, generation: int | None = None) -> int:
        """The id of the newest live worker of a slot."""
        return max(
            w.id for w in self.view.of_slot(slot) if w.alive and generation in (None, w.generation)
        )


def index(actions: Iterable[act.Action], kind: type) -> int:
    """Where the first action of a kind is."""
    return next(i for i, action in enumerate(actions) if isinstance(action, kind))
