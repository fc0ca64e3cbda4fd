"""The primary's requests: one function each, in a table by kind. It must not know sockets.

A function returns the answer's values, or None when the answer comes later; OSError is the answer's
result, and then nothing has changed. The fds that it uses it takes out of the list; whoever called
closes the rest.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable

from rrdispatch._core.layout import (
    BATCH_MAX,
    CONTROL_VALUES,
    CONTROL_VERSION,
    MAX_LISTENERS,
    MAX_WORKERS,
    QUEUE_LIMIT_MAX,
    SWITCH_NO_PROBE,
    SWITCH_NO_TAKE_BACK,
    Control,
    ControlKind,
    Field,
    Inherit,
    Policy,
    State,
)
from rrdispatch._core.pure import Scoreboard
from rrdispatch.dispatch import tracing
from rrdispatch.dispatch.accepting import Acceptor
from rrdispatch.dispatch.heirs import Heirs
from rrdispatch.dispatch.lanes import Lane
from rrdispatch.dispatch.poller import Poller
from rrdispatch.dispatch.sending import Sender
from rrdispatch.dispatch.slots import ORPHANED, Worker
from rrdispatch.dispatch.talk import Find
from rrdispatch.dispatch.watch import Watch

ROUND_DEFAULT = 64
ROUND_MOST = 4096
U32 = (1 << 32) - 1
PIDFD, BOARD, LIFELINE, CHANNELS = range(4)
WITH_FDS = (
    ControlKind.LISTENER_ADD, ControlKind.WORKER_ADD, ControlKind.KEEP, ControlKind.HEIR,
    ControlKind.CHANNEL_ADD,
)  # fmt: skip

Values = tuple[int, ...]
Call = Callable[[Control, list[int]], Values | None]


def _fail(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class Requests:
    """Serves one message at a time."""

    def __init__(
        self, poller: Poller, acceptor: Acceptor, sender: Sender, watch: Watch, heirs: Heirs
    ) -> None:
        self.stopped = False
        self._heirs = heirs
        self._estate = heirs.estate
        self._find: Find | None = None  # the fds of the answer
        self._poller = poller
        self._acceptor = acceptor
        self._sender = sender
        self._slots = sender.slots
        self._watch = watch
        self._talk = heirs.talk
        self._calls: dict[int, Call] = {
            ControlKind.SETTINGS: self._settings,
            ControlKind.LISTENER_ADD: self._listener_add,
            ControlKind.LISTENER_CLOSE: self._listener_close,
            ControlKind.WORKER_ADD: self._worker_add,
            ControlKind.WORKER_READY: self._worker_ready,
            ControlKind.WORKER_PARK: self._worker_park,
            ControlKind.WORKER_DRAIN: self._worker_drain,
            ControlKind.WORKER_REMOVE: self._worker_remove,
            ControlKind.PING: self._ping,
            ControlKind.STATS: self._stats,
            ControlKind.STOP: self._stop,
            ControlKind.KEEP: self._keep,
            ControlKind.INHERIT: self._inherit,
            ControlKind.HEIR: self._heir,
            ControlKind.CHANNEL_ADD: self._channel_add,
        }

    def serve(self, data: bytes, fds: list[int]) -> None:
        """Do what a message asks for and answer it; its fds are ours from here on."""
        request = Control.unpack(data)
        result, values, self._find = 0, None, None
        try:
            values = self._call(request, fds)
        except OSError as error:
            result = -(error.errno or errno.EIO)
        # Before the answer: whoever has it may count on them being closed.
        for fd in fds:
            os.close(fd)
        if result or values is not None:
            self._talk.answer(request, result, values or (), self._find)

    def _call(self, request: Control, fds: list[int]) -> Values | None:
        if request.version != CONTROL_VERSION:
            raise _fail(errno.EPROTO)
        call = self._calls.get(request.kind)
        if call is None:
            raise _fail(errno.ENOSYS)
        if fds and request.kind not in WITH_FDS:
            raise _fail(errno.EPROTO)
        return call(request, fds)

    # ---- settings and listeners -------------------------------------------------------------

    def _settings(self, request: Control, _: list[int]) -> Values:
        policy, limit, stall, band, heartbeat, count, switches = request.values[:7]
        wrong = policy > max(Policy) or not 1 <= limit <= QUEUE_LIMIT_MAX or stall < 1
        if wrong or band > U32 or count > ROUND_MOST:
            raise _fail(errno.EINVAL)
        settings = self._slots.settings
        settings.policy, settings.queue_limit, settings.stall_timeout = policy, limit, stall
        settings.band, settings.heartbeat_timeout = band, heartbeat
        settings.round = count or ROUND_DEFAULT
        settings.take_back = not switches & SWITCH_NO_TAKE_BACK
        settings.probe = not switches & SWITCH_NO_PROBE
        self._watch.soon()
        return ()

    def _listener_add(self, request: Control, fds: list[int]) -> Values:
        if len(fds) != 1:
            raise _fail(errno.EPROTO)
        if request.listener >= MAX_LISTENERS:
            raise _fail(errno.ERANGE)
        self._acceptor.add(request.listener, fds[0], bool(request.values[0] & 1))
        fds.clear()
        return ()

    def _listener_close(self, request: Control, _: list[int]) -> Values | None:
        listener = self._acceptor.find(request.listener)
        if listener is None:
            raise _fail(errno.ENOENT)
        if listener.failed:
            listener.failed = False
            return (0,)
        if not listener.open:
            raise _fail(errno.ENOENT)
        if listener.closing is not None:
            raise _fail(errno.EALREADY)
        listener.closing = request
        if not listener.ending:
            quiet, limit = request.values[:2]
            self._acceptor.start_close(listener, quiet, limit, time.monotonic_ns())
        return None

    # ---- workers ----------------------------------------------------------------------------

    def _worker(self, request: Control) -> Worker:
        worker = self._slots.workers.get(request.worker)
        if worker is None:
            raise _fail(errno.ESRCH)
        return worker

    def _worker_add(self, request: Control, fds: list[int]) -> Values:
        channels = fds[CHANNELS:]
        if len(fds) < CHANNELS or len(channels) % 2 or len(channels) > 2 * MAX_LISTENERS:
            raise _fail(errno.EPROTO)
        numbers = _listeners(request.values[2], len(channels) // 2)
        for fd in channels:
            _expect_channel(fd)
        if request.worker in self._slots.workers:
            raise _fail(errno.EEXIST)
        if len(self._slots.workers) >= MAX_WORKERS:
            raise _fail(errno.ENOSPC)
        board = Scoreboard(fds[BOARD], writable=True)
        try:
            self._poller.add(fds[PIDFD], lambda: self._pidfd_readable(worker))
        except OSError:
            board.close()
            raise
        now = time.monotonic_ns()
        lanes = {
            number: Lane(sender, receiver, now)
            for number, sender, receiver in zip(numbers, channels[::2], channels[1::2], strict=True)
        }
        slot, generation = request.values[:2]
        worker = Worker(request.worker, slot, generation, fds[PIDFD], fds[LIFELINE], board, lanes)
        worker.board_fd = fds[BOARD]
        fds.clear()
        worker.given = worker.sent = worker.handled() + sum(len(one.ring) for one in lanes.values())
        worker.enter(State.STARTING)
        board.store(Field.STALLED, 0)
        self._slots.workers[worker.id] = worker
        self._watch.soon()
        return ()

    def _channel_add(self, request: Control, fds: list[int]) -> Values:
        worker, number = self._worker(request), request.listener
        listener = self._acceptor.find(number)
        if listener is None or not listener.open:
            raise _fail(errno.ENOENT)
        if number in worker.lanes:
            raise _fail(errno.EEXIST)
        if len(fds) != 2 or not all(map(_is_channel, fds)):
            raise _fail(errno.EPROTO)
        if worker.state in (State.DEAD, State.DRAINING):
            raise _fail(errno.EINVAL)
        lane = worker.lanes[number] = Lane(fds[0], fds[1], time.monotonic_ns())
        fds.clear()
        tracing.opened(worker, lane)
        worker.given += lane.waiting
        worker.sent += lane.waiting
        self._slots.cover()
        self._watch.soon()
        return ()

    def _pidfd_readable(self, worker: Worker) -> None:
        if worker.state != State.DEAD and _ended(worker.pidfd):
            self._poller.remove(worker.pidfd)
            self._watch.died(worker)

    def _worker_ready(self, request: Control, _: list[int]) -> Values:
        worker = self._worker(request)
        capacity, batch = request.values[:2]
        if batch > BATCH_MAX or capacity > U32:
            raise _fail(errno.EINVAL)
        self._enter(worker, State.READY, (State.STARTING, State.PARKED, State.READY))
        worker.capacity = worker.candidate.capacity = capacity
        worker.batch = max(batch, 1)
        self._slots.rebuild()
        return ()

    def _worker_park(self, request: Control, _: list[int]) -> Values:
        self._enter(self._worker(request), State.PARKED, (State.READY, State.PARKED))
        return ()

    def _enter(self, worker: Worker, state: State, allowed: tuple[State, ...]) -> None:
        if worker.state not in allowed:
            raise _fail(errno.EINVAL)
        worker.enter(state)
        self._slots.rebuild()
        self._watch.soon()

    def _worker_drain(self, request: Control, _: list[int]) -> None:
        worker = self._worker(request)
        if worker.drain_awaited:
            raise _fail(errno.EALREADY)
        if worker.draining is None:
            worker.moved_lately = 0
        worker.draining = request.sequence
        if worker.state != State.DEAD:
            # Everything of it is moved now, a probe too: it is not asked whether it takes.
            worker.unstall()
            self._enter(worker, State.DRAINING, tuple(State))
        self._watch.soon()

    def _worker_remove(self, request: Control, _: list[int]) -> None:
        worker = self._worker(request)
        if worker.removing not in (None, ORPHANED):
            raise _fail(errno.EALREADY)
        self._pidfd_readable(worker)
        if worker.state != State.DEAD:
            raise _fail(errno.EBUSY)
        worker.removing = request.sequence
        self._watch.soon()

    # ---- numbers, the end -------------------------------------------------------------------

    def _ping(self, _: Control, __: list[int]) -> Values:
        totals = self._sender.totals
        return (
            time.monotonic_ns(), totals.accepted, totals.sent, totals.moved, totals.accept_errors,
            totals.lost, totals.abandoned, len(self._slots.workers), totals.rounds,
            self._heirs.started,
        )  # fmt: skip

    def _stats(self, request: Control, _: list[int]) -> Values:
        worker = self._worker(request)
        worker.measure()
        return (
            worker.sent, worker.waiting, worker.inflight(), worker.state,
            int(worker.stalled_ns > 0), worker.moved_away, worker.picks, worker.capacity,
        )  # fmt: skip

    # ---- heirs ------------------------------------------------------------------------------

    def _keep(self, request: Control, fds: list[int]) -> Values:
        self._estate.keep(request, fds)
        return ()

    def _inherit(self, request: Control, fds: list[int]) -> Values:
        what, tag = request.values[:2]
        self._estate.find(request)  # fails now if there is nothing
        mask = -1
        first: Values = ()
        if what == Inherit.WORKER:
            mask = self._worker(request).mask
            first = (*self._stats(request, fds), mask)
        elif what == Inherit.LISTENER:
            listener = self._acceptor.find(request.listener)
            first = (int(listener is not None and listener.ending),)
        self._find = lambda: self._estate.find(request, mask)
        # What was asked for is said at the end.
        return (*first, *(0,) * (CONTROL_VALUES - 2 - len(first)), what, tag)

    def _heir(self, request: Control, fds: list[int]) -> Values:
        self._heirs.instruct(request, fds)
        return ()

    def _stop(self, _: Control, __: list[int]) -> Values:
        self.stopped = True
        return ()


def _listeners(mask: int, count: int) -> list[int]:
    """Whose channels a WORKER_ADD carries, in this order; 0 = of the first ones."""
    if mask >> MAX_LISTENERS:
        raise _fail(errno.EINVAL)
    mask = mask or (1 << count) - 1
    if mask.bit_count() != count:
        raise _fail(errno.EPROTO)
    return [number for number in range(MAX_LISTENERS) if mask >> number & 1]


def _is_channel(fd: int) -> bool:
    try:
        _expect_channel(fd)
    except OSError:
        return False
    return True


def _expect_channel(fd: int) -> None:
    sock = socket.socket(fileno=fd)
    found = (sock.family, sock.type)
    sock.detach()
    if found != (socket.AF_UNIX, socket.SOCK_STREAM):
        raise _fail(errno.EPROTOTYPE)


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
