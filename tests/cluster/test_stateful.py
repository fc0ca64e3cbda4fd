"""Anything may happen, in any order, at any time: the plan keeps its promises at every step.

``Outside`` keeps its own books and judges each action; ``Chaos`` lets things happen. Invariants:

1. None is spawned that makes three generations in a slot, unless nobody serves at all; never are
   there more than three live workers in a slot.
2. A worker that serves is given up only when another of its slot serves, or it has to go: its
   slot was scaled away, it said so, it is to blame, the reload is ``stop_first``, or all stops.
3. Nobody is forgotten: what lives is in the view; what drains has a deadline and is killed by it.
4. Every dead worker is removed exactly once, nobody is killed or asked to stop twice.
5. Every operation has exactly one result, and only one is under way.
6. A slot is errored only after more than ``max_restarts`` ends in the window; the service ends by
   itself only when it could not start, or when nobody serves.
7. Nothing is spawned for a slot that is not wanted, during a stop, or of a withdrawn generation.
8. A reload succeeds only after every slot had its new worker for ``probation``.
9. When the world is calm it converges: one ready worker of the proven generation in every slot but
   those that were given up or have ended for good.
10. A stop ends in ``shutdown_delay`` + ``drain_timeout``, whoever does not answer.
11. One at a time is replaced because of its memory.
"""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rrdispatch.cluster import actions as act
from rrdispatch.cluster import news
from rrdispatch.cluster.lifecycle import State
from rrdispatch.cluster.view import Failure, Reload, ReloadOptions, Rules, Start, Stop, View
from tests.cluster.outside import Outside, Process, counted

EXAMPLES, STEPS = 150, 60


