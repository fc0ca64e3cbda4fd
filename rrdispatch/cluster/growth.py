"""Whether a worker that takes too much memory is replaced now (``--max-memory-restart``). Pure.

One at a time, its successor first. Code that needs more than the limit from the beginning would be
replaced for ever: each time that a successor outgrows the limit at once, the pause doubles.
"""

from __future__ import annotations

from rrdispatch.cluster.lifecycle import State
from rrdispatch.cluster.view import View, Worker

AT_ONCE = 60.0  # seconds after READY, and the first pause
MOST_PAUSE = 3600.0


def outgrown(view: View, worker: Worker) -> None:
    """It takes more than the limit; said again and again as long as it does."""
    slot = view.slots.get(worker.slot)
    if slot is None or view.operation is not None or worker.recycle:
        return  # whatever is under way replaces it, or asks it to stay
    if worker.state is not State.READY or not worker.live or worker.ready_at is None:
        return
    soon = view.now - worker.ready_at < AT_ONCE
    if slot.outgrown and soon and not worker.grew_at_once:
        worker.grew_at_once = True
        slot.growth_pause = min(MOST_PAUSE, max(AT_ONCE, 2 * slot.growth_pause))
        slot.grows_until = view.now + slot.growth_pause
    elif not _must_wait(view, slot.grows_until):
        worker.recycle = worker.outgrown = slot.outgrown = True
        if not worker.grew_at_once:
            slot.growth_pause, slot.grows_until = 0.0, None


def _must_wait(view: View, until: float | None) -> bool:
    """For its own pause, or for another that is being replaced."""
    if until is not None and view.now < until:
        return True
    return any(
        worker.outgrown and worker.alive and not _given_up(view, worker.slot)
        for worker in view.workers.values()
    )


def _given_up(view: View, slot: int) -> bool:
    return slot in view.slots and view.slots[slot].errored
