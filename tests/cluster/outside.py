"""A world for the plan that keeps its own books, and judges every action as it comes.

Processes, dispatcher and clock in one. Nothing happens by itself: what may come of an action is
kept in ``outcomes`` until somebody tells it.
"""

from __future__ import annotations

import collections
import random
from dataclasses import dataclass, field

from rrdispatch.cluster import actions as act
from rrdispatch.cluster import news
from rrdispatch.cluster.engine import Engine
from rrdispatch.cluster.lifecycle import State
from rrdispatch.cluster.view import Finish, Reload, Rules, Start, View

MOST_ACTIONS = 500  # of one settling: more is a plan that never rests

counted: collections.Counter[str] = collections.Counter()


@dataclass
class Process:
    """A worker, as the world sees it."""

    id: int
    slot: int
    generation: int
    alive: bool = True
    serves: bool = False
    parked: bool = False
    said_ready: bool = False
    excused: bool = False  # it may go: it said so, or it is to blame
    let_go: bool = False  # its end is wanted, or was counted already
    decides: bool = False  # how it ends counts, whatever is wanted of it meanwhile
    ready_at: float = 0.0
    asked: bool = False
    killed: bool = False
    removed: bool = False


FIRST = Process(0, 0, 1)


@dataclass
class Outside:
    """Carries out actions by noting what may come of them: ``outcomes``, told when a rule says."""

    clock: float = 1000.0
    woken: float | None = None
    missed: float = 0.0
    view: View = field(init=False)
    engine: Engine = field(init=False)
    processes: dict[int, Process] = field(default_factory=dict)
    outcomes: list[news.News] = field(default_factory=list)
    results: collections.Counter[tuple[str, int]] = field(default_factory=collections.Counter)
    ends: dict[int, list[float]] = field(default_factory=dict)  # per slot: exits and goodbyes
    withdrawn: set[int] = field(default_factory=set)
    failing_spawns: int = 0
    ending: bool = False
    failing: bool = False  # something went wrong for good
    trial: float | None = None  # probation of the last reload
    actions: int = 0

    def begin(self, slots: int, rules: Rules, seed: int) -> None:
        self.view = View(rules, slots, operation=Start(), random=random.Random(seed))
        self.engine = Engine(self.view, self)
        self.engine.settle()

    # ---- World ---------------------------------------------------------------------------------

    def now(self) -> float:
        return self.clock

    def slept(self) -> float:
        missed, self.missed = self.missed, 0.0
        return missed

    def wake_at(self, when: float | None) -> None:
        self.woken = when

    def perform(self, action: act.Action) -> None:
        counted[type(action).__name__] += 1
        self.actions += 1
        assert self.actions < MOST_ACTIONS, f"the plan never rests: {action}"
        if isinstance(action, act.OfWorker):
            self._of_worker(action, self.processes[action.worker])
        elif isinstance(action, act.Spawn):
            self._spawned(action)
        elif isinstance(action, act.CloseListeners):
            assert self.ending
            self.outcomes.append(news.ListenersClosed())
        elif isinstance(action, act.BeginReload):
            assert not self.ending
            assert isinstance(self.view.operation, Reload)
            self.trial = self.view.operation.options.probation
        elif isinstance(action, act.Fail):
            self._failed(action.finish)
        else:
            self._finished(action)

    def _of_worker(self, action: act.OfWorker, process: Process) -> None:
        match action:
            case act.MakeReady() | act.Unpark():
                assert process.parked == isinstance(action, act.Unpark)
                assert process.said_ready or not self.view.rules.listen
                process.serves, process.parked = True, False
                process.ready_at = process.ready_at or self.clock
            case act.Park():
                self._gives_up(process, action)
                process.parked = True
            case act.Drain():
                self._gives_up(process, action)
                process.let_go = True
                self.outcomes.append(news.Drained(process.id))
            case act.AskToStop():
                assert not process.asked
                assert not process.serves
                process.asked = True
            case act.Kill(fault=fault):
                assert process.alive
                assert not process.killed
                process.excused |= bool(fault)
                self._gives_up(process, action)
                process.killed = True
                self.outcomes.append(news.Exited(process.id, "killed by SIGKILL"))
            case act.Remove():
                assert not process.alive
                assert not process.removed, "removed twice"
                process.removed = True
                self.outcomes.append(news.Removed(process.id))

    def _spawned(self, action: act.Spawn) -> None:
        view = self.view
        assert action.worker not in self.processes
        assert action.slot < view.wanted
        assert not self.ending
        assert action.generation not in self.withdrawn
        booting = [w for w in view.workers.values() if w.state is State.STARTING]
        assert sum(not w.said_ready for w in booting) <= view.rules.boot_at_once
        alive = [p for p in self.processes.values() if p.alive]
        three = {p.generation for p in alive if p.slot == action.slot} | {action.generation}
        assert len(three) <= 2 or not any(p.serves for p in alive)
        if action.generation > max(p.generation for p in [*self.processes.values(), FIRST]):
            known = (view.generation, action.generation)
            strange = [w for w in view.alive if w.generation not in known and not w.live]
            assert not strange, "a third generation begins while the first one leaves"
        process = Process(action.worker, action.slot, action.generation)
        self.processes[action.worker] = process
        if self.failing_spawns:
            self.failing_spawns -= 1
            self.tell(news.Erred(action.worker, {"message": "Resource temporarily unavailable"}))
            process.alive, process.let_go = False, True
            self.tell(news.Exited(process.id, "not started", short=True))

    def _gives_up(self, process: Process, action: act.Action) -> None:
        if process.serves:
            self._may_go(process, action)
        process.serves = process.parked = False

    def _may_go(self, process: Process, action: act.Action) -> None:
        operation = self.view.operation
        others = [p for p in self.processes.values() if p.serves and p is not process]
        stop_first = isinstance(operation, Reload) and operation.options.stop_first
        assert (
            process.slot in {other.slot for other in others}
            or process.slot >= self.view.wanted
            or process.excused
            or stop_first
            or self.ending
        ), f"{action} gives capacity up"

    def _failed(self, finish: Finish) -> None:
        serving = [process for process in self.processes.values() if process.serves]
        assert not serving, "the service ends although some serve"
        self.ending, self.failing = True, finish.failure is not None
        self._finished(finish)

    def _finished(self, finish: Finish) -> None:
        self.results[finish.operation, finish.token] += 1
        assert self.results[finish.operation, finish.token] == 1, f"told twice: {finish}"
        if finish.operation == "reload" and finish.failure is not None:
            began = [p.generation for p in self.processes.values()]
            self.withdrawn |= {g for g in began if g > self.view.generation}
        elif finish.operation == "reload":
            self._proven()
        elif finish.operation == "stop":
            assert not [p for p in self.processes.values() if p.alive]
            assert (finish.failure is not None) == self.failing

    def _proven(self) -> None:
        """A reload that went well: every slot has had its new worker for ``probation``."""
        assert self.trial is not None
        first: dict[int, float] = {}
        for process in self.processes.values():
            if process.generation == self.view.generation and process.ready_at:
                first.setdefault(process.slot, process.ready_at)
        assert first.keys() >= self.view.slots.keys()
        assert self.clock >= max(first[slot] for slot in self.view.slots) + self.trial

    # ---- what happens --------------------------------------------------------------------------

    def tell(self, told: news.News) -> None:
        self.actions = 0
        self.engine.tell(told)

    def exits(self, process: Process, how: str) -> None:
        process.alive = process.serves = process.parked = False
        self._note_end(process)
        self.tell(news.Exited(process.id, how))

    def leaves(self, process: Process) -> None:
        process.excused = True
        if self.view.workers[process.id].live:  # else its end is decided already
            process.decides = self.view.rules.exit_decides
            if not process.decides:
                self._note_end(process)
        self.tell(news.Leaves(process.id))

    def _note_end(self, process: Process) -> None:
        if process.decides or not process.let_go:
            self.ends.setdefault(process.slot, []).append(self.clock)
        process.let_go = True

    def deliver(self, told: news.News) -> None:
        self.outcomes.remove(told)
        if isinstance(told, news.Exited):
            process = self.processes[told.worker]
            if process.alive:
                self.exits(process, told.how)
        else:
            self.tell(told)

    def passes(self, seconds: float) -> None:
        """Time, with every deadline looked at when it is due."""
        end = self.clock + seconds
        for _ in range(10_000):
            self.actions = 0
            self.engine.settle()
            if self.woken is None or self.woken > end:
                break
            self.clock = max(self.clock + 0.0005, self.woken)
        else:
            raise AssertionError("the plan never rests: it wants to look again at once")
        self.clock = max(self.clock, end)

    def leap(self, seconds: float) -> None:
        """Nobody looks in between."""
        self.clock += seconds
        self.actions = 0
        self.engine.settle()

    def sleeps(self, seconds: float) -> None:
        """Nobody runs: nothing happens because of it."""
        self.passes(0.001)
        before = counted["Kill"] + counted["Drain"] + counted["AskToStop"] + counted["Finish"]
        self.missed = seconds
        self.leap(seconds)
        after = counted["Kill"] + counted["Drain"] + counted["AskToStop"] + counted["Finish"]
        assert before == after
        self.ends = {slot: [at + seconds for at in ends] for slot, ends in self.ends.items()}
        for process in self.processes.values():
            process.ready_at += seconds if process.ready_at else 0.0

    def calm(self, seconds: float) -> None:
        """All is well: who boots is soon ready, what is asked is done."""
        self.failing_spawns = 0
        end = self.clock + seconds
        while self.clock < end and not self.view.finished:
            for told in list(self.outcomes):
                if told in self.outcomes:
                    self.deliver(told)
            for process in list(self.processes.values()):
                if process.alive and process.asked:
                    self.exits(process, "exit code 0")
                elif process.alive and not process.said_ready:
                    process.said_ready = True
                    self.tell(news.Ready(process.id))
            if self.woken is None and not self.outcomes:
                break
            self.passes(0.1 if self.outcomes else max(0.1, (self.woken or 0) - self.clock))
