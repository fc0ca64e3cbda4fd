"""The dispatcher's loop: wait for listeners, control, pidfds, helpers and the next deadline, and
let each part have its turn. Nothing waits inside.

Owns the parts and the end of them: by STOP, or when the primary is gone and all is handed out.
"""

from __future__ import annotations

import os
import time

from rrdispatch._core.layout import ControlKind, State
from rrdispatch.dispatch.accepting import SECOND, Acceptor
from rrdispatch.dispatch.estate import Estate
from rrdispatch.dispatch.heirs import Heirs
from rrdispatch.dispatch.lanes import MS
from rrdispatch.dispatch.poller import Poller
from rrdispatch.dispatch.reclaimer import Reclaims
from rrdispatch.dispatch.requests import Requests
from rrdispatch.dispatch.sending import Sender, Totals
from rrdispatch.dispatch.slots import Settings, Slots, Worker
from rrdispatch.dispatch.talk import Talk
from rrdispatch.dispatch.watch import Watch

REQUESTS_PER_ROUND = 64
TALK_AGAIN = 5 * MS
LEAVE_QUIET = 50 * MS
LEAVE_LISTENERS = 20 * SECOND  # all who serve them may be blocked
LEAVE_FEW = 2 * SECOND
LEAVE_LIMIT = 30 * SECOND
LEAVE_LOOK = 10 * MS


class Dispatcher:
    """All parts of one dispatcher."""

    def __init__(self, control: int) -> None:
        self.totals = Totals()
        self.slots = Slots(Settings())
        self.poller = Poller()
        self.talk = Talk(control)
        self.null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.sender = Sender(self.slots, self.totals)
        self.acceptor = Acceptor(self.poller, self.sender, self.talk)
        self.reclaims = Reclaims(self.poller, self.sender)
        self.acceptor.give_way = self.reclaims.of_dead
        self.watch = Watch(self.sender, self.reclaims, self.talk, self.null)
        self.estate = Estate(self.slots, self.acceptor)
        self.heirs = Heirs(self.poller, self.talk, self.estate, self._hear)
        self.requests = Requests(self.poller, self.acceptor, self.sender, self.watch, self.heirs)
        self._leave_ns = 0
        self._deaf = False

    def run(self) -> int:
        """Until STOP, or until the primary is gone and nothing waits any more; the exit code."""
        self.poller.add(self.talk.control, self._hear)
        self.talk.event(ControlKind.STARTED, 0, os.getpid())
        timeout = -1
        try:
            while not self._ended():
                self.poller.wait(timeout)
                timeout = self._round(time.monotonic_ns())
        finally:
            # Also after a mistake of ours: what is held goes back into a channel.
            self._finish()
        return 0

    def _round(self, now: int) -> int:
        """Every part's turn; nanoseconds until the next deadline, -1 when there is none."""
        self.totals.rounds += 1
        self.acceptor.run(now)
        due = [self.watch.run(now), self.reclaims.run(now), self.acceptor.look(now)]
        due.append(self.heirs.run(now))
        if self.reclaims.changed:
            due.append(now)
        if self.talk.waits:
            self.talk.flush()
            self._listen_again()
            due.append(now + TALK_AGAIN)
        if self._leave_ns:
            due.append(now + LEAVE_LOOK)
        deadline = min((when for when in due if when), default=0)
        return max(deadline - time.monotonic_ns(), 0) if deadline else -1

    # ---- the primary ------------------------------------------------------------------------

    def _hear(self) -> None:
        for _ in range(REQUESTS_PER_ROUND):
            if self.talk.crowded:
                # It asks faster than it reads the answers.
                self.poller.remove(self.talk.control)
                self._deaf = True
                return
            heard = self.talk.hear()
            if heard is None:
                break
            self.heirs.heard()
            self.requests.serve(*heard)
            if self.requests.stopped:
                return
        if self.talk.ended and self.talk.control >= 0:
            self._primary_gone(time.monotonic_ns())

    def _listen_again(self) -> None:
        if self._deaf and not self.talk.crowded:
            self._deaf = False
            self.poller.add(self.talk.control, self._hear)

    def _primary_gone(self, now: int) -> None:
        if self.heirs.wanted:
            self._deaf = False
            self.heirs.lost(now)
        else:
            self._leave(now)

    def _leave(self, now: int) -> None:
        """Nobody follows the primary: hand out what the backlogs hold, and end when all is done."""
        self.poller.remove(self.talk.control)
        self._leave_ns = now + LEAVE_LIMIT
        for listener in self.acceptor.listeners:
            if listener.open:
                # What is in a backlog is lost with its last fd, and only then.
                few = listener.shared or self.slots.unserved >> listener.index & 1
                limit = LEAVE_FEW if few else LEAVE_LISTENERS
                self.acceptor.start_close(listener, LEAVE_QUIET, limit, now)

    # ---- the end ----------------------------------------------------------------------------

    def _ended(self) -> bool:
        if self.requests.stopped:
            return True
        if not self._leave_ns:
            return False
        if time.monotonic_ns() >= self._leave_ns:
            return True
        workers = self.slots.workers.values()
        if all(worker.state == State.DEAD for worker in workers):
            return True
        if any(listener.open for listener in self.acceptor.listeners):
            return False
        if self.sender.held or self.sender.aside:
            return False
        for worker in workers:
            worker.measure()
        return not any(self._to_wait_for(worker) for worker in workers)

    def _to_wait_for(self, worker: Worker) -> bool:
        """Something of it may be served yet: not what nobody READY has a channel for."""
        if self.reclaims.asked(worker):
            return True
        if worker.state != State.DEAD:
            return worker.waiting > 0
        unserved = self.slots.unserved
        return any(one.waiting and not unserved >> i & 1 for i, one in worker.lanes.items())

    def _finish(self) -> None:
        self.reclaims.finish()
        self.sender.put_back(time.monotonic_ns())
        for worker in self.slots.workers.values():
            self.poller.remove(worker.pidfd)
            worker.close()
        for listener in self.acceptor.listeners:
            if listener.open:
                listener.closing = None
                self.acceptor.drop(listener)
        self.estate.close()
        self.heirs.close()
        self.poller.close()
        os.close(self.null)
        self.talk.close()
