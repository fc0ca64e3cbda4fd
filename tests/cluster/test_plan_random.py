"""Anything may happen at any time: the plan keeps its promises all the same."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from rrdispatch.cluster import actions as act
from rrdispatch.cluster import news
from rrdispatch.cluster.lifecycle import State
from rrdispatch.cluster.view import ReloadOptions, Rules
from tests.cluster.fake import Bench, Script

RULES = Rules(ready_timeout=5.0, drain_timeout=4.0, max_restarts=0)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["die", "die", "reload", "reload", "scale", "recycle", "leave", "hang", "wait", "stop"]
        ),
        st.integers(0, 1 << 16),
    ),
    max_size=25,
)


class Chaos:
    """A bench on which things happen by a seed; watched at every action."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.bench = Bench(3, RULES, script=self.script)
        self.bench.world.note = self.watch  # type: ignore[method-assign]
        self.calm = False
        self.reloads = 0
        self.stopped = False

    def script(self, spawn: act.Spawn) -> Script:
        """Most workers are well; some die, some are silent, some are slow to end."""
        if self.calm:
            return Script()
        chance = self.random.random()
        if chance < 0.15:
            return Script(ready=None, dies=self.random.random())
        if chance < 0.2:
            return Script(ready=None)
        if chance < 0.3:
            return Script(dies=self.random.random() * 5)
        return Script(drains=self.random.choice([0.01, 0.01, 2.0, 9.0]), queue=0.2)

    def watch(self) -> None:
        view = self.bench.view
        for slot in view.slots:
            alive = [worker for worker in view.of_slot(slot) if worker.alive]
            if any(worker.state in (State.READY, State.PARKED) for worker in alive):
                assert len({worker.generation for worker in alive}) <= 2
            live = [worker for worker in view.of_slot(slot) if worker.live]
            assert len(live) <= 4
            assert sum(worker.state is State.STARTING for worker in live) <= 2

    def step(self, what: str, number: int) -> None:
        view, bench = self.bench.view, self.bench
        alive = sorted(worker.id for worker in view.alive)
        if what == "wait":
            bench.world.run(seconds=number % 8000 / 1000)
        elif what == "reload":
            self.reloads += 1
            options = ReloadOptions(
                batch=1 + number % 3, park=bool(number & 4), stop_first=number % 7 == 0,
                probation=number % 3,
            )  # fmt: skip
            bench.tell(news.ReloadAsked(self.reloads, options))
        elif what == "scale":
            bench.tell(news.ScaleAsked(1 + number % 6))
        elif what == "stop" and number % 4 == 0:
            self.stopped = True
            bench.tell(news.StopAsked())
        elif alive:
            worker = alive[number % len(alive)]
            kind = {"die": news.Exited, "recycle": news.Recycle, "leave": news.Leaves}
            if what == "die":
                bench.tell(news.Exited(worker, "SIGKILL"))
            else:
                bench.tell(kind.get(what, news.Hung)(worker))


@settings(max_examples=300)
@given(STEPS, st.integers(0, 1 << 30))
def test_whatever_happens(steps: list[tuple[str, int]], seed: int) -> None:
    chaos = Chaos(seed)
    bench = chaos.bench
    bench.engine.settle()
    for what, number in steps:
        if not bench.view.finished:
            bench.world.run(seconds=0.3)
            chaos.step(what, number)
    chaos.calm = True
    bench.world.run(seconds=600)
    told = {finish.token for finish in bench.world.finishes("reload")}
    assert told == set(range(1, chaos.reloads + 1)), "every reload has its result"
    started = bench.world.finishes("start")
    assert len(started) == 1
    if bench.view.finished:
        assert chaos.stopped or started[0].failure is not None
        assert not bench.view.alive
    else:
        generation = bench.view.generation
        assert bench.states() == {slot: [(generation, "ready")] for slot in bench.view.slots}
        assert len(bench.view.workers) == bench.view.wanted
