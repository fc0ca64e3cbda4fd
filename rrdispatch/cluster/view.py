"""What the primary knows: slots, workers, the operation under way. Data only; decides nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from rrdispatch.cluster.lifecycle import ALIVE, LIVE, State, Trigger, Wanted, step

MAX_DELAY = 30.0
# Why a reload is given up for which nobody is to blame.
ANOTHER, STOPPING = "another reload was asked for", "the service is stopping"
MOST_ENDS, MOST_REASON = 8, 200  # remembered of each slot, for people


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that the plan goes by; times in seconds."""

    ready_timeout: float = 60.0
    drain_timeout: float = 25.0
    shutdown_delay: float = 0.0
    max_restarts: int = 16
    restart_window: float = 60.0
    respawn_delay: float = 0.1
    autorestart: bool = True
    stop_exit_codes: tuple[int, ...] = ()
    awaits: bool = False  # something will start again what has ended: a clock, a changed file
    min_uptime: float = 1.0
    loads: bool = False  # its runner says when the app is imported: min_uptime begins there
    listen: bool = True
    program: bool = False  # it knows nothing of us: quiet before the stop signal
    share_listener: bool = False  # it accepts by itself
    word_wanted: bool = False  # READY=1 must be said, also where nothing is given to a worker
    boot_at_once: int = 512  # more would only make each other miss ready_timeout

    @property
    def exit_decides(self) -> bool:
        """How a worker ended says whether it is replaced."""
        return not self.autorestart or bool(self.stop_exit_codes)

    def stays_ended(self, code: int | None) -> bool:
        """Who ends so is not replaced; None for any other end than by an exit code."""
        return not self.autorestart or code in self.stop_exit_codes

    def ended_well(self, code: int | None) -> bool:
        return code == 0 or code in self.stop_exit_codes

    @property
    def uptime_proves(self) -> bool:
        """Who lives for min_uptime is ready."""
        return (not self.listen or self.share_listener) and not self.word_wanted


