"""What every worker should be, and who is to be spawned. Pure; says nothing of how to get there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rrdispatch.cluster.lifecycle import State, Wanted
from rrdispatch.cluster.view import Reload, Slot, Start, Stop, View, Worker

SHORTAGE_DELAY = 1.0  # the longest between two spawns that fail for want of something
CLOSING = 0.7  # the part of drain_timeout after which nobody waits for the listeners any more


@dataclass(slots=True)
class Wish:
    """``of`` a worker: what it should be; ``spawns``: (slot, generation, not before)."""

    workers: dict[int, Wanted] = field(default_factory=dict)
    spawns: list[tuple[int, int, float]] = field(default_factory=list)

    def of(self, worker: Worker) -> Wanted:
        return self.workers.get(worker.id, worker.wanted)

    def want(self, workers: Sequence[Worker], wanted: Wanted) -> None:
        self.workers.update((worker.id, wanted) for worker in workers)


@dataclass(slots=True)
class Crew:
    """One slot's live workers of one generation."""

    keep: Worker | None  # the one that serves, or can
    starting: Worker | None
    spare: list[Worker]

    @property
    def vacant(self) -> bool:
        """Nobody serves without having asked for a successor, and nobody is about to."""
        return self.starting is None and (self.keep is None or self.keep.recycle)

    @property
    def all(self) -> list[Worker]:
        return [worker for worker in (self.keep, self.starting, *self.spare) if worker]


def crew(workers: Sequence[Worker]) -> Crew:
    """The newest that can serve is kept (one that asked for a successor only if no other can)."""
    live = [worker for worker in workers if worker.live]
    able = sorted(
        (worker for worker in live if worker.state is not State.STARTING),
        key=lambda worker: (worker.recycle, -worker.id),
    )
    starting = [worker for worker in live if worker.state is State.STARTING]
    keep = able[0] if able else None
    if keep is not None and not keep.recycle:
        return Crew(keep, None, able[1:] + starting)
    return Crew(keep, starting[0] if starting else None, able[1:] + starting[1:])


def wish_for(view: View, now: float) -> Wish:
    """What the view should become."""
    result = Wish()
    operation = view.operation
    for worker in view.workers.values():
        if worker.slot >= view.wanted:
            result.workers[worker.id] = Wanted.GONE
    if isinstance(operation, Stop):
        _stop(view, operation, now, result)
    elif isinstance(operation, Reload) and operation.failure is None:
        _reload(view, operation, result)
    else:
        workers = view.by_slot()
        for slot in view.slots.values():
            _steady(view, slot, workers[slot.index], result)
    return result


def closed_by(view: View, stop: Stop) -> float:
    """The listeners should be closed long before; a dispatcher that never says so stops nobody."""
    return stop.since + view.rules.shutdown_delay + CLOSING * view.rules.drain_timeout


def _stop(view: View, stop: Stop, now: float, out: Wish) -> None:
    """Until the listeners are closed the ready ones serve on; then all go."""
    serving_on = view.rules.listen and not stop.closed and stop.failure is None
    serving_on = serving_on and now < closed_by(view, stop)
    for worker in view.workers.values():
        stays = serving_on and worker.state is State.READY and worker.slot < view.wanted
        out.workers[worker.id] = Wanted.SERVE if stays else Wanted.GONE


def _steady(view: View, slot: Slot, workers: list[Worker], out: Wish) -> None:
    """One worker of the proven generation; one of another stays only until that one serves."""
    right = crew([worker for worker in workers if worker.generation == view.generation])
    wrong = crew([worker for worker in workers if worker.generation != view.generation])
    out.want(right.all, Wanted.SERVE)
    out.want(right.spare, Wanted.GONE)
    out.want(wrong.all, Wanted.GONE)
    if right.keep is None and wrong.keep is not None and wrong.keep.state is State.READY:
        out.want([wrong.keep], Wanted.SERVE)
    crowded = (wrong.keep is not None or view.serves) and _crowded(workers, view.generation)
    empty = _stays_empty(view, slot, workers)
    if right.vacant and not crowded and not empty and _may_start(view, slot, workers):
        out.spawns.append((slot.index, view.generation, due(view, slot)))


def _stays_empty(view: View, slot: Slot, workers: Sequence[Worker]) -> bool:
    """Given up, ended for good, or the one that leaves will say by its exit code whether it is."""
    undecided = view.rules.exit_decides and any(w.leaves and w.alive for w in workers)
    return slot.errored or slot.ended or undecided


