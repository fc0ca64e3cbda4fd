"""The reconciler: from what is to what should be, step by step. Pure: changes nothing.

Every event updates the view, then ``plan`` runs again: nobody waits inside a plan. The order of the
actions matters: whatever gives capacity comes before whatever takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rrdispatch.cluster.actions import (
    Action,
    AskToStop,
    BeginReload,
    CloseListeners,
    Drain,
    Fail,
    Kill,
    MakeReady,
    Park,
    Remove,
    Spawn,
    Unpark,
)
from rrdispatch.cluster.lifecycle import State, Wanted
from rrdispatch.cluster.view import Failure, Finish, Reload, Start, Stop, View, Worker
from rrdispatch.cluster.wishes import Wish, closed_by, was_silent, wish_for

GATHERING = 2.0  # seconds that the first ready worker waits for the others
EMPTYING = 0.8  # the part of drain_timeout that the dispatcher has to empty a queue


@dataclass(slots=True)
class Plan:
    """What to do now, and when to look again at the latest."""

    actions: list[Action] = field(default_factory=list)
    deadline: float | None = None

    def at(self, when: float) -> None:
        self.deadline = when if self.deadline is None else min(self.deadline, when)


def plan(view: View, now: float) -> Plan:
    """The next step."""
    result = Plan([*view.ended])
    if view.finished:
        return result
    wish = wish_for(view, now)
    opens_at = _gathered_at(view)
    for worker in view.workers.values():
        if wish.of(worker) is Wanted.SERVE:
            result.actions += _gains(view, worker, opens_at, now, result)
    for worker in view.workers.values():
        result.actions += _losses(view, worker, wish, now, result)
    result.actions += _spawns(view, wish, now, result)
    result.actions += _operation(view, now, result)
    return result


def _gains(view: View, worker: Worker, opens_at: float, now: float, out: Plan) -> Iterator[Action]:
    """For one that should serve."""
    if worker.state is State.PARKED:
        yield Unpark(worker.id)
    if worker.state is State.STARTING and not worker.fault:
        if not _can_be_ready(view, worker):
            return
        due = opens_at if worker.said_ready else _proven_at(view, worker)
        if now >= due:
            yield MakeReady(worker.id)
        else:
            out.at(due)


def _gathered_at(view: View) -> float:
    """At the start the first to be ready waits for the others, not for long: the backlog holds the
    clients meanwhile, and the first thing that anybody counts is an even split.
    """
    start = view.operation
    given = view.rules.listen and not view.rules.share_listener
    if not given or not isinstance(start, Start) or start.opened_at is None or view.serving:
        return float("-inf")
    said = {worker.slot for worker in view.workers.values() if worker.said_ready}
    if all(index in said or slot.settled for index, slot in view.slots.items()):
        return float("-inf")
    return start.opened_at + GATHERING


def _losses(view: View, worker: Worker, wish: Wish, now: float, out: Plan) -> Iterator[Action]:
    if worker.state is State.DEAD:
        if not worker.remove_asked:
            yield Remove(worker.id)
    elif worker.alive and worker.state is not State.KILLED:
        if worker.fault or (isinstance(view.operation, Stop) and view.operation.kill):
            yield Kill(worker.id)
        elif worker.state in (State.DRAINING, State.STOPPING):
            yield from _draining(view, worker, now, out)
        elif worker.leaves or wish.of(worker) is Wanted.GONE:
            yield _farewell(view, worker)
        elif worker.state is State.READY and wish.of(worker) is Wanted.PARK:
            yield Park(worker.id)
        elif worker.state is State.STARTING and not _can_be_ready(view, worker):
            yield from _silent(view, worker, now, out)


def _can_be_ready(view: View, worker: Worker) -> bool:
    loads = view.rules.loads and worker.loaded_at is None
    return worker.said_ready or (view.rules.uptime_proves and not loads)


def _proven_at(view: View, worker: Worker) -> float:
    """By its age alone; that of an interpreter that still imports says nothing of the app."""
    begun = worker.started_at if worker.loaded_at is None else worker.loaded_at
    return begun + view.rules.min_uptime


def _farewell(view: View, worker: Worker) -> Action:
    """At the final stop all are parked before the first is drained: none gets another's queue."""
    if isinstance(view.operation, Stop) and worker.state is State.READY and not worker.leaves:
        return Park(worker.id)
    return Drain(worker.id)


def _silent(view: View, worker: Worker, now: float, out: Plan) -> Iterator[Action]:
    end = worker.started_at + view.rules.ready_timeout
    if now >= end:
        within = f"not ready within {view.rules.ready_timeout:g} s"
        yield Kill(worker.id, fault=within + _why(view, worker))
    else:
        out.at(end)