@dataclass(frozen=True, slots=True)
class ReloadOptions:
    """How a reload goes on."""

    batch: int = 1
    park: bool = True
    stop_first: bool = False
    probation: float = 3.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an operation failed; ``worker`` is 0 when no worker is to blame."""

    reason: str
    worker: int = 0
    slot: int = -1
    silent: bool = False  # it was killed for not being ready in time


@dataclass(slots=True)
class Worker:
    """One process of the app, as the plan sees it."""

    id: int
    slot: int
    generation: int
    started_at: float
    state: State = State.STARTING
    wanted: Wanted = Wanted.SERVE
    said_ready: bool = False
    loaded_at: float | None = None
    ready_at: float | None = None
    asked_at: float | None = None  # when its drain began
    queue_empty: bool = False  # the dispatcher's answer to the drain
    quiet: bool = False  # it has no connection at work
    leaves: bool = False  # it said that it stops by itself
    recycle: bool = False  # it asked for a successor
    outgrown: bool = False  # it did not ask, but takes too much memory
    grew_at_once: bool = False  # as the one before it did
    fault: str = ""  # why we kill it, if it is not for the plan's sake
    error: dict[str, Any] | None = None  # what it said about its end
    remove_asked: bool = False

    def move(self, trigger: Trigger) -> None:
        self.state = step(self.state, trigger)

    @property
    def live(self) -> bool:
        """Serves, can serve, or is about to."""
        return self.state in LIVE and not self.leaves and not self.fault

    @property
    def alive(self) -> bool:
        """Its process exists."""
        return self.state in ALIVE


@dataclass(slots=True)
class Slot:
    """A stable place; what its workers did."""

    index: int
    failures: int = 0  # deaths before READY in a row
    deaths: list[float] = field(default_factory=list)  # inside the restart window
    died_at: float | None = None
    delay: float = 0.0
    restarts: int = 0
    errored: bool = False
    ended: bool = False  # its last worker ended, and none is to follow
    outgrown: bool = False  # a worker of it was replaced because of its memory
    growth_pause: float = 0.0  # the last one
    grows_until: float | None = None  # nobody is replaced because of its memory
    short: bool = False  # its last worker could not be started for want of something
    last_exit: str | None = None
    last_failure: Failure | None = None
    ends: list[tuple[float, str]] = field(default_factory=list)  # unwanted ones: when and why

    def remember(self, now: float, reason: str) -> None:
        """A list of its own each time: what was written down for an heir stays as it was."""
        self.ends = [*self.ends, (now, reason[:MOST_REASON])][-MOST_ENDS:]

    def died(self, now: float, was_ready: bool, rules: Rules, jitter: float) -> None:
        """Counts an unwanted death and sets the delay of the respawn."""
        self._wait(now, 0 if was_ready else self.failures + 1, rules, jitter)
        self.short = False
        self.deaths = [at for at in self.deaths if at > now - rules.restart_window] + [now]
        self.errored = 0 < rules.max_restarts < len(self.deaths)

    def starved(self, now: float, rules: Rules, jitter: float) -> None:
        """Nothing died: it is tried again and again, and the slot is never given up for that."""
        self._wait(now, self.failures + 1, rules, jitter)
        self.short = True

    def _wait(self, now: float, failures: int, rules: Rules, jitter: float) -> None:
        self.died_at, self.failures = now, failures
        doubled = rules.respawn_delay * 2 ** min(max(failures - 1, 0), 20)
        self.delay = min(MAX_DELAY, doubled * (jitter if failures > 1 else 1.0))

    def forgive(self) -> None:
        """A new generation starts with a clean sheet."""
        self.failures, self.deaths, self.died_at, self.delay = 0, [], None, 0.0
        self.errored = self.outgrown = False
        self.growth_pause, self.grows_until = 0.0, None

    @property
    def settled(self) -> bool:
        """A start does not wait for it any more."""
        return self.ended or self.last_failure is not None

    @property
    def closed(self) -> bool:
        """Nobody is started in it until a reload."""
        return self.errored or self.ended


@dataclass(slots=True)
class Start:
    """The first boot: one worker alone, then the others; the turn begins with all of them."""

    opened_at: float | None = None  # when the first worker said READY


@dataclass(slots=True)
class Reload:
    """A new generation on trial."""

    token: int
    options: ReloadOptions
    generation: int = 0  # given when it begins
    first_ready: dict[int, float] = field(default_factory=dict)  # slot: time
    failure: Failure | None = None
    touched: bool = False  # an old worker was let go before the end: no full way back


@dataclass(slots=True)
class Stop:
    """The final stop. ``since`` is when it was asked for."""

    since: float
    closing: bool = False  # the listeners are being emptied and closed
    closed: bool = False
    kill: bool = False
    failure: Failure | None = None


Operation = Start | Reload | Stop


@dataclass(frozen=True, slots=True)
class Finish:
    """An operation is over; its asker gets the result."""

    operation: str  # "start", "reload", "stop"
    token: int = 0
    failure: Failure | None = None
    degraded: bool = False


@dataclass(slots=True)
class View:
    """All of it."""

    rules: Rules
    wanted: int
    generation: int = 1  # the proven one
    last_generation: int = 1
    degraded: bool = False
    withdrawn: bool = False  # the last reload was rolled back: what is on disk is not what runs
    slots: dict[int, Slot] = field(default_factory=dict)
    workers: dict[int, Worker] = field(default_factory=dict)
    operation: Operation | None = None
    queued: Reload | None = None
    ended: list[Finish] = field(default_factory=list)  # cut short; to be told
    finished: bool = False
    last_worker: int = 0
    now: float = 0.0  # when the last news came
    random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self.resize(self.wanted)

    def resize(self, wanted: int) -> None:
        self.wanted = wanted
        self.slots = {i: self.slots.get(i) or Slot(i) for i in range(wanted)}

    def of_slot(self, slot: int) -> list[Worker]:
        """Its workers, the oldest first."""
        return [worker for worker in self.workers.values() if worker.slot == slot]

    def begin_stop(self, stop: Stop) -> None:
        """What else was under way, or asked for, has its result to come."""
        why = Failure(STOPPING)
        if isinstance(self.operation, Reload):
            self.ended.append(Finish("reload", self.operation.token, why))
        if isinstance(self.operation, Start):
            self.ended.append(Finish("start", failure=why))
        if self.queued is not None:
            self.ended.append(Finish("reload", self.queued.token, why))
        self.queued, self.operation = None, stop

    def postpone(self, seconds: float) -> None:
        """All that was to end at some time ends so much later."""
        for worker in self.workers.values():
            worker.started_at += seconds
            worker.loaded_at = _later(worker.loaded_at, seconds)
            worker.ready_at = _later(worker.ready_at, seconds)
            worker.asked_at = _later(worker.asked_at, seconds)
        for slot in self.slots.values():
            slot.died_at = _later(slot.died_at, seconds)
            slot.grows_until = _later(slot.grows_until, seconds)
            slot.deaths = [at + seconds for at in slot.deaths]
        operation = self.operation
        if isinstance(operation, Start):
            operation.opened_at = _later(operation.opened_at, seconds)
        elif isinstance(operation, Reload):
            first = operation.first_ready
            operation.first_ready = {slot: at + seconds for slot, at in first.items()}
        elif isinstance(operation, Stop):
            operation.since += seconds

    def by_slot(self) -> dict[int, list[Worker]]:
        """Every slot's workers, the oldest first; one pass for plans that look at all slots."""
        found: dict[int, list[Worker]] = {index: [] for index in self.slots}
        for worker in self.workers.values():
            found.setdefault(worker.slot, []).append(worker)
        return found

    @property
    def serving(self) -> list[Worker]:
        return [w for w in self.workers.values() if w.state is State.READY]

    @property
    def serves(self) -> bool:
        return any(worker.state is State.READY for worker in self.workers.values())

    @property
    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.alive]


def _later(at: float | None, seconds: float) -> float | None:
    return None if at is None else at + seconds
