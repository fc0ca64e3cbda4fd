"""What only time shows: who is stalled, recovered, hung; whose queue is empty, so that it is
drained or can be removed.

Looks only while something waits somewhere. It moves nothing itself.
"""

from __future__ import annotations

from rrdispatch._core.layout import Control, ControlKind, Field, State
from rrdispatch.dispatch.lanes import MS
from rrdispatch.dispatch.reclaimer import Reclaims
from rrdispatch.dispatch.sending import Sender
from rrdispatch.dispatch.slots import ORPHANED, Worker
from rrdispatch.dispatch.talk import Talk

LOOK_MOST = 10 * MS
ASLEEP = 1000 * MS  # no look for so long, while something waited: we did not run
IDLE_PATIENCE = 5  # times stall_timeout
STUCK_PATIENCE = 20  # the same while no other queue is empty
STUCK_TAKES = 8  # by each of the others meanwhile
_WATCHED = (State.READY, State.PARKED)


class Watch:
    """Judges every worker by what the kernel says of its queue."""

    def __init__(self, sender: Sender, reclaims: Reclaims, talk: Talk, null: int) -> None:
        self._sender = sender
        self._slots = sender.slots
        self._reclaims = reclaims
        self._talk = talk
        self._null = null
        self._due = self._looked = 0
        self._progress = 0

    def soon(self) -> None:
        """Look at the next opportunity."""
        self._due = 1

    def run(self, now: int) -> int:
        """Look, if it is time; when to look again (0: nothing waits)."""
        sender = self._sender
        if sender.sent_ns:
            due = sender.sent_ns + self._slots.settings.stall_timeout
            self._due = min(self._due, due) if self._due else due
            sender.sent_ns = 0
        if self._reclaims.changed:
            self._reclaims.changed = False
            self._due = now
        if self._due and now >= self._due:
            self._due = self._look(now)
        return self._due

    def _look(self, now: int) -> int:
        workers = list(self._slots.workers.values())
        # Frozen with us, or starved as we were: nobody is to blame for that time.
        asleep, self._looked = now - self._looked > ASLEEP, now
        for worker in workers:
            worker.measure()
            self._note_progress(worker, now)
            if asleep:
                worker.progress_ns = now
        turning = [one for one in workers if one.state == State.READY and not one.stalled_ns]
        again = [self._look_at(worker, now, turning) for worker in workers]
        left = self._slots.workers.values()
        self._reclaims.wanting = [one for one in left if one.queued and self._reclaims.wanted(one)]
        return min((when for when in again if when), default=0)

    def _note_progress(self, worker: Worker, now: int) -> None:
        """What everybody took, as the looks see it: the measure of who takes nothing."""
        taken = worker.taken()
        worker.progressed = taken != worker.taken_seen or not worker.queued
        if worker.progressed:
            self._progress += max(0, taken - worker.taken_seen)
            worker.taken_seen, worker.progress_ns, worker.hung = taken, now, False

    def _look_at(self, worker: Worker, now: int, turning: list[Worker]) -> int:
        """Judge one; when to look at it again (0: no need)."""
        if worker.progressed:
            worker.progress_then = self._progress
        if worker.stalled_ns:
            self._look_at_stalled(worker, now)
        elif self._overdue(worker, now) and self._should_move(worker, now, turning):
            self._stall(worker, now)
        self._look_for_hung(worker, now)
        idle = not worker.queued and not self._reclaims.busy(worker)
        if worker.drain_awaited and idle and worker not in self._sender.collected:
            self._answer_drain(worker)
        if worker.removing is not None and (idle or not self._slots.settings.take_back):
            self.remove(worker)
            return 0
        return self._next_look(worker, now)

    def _next_look(self, worker: Worker, now: int) -> int:
        timeout = self._slots.settings.stall_timeout
        interval = max(MS, min(timeout, LOOK_MOST))
        if worker.stalled_ns:
            # Quickly back in the turn after a short stall, cheaply watched during a long one.
            return now + max(MS, min((now - worker.stalled_ns) // 8, LOOK_MOST))
        if worker.waiting and worker.state in _WATCHED:
            overdue = worker.oldest_ns + self._patience(worker)
            return max(overdue, now + MS) if now < overdue < now + interval else now + interval
        if worker.queued or worker.drain_awaited or worker.removing is not None:
            return now + interval
        return 0

    # ---- stalled, recovered, hung -----------------------------------------------------------

    def _overdue(self, worker: Worker, now: int) -> bool:
        return (
            worker.state in _WATCHED
            and worker.waiting > 0
            and now - worker.oldest_ns > self._patience(worker)
        )

    def _should_move(self, worker: Worker, now: int, turning: list[Worker]) -> bool:
        """Somebody's queue is empty; or all are busy, and each of the others took several while it
        took none: what waits for one that is stopped would wait for as long.
        """
        if self._slots.partial(worker.oldest_lane):
            turning = [one for one in turning if worker.oldest_lane in one.lanes]
        if not all(one.queued for one in turning):
            return True
        others = sum(one is not worker for one in turning)
        since = max(worker.progress_ns, worker.oldest_ns)
        stuck = now - since > STUCK_PATIENCE * self._slots.settings.stall_timeout
        return (
            bool(others) and stuck and self._progress - worker.progress_then >= STUCK_TAKES * others
        )

    def _patience(self, worker: Worker) -> int:
        """One with nothing in hand waits for a core, or is stopped: on a busy machine it is only
        late, and to move what it was given would bend the turn without serving anybody sooner.
        """
        idle = worker.board.load(Field.RECEIVED) == worker.board.load(Field.CLOSED)
        return self._slots.settings.stall_timeout * (IDLE_PATIENCE if idle else 1)

    def _stall(self, worker: Worker, now: int) -> None:
        worker.stalled_ns, worker.probe_ns = now, 0
        worker.taken_at_stall = worker.taken()
        worker.candidate.eligible = False
        worker.board.store(Field.STALLED, 1)
        self._talk.event(ControlKind.STALLED, worker.id, now - worker.oldest_ns)

    def _look_at_stalled(self, worker: Worker, now: int) -> None:
        """It took something itself, be it the probe: what a helper takes does not count.

        With an empty queue a probe is the question.
        """
        if worker.taken() > worker.taken_at_stall + self._reclaims.asked(worker):
            self._recover(worker, now)
        elif worker.queued or worker.probe_ns or self._reclaims.busy(worker):
            return
        elif not self._slots.settings.probe:
            self._recover(worker, now)
        else:
            self._probe(worker, now)

    def _probe(self, worker: Worker, now: int) -> None:
        try:
            worker.lanes[worker.oldest_lane].send_probe(self._null, now)
        except OSError:
            # Full, or too many descriptors in flight: at the next look again.
            return
        worker.probe_ns = worker.progress_ns = now

    def _recover(self, worker: Worker, now: int) -> None:
        lasted = now - worker.stalled_ns
        worker.unstall()
        self._talk.event(ControlKind.RECOVERED, worker.id, lasted)

    def _look_for_hung(self, worker: Worker, now: int) -> None:
        """It took nothing of what waits for it for heartbeat_timeout: idle is not hung."""
        limit = self._slots.settings.heartbeat_timeout
        if not limit or worker.hung or not worker.queued or worker.state == State.DEAD:
            return
        since = max(worker.progress_ns, worker.oldest_ns)
        if now - since >= limit:
            worker.hung = True
            self._talk.event(ControlKind.HUNG, worker.id, now - since)

    # ---- dead, drained, removed -------------------------------------------------------------

    def died(self, worker: Worker) -> None:
        """Its pidfd became readable: its queue is taken back."""
        if worker.state == State.DEAD:
            return
        worker.unstall()
        if worker.draining is None:
            worker.moved_lately = 0
        worker.enter(State.DEAD)
        self._slots.rebuild()
        self._talk.event(ControlKind.DEAD, worker.id)
        self.soon()

    def _answer_drain(self, worker: Worker) -> None:
        assert worker.draining is not None
        request = Control(ControlKind.WORKER_DRAIN, worker.draining, worker=worker.id)
        worker.draining = None
        self._talk.answer(request, 0, (worker.moved_lately,))

    def remove(self, worker: Worker) -> None:
        """Close all of it and answer who asked for that."""
        received = worker.board.load(Field.RECEIVED)
        del self._slots.workers[worker.id]
        self._slots.rebuild()
        self._sender.totals.lost += worker.waiting
        worker.close()
        if worker.removing is not None and worker.removing != ORPHANED:
            request = Control(ControlKind.WORKER_REMOVE, worker.removing, worker=worker.id)
            self._talk.answer(request, 0, (worker.moved_lately, worker.sent, received))