class Chaos(RuleBasedStateMachine):
    """Rules are what may happen; invariants are checked after each."""

    def __init__(self) -> None:
        super().__init__()
        self.outside = Outside()
        self.tokens = 0
        self.seen_errored: set[int] = set()

    @property
    def view(self) -> View:
        return self.outside.view

    @initialize(
        slots=st.integers(1, 5),
        seed=st.integers(0, 99),
        listen=st.sampled_from([True, True, True, False]),
        most=st.sampled_from([0, 0, 2, 3]),
        stops=st.booleans(),
        booted=st.sampled_from([True, True, False]),
        ends=st.sampled_from([{}, {}, {}, {"autorestart": False}, {"stop_exit_codes": (0,)}]),
    )
    def begin(
        self, slots: int, seed: int, listen: bool, most: int, stops: bool, booted: bool, ends: Any
    ) -> None:
        rules = Rules(
            ready_timeout=5.0, drain_timeout=4.0, shutdown_delay=0.5 * (seed % 2),
            max_restarts=most, boot_at_once=2 + seed % 3, listen=listen, **ends,
        )  # fmt: skip
        self.stops = stops
        self.outside.begin(slots, rules, seed)
        if booted:
            self.outside.calm(10.0)

    def alive(self, number: int) -> Process | None:
        found = [process for process in self.outside.processes.values() if process.alive]
        return found[number % len(found)] if found else None

    # ---- what workers do -----------------------------------------------------------------------

    @rule(number=st.integers(0, 99))
    def ready(self, number: int) -> None:
        boot = [p for p in self.outside.processes.values() if p.alive and not p.said_ready]
        if boot:
            process = boot[number % len(boot)]
            process.said_ready = True
            self.outside.tell(news.Ready(process.id))

    @rule(number=st.integers(0, 99), error=st.booleans())
    def die(self, number: int, error: bool) -> None:
        process = self.alive(number)
        if process is not None:
            if error:
                self.outside.tell(news.Erred(process.id, {"message": "no database"}))
            self.outside.exits(process, "exit code 1")

    @rule()
    def all_die(self) -> None:
        for process in list(self.outside.processes.values()):
            if process.alive:
                self.outside.exits(process, "killed by SIGKILL")

    @precondition(lambda self: isinstance(self.view.operation, Reload))
    @rule(number=st.integers(0, 99))
    def a_new_one_dies(self, number: int) -> None:
        """What a reload is rolled back for."""
        latest = self.view.last_generation
        found = [p for p in self.outside.processes.values() if p.alive and p.generation == latest]
        if found:
            self.outside.exits(found[number % len(found)], "exit code 1")

    @precondition(lambda self: isinstance(self.view.operation, Reload))
    @rule(number=st.integers(0, 99))
    def a_new_one_dies_on_probation(self, number: int) -> None:
        """Who was parked for it serves again."""
        latest = self.view.last_generation
        found = [p for p in self.outside.processes.values() if p.alive and p.generation == latest]
        if not found:
            return
        process = found[number % len(found)]
        if not process.said_ready:
            process.said_ready = True
            self.outside.tell(news.Ready(process.id))
        if process.alive:
            self.outside.exits(process, "exit code 1")

    @rule(number=st.integers(0, 99))
    def hang(self, number: int) -> None:
        process = self.alive(number)
        if process is not None:
            process.excused = True
            self.outside.tell(news.Hung(process.id))

    @rule(number=st.integers(0, 99))
    def recycle(self, number: int) -> None:
        process = self.alive(number)
        if process is not None:
            self.outside.tell(news.Recycle(process.id))

    @rule(number=st.integers(0, 99))
    def outgrow(self, number: int) -> None:
        process = self.alive(number)
        if process is not None:
            before = self.replaced_for_memory()
            self.outside.tell(news.Outgrown(process.id))
            more = self.replaced_for_memory() - before
            assert not more or not before, "one at a time"

    def replaced_for_memory(self) -> set[int]:
        """Those of them that are alive; without slots that were given up."""
        errored = {slot.index for slot in self.view.slots.values() if slot.errored}
        found = [w for w in self.view.workers.values() if w.outgrown and w.alive]
        return {worker.id for worker in found if worker.slot not in errored}

    @rule(number=st.integers(0, 99))
    def leave(self, number: int) -> None:
        process = self.alive(number)
        if process is not None:
            self.outside.leaves(process)

    @rule(number=st.integers(0, 99))
    def leaver_exits(self, number: int) -> None:
        going = [p for p in self.outside.processes.values() if p.alive and p.asked]
        if going:
            self.outside.exits(going[number % len(going)], "exit code 0")

    @rule(
        kind=st.sampled_from(
            [news.Ready, news.Recycle, news.Outgrown, news.Leaves, news.Hung, news.Drained]
        )
    )
    def a_dead_one_speaks(self, kind: Any) -> None:
        """Its children may hold its socket; the dispatcher's messages may come late."""
        for process in self.outside.processes.values():
            if not process.alive:
                self.outside.tell(kind(process.id))
        self.outside.tell(kind(10**6))

    @rule(count=st.integers(1, 6))
    def no_more_processes(self, count: int) -> None:
        """EAGAIN: the next spawns fail."""
        self.outside.failing_spawns = count

    # ---- what comes of actions -----------------------------------------------------------------

    @rule(number=st.integers(0, 99))
    def outcome(self, number: int) -> None:
        if self.outside.outcomes:
            self.outside.deliver(self.outside.outcomes[number % len(self.outside.outcomes)])

    @rule(seconds=st.sampled_from([0.3, 1.0, 5.0]))
    def a_while_all_is_well(self, seconds: float) -> None:
        self.outside.calm(seconds)

    # ---- time ----------------------------------------------------------------------------------

    @rule(milliseconds=st.integers(1, 8000))
    def wait(self, milliseconds: int) -> None:
        self.outside.passes(milliseconds / 1000)

    @rule(seconds=st.sampled_from([1.0, 30.0, 7200.0]))
    def leap(self, seconds: float) -> None:
        self.outside.leap(seconds)

    @rule(seconds=st.sampled_from([1.5, 40.0, 7200.0]))
    def sleep(self, seconds: float) -> None:
        self.outside.sleeps(seconds)

    # ---- what is asked -------------------------------------------------------------------------

    @rule(
        batch=st.integers(1, 4), park=st.booleans(), first=st.sampled_from([False, False, True]),
        probation=st.sampled_from([0.0, 0.2, 3.0]),
    )  # fmt: skip
    def reload(self, batch: int, park: bool, first: bool, probation: float) -> None:
        self.tokens += 1
        options = ReloadOptions(batch=batch, park=park, stop_first=first, probation=probation)
        self.outside.tell(news.ReloadAsked(self.tokens, options))

    @rule(wanted=st.integers(1, 6))
    def scale(self, wanted: int) -> None:
        for slot in range(wanted, self.view.wanted):
            self.seen_errored.discard(slot)
        self.outside.tell(news.ScaleAsked(wanted))

    @precondition(lambda self: self.stops)
    @rule(sure=st.integers(0, 7), failure=st.booleans())
    def stop(self, sure: int, failure: bool) -> None:
        if sure == 0:
            self.outside.ending = True
            self.outside.failing |= failure and not self.view.finished
            why = Failure("the dispatcher cannot live") if failure else None
            self.outside.tell(news.StopAsked(why))

    @precondition(lambda self: self.stops)
    @rule(sure=st.integers(0, 11))
    def kill(self, sure: int) -> None:
        if sure == 0:
            self.outside.ending = True
            self.outside.tell(news.KillAsked())

    # ---- invariants ----------------------------------------------------------------------------

    @invariant()
    def few_workers(self) -> None:
        counted["steps"] += 1
        slots: dict[int, list[Process]] = {}
        for process in self.outside.processes.values():
            if process.alive:
                slots.setdefault(process.slot, []).append(process)
        for found in slots.values():
            live = [p for p in found if self.view.workers[p.id].live]
            assert len(live) <= 3
            assert sum(process.serves for process in found) <= 1 or self.outside.ending

    @invariant()
    def nobody_is_forgotten(self) -> None:
        view = self.view
        for process in self.outside.processes.values():
            worker = view.workers.get(process.id)
            assert worker is not None or process.removed
            if worker is None:
                continue
            assert worker.alive == process.alive
            assert (worker.state is State.READY) == process.serves
            if not view.finished:
                assert process.alive or process.removed, "a dead worker stays"
            if worker.state in (State.DRAINING, State.STOPPING):
                assert worker.asked_at is not None
                assert self.outside.clock < worker.asked_at + view.rules.drain_timeout
                assert self.outside.woken is not None

    @invariant()
    def one_result_each(self) -> None:
        operation, queued = self.view.operation, self.view.queued
        open_tokens = {each.token for each in (operation, queued) if isinstance(each, Reload)}
        told = {token for name, token in self.outside.results if name == "reload"}
        assert told | open_tokens == set(range(1, self.tokens + 1))
        assert not told & open_tokens
        assert (self.outside.results["start", 0] == 1) != isinstance(operation, Start)
        assert not self.view.ended

    @invariant()
    def errored_only_after_many_ends(self) -> None:
        rules = self.view.rules
        errored = {slot.index for slot in self.view.slots.values() if slot.errored}
        for index in errored - self.seen_errored:
            last = self.outside.ends[index][-1]
            recent = [at for at in self.outside.ends[index] if at > last - rules.restart_window]
            assert len(recent) > rules.max_restarts > 0
        self.seen_errored = errored

    def teardown(self) -> None:
        if hasattr(self.outside, "view"):
            self._converges()
            self._ends()

    def _converges(self) -> None:
        view = self.view
        self.outside.calm(3600.0)
        if isinstance(view.operation, Stop) or view.finished:
            assert view.finished
            return
        assert view.operation is None
        assert view.queued is None
        for slot in view.slots.values():
            found = [(w.generation, w.state) for w in view.of_slot(slot.index)]
            if not slot.closed:
                assert found == [(view.generation, State.READY)]
            assert len(found) <= 1
        assert len(view.workers) <= view.wanted

    def _ends(self) -> None:
        """Nobody does what he is told, but the kernel."""
        outside, rules = self.outside, self.view.rules
        began = outside.clock
        outside.ending = True
        outside.tell(news.StopAsked())
        while not self.view.finished:
            assert outside.clock <= began + rules.shutdown_delay + rules.drain_timeout + 0.1
            for told in list(outside.outcomes):
                if isinstance(told, news.Exited):
                    outside.deliver(told)
            outside.passes(max(0.01, (outside.woken or 0) - outside.clock))
        assert not [process for process in outside.processes.values() if process.alive]
        assert outside.results["stop", 0] == 1
        results = outside.results.items()
        assert sum(count for (name, _), count in results if name == "reload") == self.tokens


def test_whatever_happens() -> None:
    counted.clear()
    bounds = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, derandomize=True)
    # What is drawn depends on the class' name, and on the constants of whatever modules are loaded.
    # One draw in eight meets no Unpark: a few more, of which hardly ever one is needed.
    for turn in range(10):
        run_state_machine_as_test(type(f"Chaos{turn}", (Chaos,), {}), settings=bounds)
        never = [kind.__name__ for kind in get_args(act.Action) if not counted[kind.__name__]]
        if not never:
            break
    assert counted["steps"] >= 5000, counted
    assert not never
