"""What an end that the plan did not want means: a place to fill again, or one that stays empty.

Pure; ``--no-autorestart`` and ``--stop-exit-codes`` are heeded here.
"""

from __future__ import annotations

from rrdispatch.cluster.view import Failure, Reload, Start, View, Worker

_EXIT_CODE = "exit code "


def exit_code(how: str) -> int | None:
    """Of ``how`` a process ended; None for a signal, and where nobody knows."""
    number = how.removeprefix(_EXIT_CODE)
    return int(number) if number != how and number.isdigit() else None


def left_by_itself(view: View, worker: Worker) -> None:
    """It said so. Its successor comes at once, unless its exit decides whether there is one."""
    worker.leaves = True
    if not view.rules.exit_decides:
        unwanted(view, worker, "it stopped by itself")


def unwanted(
    view: View, worker: Worker, reason: str, code: int | None = None, short: bool = False
) -> None:
    """An end by a worker's own doing, or by somebody else's; ``short``: it never began."""
    rules = view.rules
    last = rules.exit_decides and not short and rules.stays_ended(code)
    proven = worker.ready_at is not None or rules.uptime_proves
    if last and proven and rules.ended_well(code):
        _well(view, worker)
        return
    late = view.now >= worker.started_at + rules.ready_timeout
    silent = bool(worker.fault) and worker.ready_at is None and late
    failure = Failure(reason, worker.id, worker.slot, silent)
    reload = view.operation
    on_trial = isinstance(reload, Reload) and worker.generation == reload.generation
    slot = view.slots.get(worker.slot)
    if slot is not None:
        jitter = view.random.uniform(0.8, 1.2)
        if short:
            slot.starved(view.now, rules, jitter)
        else:
            slot.died(view.now, worker.ready_at is not None, rules, jitter)
        slot.last_failure = failure
        slot.remember(view.now, reason)
        slot.ended = last and not on_trial and not _followed(view, worker)
    if isinstance(reload, Reload) and on_trial:
        reload.failure = reload.failure or failure


def _well(view: View, worker: Worker) -> None:
    """It did what it was there for: that is as good as being ready."""
    slot = view.slots.get(worker.slot)
    if slot is not None and not _followed(view, worker):
        slot.ended, slot.last_failure = True, None
    operation = view.operation
    if isinstance(operation, Start) and operation.opened_at is None:
        operation.opened_at = view.now
    if isinstance(operation, Reload) and worker.generation == operation.generation:
        operation.first_ready.setdefault(worker.slot, view.now)


def _followed(view: View, worker: Worker) -> bool:
    """Another one is in its place already."""
    return any(other.live and other is not worker for other in view.of_slot(worker.slot))
