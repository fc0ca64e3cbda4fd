"""What is kept for the primary's heir, and giving it out: fds under a tag, of the app and of each
worker, beside the listeners and workers that are there anyway.

It must not know what the kept fds are for, nor how an heir is started.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from rrdispatch._core.layout import KEPT_FDS, KEPT_TAGS, AppTag, Control, Inherit, State
from rrdispatch.dispatch.accepting import Acceptor
from rrdispatch.dispatch.slots import ORPHANED, Slots, Worker


def _fail(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class Estate:
    """All that an heir may ask for."""

    def __init__(self, slots: Slots, acceptor: Acceptor) -> None:
        self._slots = slots
        self._acceptor = acceptor
        self._kept: dict[int, list[int]] = {}  # the app's, by tag

    def keep(self, request: Control, fds: list[int]) -> None:
        """KEEP: in place of what was kept under that tag."""
        table, tag = self._table(request.worker), _tag(request.values[0])
        if len(fds) > KEPT_FDS:
            raise _fail(errno.E2BIG)
        for fd in table.pop(tag, ()):
            os.close(fd)
        if fds:
            table[tag] = list(fds)
            fds.clear()

    def find(self, request: Control, mask: int = -1) -> Sequence[int]:
        """The fds that an INHERIT asks for (of channels: those in `mask`); they stay ours."""
        what, tag = request.values[:2]
        if what == Inherit.LISTENER:
            return self._listener(request.listener)
        if what == Inherit.WORKER:
            return self._worker_fds(self._worker(request.worker), mask)
        if what != Inherit.KEPT:
            raise _fail(errno.EINVAL)
        kept = self._table(request.worker).get(_tag(tag))
        if kept is None:
            raise _fail(errno.ENOENT)
        return kept

    def places_to_call(self) -> list[int]:
        """Listeners where clients of a primary call; the control socket first, or none."""
        if AppTag.CONTROL not in self._kept:
            return []
        return [self._kept[tag][0] for tag in (AppTag.CONTROL, AppTag.DOOR) if tag in self._kept]

    def orphan(self) -> None:
        """The asker of what waits for its answer is dead: it is done without one, or asked for
        again. So is a drain that was answered: nobody knows whether the answer was read.
        """
        self._acceptor.orphan()
        for worker in self._slots.workers.values():
            if worker.draining is not None or worker.state == State.DRAINING:
                worker.draining = ORPHANED
            if worker.removing is not None:
                worker.removing = ORPHANED

    def close(self) -> None:
        """Close what is kept for the app; a worker's goes with the worker."""
        for fds in self._kept.values():
            for fd in fds:
                os.close(fd)
        self._kept.clear()

    def _worker(self, number: int) -> Worker:
        worker = self._slots.workers.get(number)
        if worker is None:
            raise _fail(errno.ESRCH)
        return worker

    def _table(self, number: int) -> dict[int, list[int]]:
        return self._worker(number).kept if number else self._kept

    def _listener(self, index: int) -> Sequence[int]:
        listener = self._acceptor.find(index)
        if listener is None or not listener.open:
            raise _fail(errno.ENOENT)
        return (listener.sock.fileno(),)

    def _worker_fds(self, worker: Worker, mask: int) -> Sequence[int]:
        """In the order of WORKER_ADD."""
        lanes = [lane for number, lane in sorted(worker.lanes.items()) if mask >> number & 1]
        ends = [fd for lane in lanes for fd in (lane.sender.fileno(), lane.receiver)]
        return [worker.pidfd, worker.board_fd, worker.lifeline, *ends]


def _tag(number: int) -> int:
    if not 1 <= number <= KEPT_TAGS:
        raise _fail(errno.EINVAL)
    return number