def _may_start(view: View, slot: Slot, workers: Sequence[Worker]) -> bool:
    """At the start one worker boots alone; if it fails, a second one gives a second opinion."""
    if not isinstance(view.operation, Start) or view.operation.opened_at is not None:
        return True
    if was_silent(view):
        return False
    first_failed = view.slots[0].failures > 0
    untried = slot.failures == 0 and not any(worker.alive for worker in workers)
    return slot.index == (1 if first_failed else 0) and untried


def was_silent(view: View) -> bool:
    """The first worker of all took ``ready_timeout``: a second opinion would take as long again."""
    failure = view.slots[0].last_failure
    return failure is not None and failure.silent


def due(view: View, slot: Slot) -> float:
    """When a slot may be filled; the long delays hold only while others serve.

    What could not even be spawned costs nothing to try: it is there soon after there is room.
    """
    if slot.died_at is None:
        return float("-inf")
    if slot.short:
        return slot.died_at + min(slot.delay, SHORTAGE_DELAY)
    delay = slot.delay if view.serves else min(slot.delay, view.rules.respawn_delay)
    return slot.died_at + delay


def _reload(view: View, reload: Reload, out: Wish) -> None:
    by_slot = view.by_slot()
    for slot in view.slots.values():
        workers = by_slot[slot.index]
        new = crew([worker for worker in workers if worker.generation == reload.generation])
        old = crew([worker for worker in workers if worker.generation != reload.generation])
        out.want(new.all, Wanted.SERVE)
        out.want(new.spare, Wanted.GONE)
        _old(reload, new, old, out)
        if new.keep is not None and new.vacant:
            out.spawns.append((slot.index, reload.generation, due(view, slot)))
        elif (old.keep is not None or view.serves) and _crowded(workers, view.generation):
            continue
        elif not new.all and old.vacant and _fill_with_old(view, reload, slot, workers):
            out.spawns.append((slot.index, view.generation, due(view, slot)))
    _roll(view, reload, by_slot, out)


def _fill_with_old(view: View, reload: Reload, slot: Slot, workers: Sequence[Worker]) -> bool:
    """Until the new code has booted once, a place that falls vacant gets the old one again."""
    if reload.first_ready or reload.options.stop_first:
        return False
    return not _stays_empty(view, slot, workers)


def _old(reload: Reload, new: Crew, old: Crew, out: Wish) -> None:
    """The old worker serves until the new one does, then waits, parked, for the end."""
    out.want(old.all, Wanted.SERVE)
    out.want(old.spare, Wanted.GONE)
    if new.keep is not None:
        out.want(old.all, Wanted.GONE)
        if reload.options.park and old.keep is not None:
            out.want([old.keep], Wanted.PARK)


def _roll(view: View, reload: Reload, by_slot: dict[int, list[Worker]], out: Wish) -> None:
    """The next slots get their new worker: the first one alone, then ``batch`` at a time."""
    if _third_generation(view, reload):
        return
    live = [worker for worker in view.workers.values() if worker.live]
    started = {worker.slot for worker in live if worker.generation == reload.generation}
    booting = len(started - reload.first_ready.keys())
    options = reload.options
    at_once = options.batch if reload.first_ready and not options.stop_first else 1
    waiting = [
        slot
        for slot in view.slots
        if slot not in started
        and not (view.slots[slot].ended and slot in reload.first_ready)
        and not _crowded(by_slot[slot], reload.generation)
    ]
    if reload.first_ready:  # the new code boots: places that nobody fills come first
        waiting.sort(key=lambda slot: any(worker.live for worker in by_slot[slot]))
    for slot in waiting[: max(0, at_once - booting)]:
        old = [worker for worker in by_slot[slot] if worker.alive]
        if options.stop_first and old:
            out.want([worker for worker in old if worker.live], Wanted.GONE)
        else:
            out.spawns.append((slot, reload.generation, float("-inf")))


def _crowded(workers: Sequence[Worker], generation: int) -> bool:
    """One more of this generation would make three in the slot; allowed only if nobody serves."""
    return len({worker.generation for worker in workers if worker.alive} | {generation}) > 2


def _third_generation(view: View, reload: Reload) -> bool:
    """Leavers of another generation than these two are still there: never have three.

    One that serves is no leaver: after a rollback without parking it may be all that a slot has.
    """
    known = (view.generation, reload.generation)
    return any(w.generation not in known and not w.live for w in view.alive)