def _why(view: View, worker: Worker) -> str:
    if view.rules.loads and worker.loaded_at is None:
        return ": its app was still being imported"
    if view.rules.word_wanted:
        what = "called rrdispatch.ready()" if view.rules.loads else "said READY=1"
        return f": it never {what} (--wait-ready)"
    if view.rules.loads:
        return ": its app was imported, but does not take connections yet"
    if not view.rules.program:
        return ""
    return (
        ": it never asked for a connection where one can be given to it"
        " (try --share-listener, or --no-listen)"
    )


def _draining(view: View, worker: Worker, now: float, out: Plan) -> Iterator[Action]:
    emptied_by, end = stopped_by(view, worker)
    if now >= end:
        limit = f"drain_timeout ({view.rules.drain_timeout:g} s)"
        yield Kill(worker.id, late=f"not ended within {limit}")
    elif worker.state is State.DRAINING and (_has_finished(view, worker) or now >= emptied_by):
        yield AskToStop(worker.id, signal=not worker.leaves)
    else:
        out.at(emptied_by if worker.state is State.DRAINING else end)


def stopped_by(view: View, worker: Worker) -> tuple[float, float]:
    """When one that drains is asked to stop, whatever it has in hand, and when it is killed."""
    assert worker.asked_at is not None
    end = worker.asked_at + view.rules.drain_timeout
    if isinstance(view.operation, Stop):
        end = min(end, stop_deadline(view, view.operation))
    return worker.asked_at + EMPTYING * (end - worker.asked_at), end


def _has_finished(view: View, worker: Worker) -> bool:
    """An app finishes by itself once it is asked to stop; of a program nobody knows."""
    return worker.queue_empty and (worker.quiet or not view.rules.program)


def stop_deadline(view: View, stop: Stop) -> float:
    """When the last worker is killed."""
    return stop.since + view.rules.shutdown_delay + view.rules.drain_timeout


def _spawns(view: View, wish: Wish, now: float, out: Plan) -> Iterator[Action]:
    number = view.last_worker
    room = view.rules.boot_at_once - sum(
        worker.state is State.STARTING and not worker.said_ready for worker in view.workers.values()
    )
    for slot, generation, due in wish.spawns:
        if due <= now:
            if number - view.last_worker >= room:
                return  # one that is booting ends that sooner or later, and the plan runs again
            number += 1
            yield Spawn(slot, generation, number)
        else:
            out.at(due)


def _operation(view: View, now: float, out: Plan) -> Iterator[Action]:
    operation = view.operation
    if isinstance(operation, Stop):
        yield from _stop(view, operation, now, out)
    elif isinstance(operation, Start):
        yield from _start(view, operation)
    elif isinstance(operation, Reload):
        yield from _reload(view, operation, now, out)
    elif view.queued is not None:
        yield BeginReload()
    else:
        yield from _all_over(view)


def _start(view: View, start: Start) -> Iterator[Action]:
    slots = list(view.slots.values())
    if start.opened_at is not None:
        ready = {worker.slot for worker in view.serving}
        if all(slot.index in ready or slot.settled for slot in slots):
            yield Finish("start")
    elif (was_silent(view) or all(slot.failures for slot in slots[:2])) and not view.alive:
        yield Fail(Finish("start", failure=slots[0].last_failure))


def _reload(view: View, reload: Reload, now: float, out: Plan) -> Iterator[Action]:
    if reload.failure is not None:
        yield Finish("reload", reload.token, reload.failure, degraded=reload.touched)
    elif all(slot in reload.first_ready for slot in view.slots):
        proven_at = max(reload.first_ready.values()) + reload.options.probation
        if now >= proven_at:
            yield Finish("reload", reload.token)
        else:
            out.at(proven_at)


def _stop(view: View, stop: Stop, now: float, out: Plan) -> Iterator[Action]:
    if not view.alive:
        yield Finish("stop", failure=stop.failure)
    elif stop.closing and not stop.closed and now < closed_by(view, stop):
        out.at(closed_by(view, stop))
    elif not stop.closing and not stop.kill and view.rules.listen and stop.failure is None:
        begins = stop.since + view.rules.shutdown_delay
        if now >= begins:
            yield CloseListeners()
        else:
            out.at(begins)


def _all_over(view: View) -> Iterator[Action]:
    """Nobody is left, and nobody is to follow."""
    slots = list(view.slots.values())
    if not all(slot.closed for slot in slots) or any(w.live for w in view.workers.values()):
        return
    last = next((slot.last_failure for slot in slots if slot.last_failure), None)
    blamed = last.worker if last else 0
    reason = last.reason if last else "no worker stays alive"
    if all(slot.errored for slot in slots):
        count, window = view.rules.max_restarts, view.rules.restart_window
        text = f"every slot died more than {count} times in {window:g} s; the last: {reason}"
        yield Fail(Finish("service", failure=Failure(text, blamed)))
    elif last is None and not view.rules.awaits:
        yield Fail(Finish("ended"))
    elif last is not None and (not view.rules.awaits or any(slot.errored for slot in slots)):
        text = f"every worker has ended and none is replaced; worker {last.slot}: {reason}"
        yield Fail(Finish("ended", failure=Failure(text, blamed)))
