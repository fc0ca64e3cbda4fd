"""What the plan can ask for, and how each changes the view when it is asked. Owns the actions."""

from __future__ import annotations

from dataclasses import dataclass

from rrdispatch.cluster.lifecycle import Trigger, Wanted
from rrdispatch.cluster.view import Finish, Reload, Slot, Start, Stop, View, Worker


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a worker in a slot."""

    slot: int
    generation: int
    worker: int


@dataclass(frozen=True, slots=True)
class MakeReady:
    """Give it connections: it said READY, or is alive for min_uptime."""

    worker: int


@dataclass(frozen=True, slots=True)
class Park:
    worker: int


@dataclass(frozen=True, slots=True)
class Unpark:
    worker: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Give it nothing more and empty its queue."""

    worker: int


@dataclass(frozen=True, slots=True)
class AskToStop:
    """The stop signal, then CONT; no signal if it leaves by itself."""

    worker: int
    signal: bool = True


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to its group; ``fault`` says why, if the worker is to blame.

    ``late``: it was asked to end, and what it has in hand is cut off.
    """

    worker: int
    fault: str = ""
    late: str = ""


@dataclass(frozen=True, slots=True)
class Remove:
    """Let the dispatcher give a dead worker's queue to others, and forget it."""

    worker: int


@dataclass(frozen=True, slots=True)
class BeginReload:
    """The queued reload begins, with a generation of its own."""


@dataclass(frozen=True, slots=True)
class CloseListeners:
    """Empty every backlog, then close every listener."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The service cannot go on: stop it, and exit with the reason."""

    finish: Finish


Action = (
    Spawn
    | MakeReady
    | Park
    | Unpark
    | Drain
    | AskToStop
    | Kill
    | Remove
    | BeginReload
    | CloseListeners
    | Fail
    | Finish
)
OfWorker = MakeReady | Park | Unpark | Drain | AskToStop | Kill | Remove


def enact(action: Action, view: View, now: float) -> None:
    """The view after the action was asked for, so that the plan does not ask twice."""
    if isinstance(action, Spawn):
        _spawn(action, view, now)
    elif isinstance(action, OfWorker):
        _of_worker(action, view, view.workers[action.worker], now)
    elif isinstance(action, BeginReload):
        _begin_reload(view)
    elif isinstance(action, CloseListeners):
        assert isinstance(view.operation, Stop)
        view.operation.closing = True
    elif isinstance(action, Fail):
        _finish(action.finish, view)
        view.begin_stop(Stop(now, failure=action.finish.failure))
    else:
        _finish(action, view)


def _spawn(action: Spawn, view: View, now: float) -> None:
    view.last_worker = action.worker
    slot = view.slots.setdefault(action.slot, Slot(action.slot))
    if slot.died_at is not None:
        slot.restarts += 1
        view.degraded |= view.withdrawn and action.generation == view.generation
    slot.ended = False
    view.workers[action.worker] = Worker(action.worker, action.slot, action.generation, now)


def _of_worker(action: OfWorker, view: View, worker: Worker, now: float) -> None:
    if isinstance(action, MakeReady):
        _ready(view, worker, now)
    elif isinstance(action, Park):
        worker.wanted = Wanted.PARK
        worker.move(Trigger.PARK)
    elif isinstance(action, Unpark):
        worker.wanted = Wanted.SERVE
        worker.move(Trigger.UNPARK)
    elif isinstance(action, Drain):
        worker.wanted = Wanted.GONE
        worker.asked_at = now
        worker.move(Trigger.DRAIN)
        _note_lost_way_back(view, worker)
    elif isinstance(action, AskToStop):
        worker.move(Trigger.STOP)
    elif isinstance(action, Kill):
        worker.fault = worker.fault or action.fault
        worker.move(Trigger.KILL)
    else:
        worker.remove_asked = True


def _ready(view: View, worker: Worker, now: float) -> None:
    worker.move(Trigger.READY)
    worker.ready_at = now
    slot = view.slots.get(worker.slot)
    if slot is not None:
        slot.failures, slot.died_at = 0, None
    operation = view.operation
    if isinstance(operation, Start) and operation.opened_at is None:
        operation.opened_at = now
    if isinstance(operation, Reload) and worker.generation == operation.generation:
        operation.first_ready.setdefault(worker.slot, now)


def _note_lost_way_back(view: View, worker: Worker) -> None:
    reload = view.operation
    if not isinstance(reload, Reload) or worker.slot >= view.wanted or worker.ready_at is None:
        return
    peers = [w for w in view.of_slot(worker.slot) if w.live and w.ready_at is not None]
    if all(w.generation == reload.generation for w in peers):
        reload.touched |= worker.generation != reload.generation


def _begin_reload(view: View) -> None:
    reload = view.queued
    assert reload is not None
    view.queued = None
    view.last_generation += 1
    reload.generation = view.last_generation
    view.operation = reload
    for slot in view.slots.values():
        slot.forgive()


def _finish(finish: Finish, view: View) -> None:
    if finish in view.ended:
        view.ended.remove(finish)
        return
    operation, view.operation = view.operation, None
    if isinstance(operation, Reload):
        if finish.failure is None:
            view.generation, view.degraded, view.withdrawn = operation.generation, False, False
        elif operation.first_ready or finish.degraded or _spawned(view, operation):
            view.withdrawn, view.degraded = True, view.degraded or finish.degraded
    view.finished |= isinstance(operation, Stop)


def _spawned(view: View, reload: Reload) -> bool:
    return any(w.generation == reload.generation for w in view.workers.values())
