"""Take-back: whose queue is moved, asking a helper for it, and giving what comes to others.

Owns the helpers. One is forked per channel and holds only that channel's receiving end and a link:
a worker stuck inside its own recvmsg freezes whoever reads the same socket, and then it is the
helper that waits. One that is late is left alone, not killed: what it may yet take would die with
it; it answers when the worker lets go, which is at its death at the latest. Where no process is
to be had, a dead worker's queue is emptied without one: whoever could be stuck in recvmsg is gone.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
from dataclasses import dataclass
from typing import NoReturn

from rrdispatch._core import pure_ledger
from rrdispatch._core.layout import BATCH_MAX, FLAG_MOVED, MESSAGE_SIZE, Kind, Message, State
from rrdispatch.dispatch import tracing
from rrdispatch.dispatch.lanes import MS, Hand
from rrdispatch.dispatch.poller import Poller
from rrdispatch.dispatch.sending import Sender
from rrdispatch.dispatch.slots import Worker

ANSWER_NS = 20 * MS
HELPERS_MAX = 64

_ROOM = socket.CMSG_SPACE(BATCH_MAX * array.array("i").itemsize)
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
_EMPTY = b"E"


# ---- the helper's process ---------------------------------------------------------------------


def _helper(worker: Worker, channel: int, link: int) -> NoReturn:
    """Take one message per request, until the dispatcher is gone or wants no more."""
    try:
        kept = sorted((channel, link, *pure_ledger.fds()))
        for low, high in zip((-1, *kept), (*kept, 1 << 20), strict=True):
            os.closerange(low + 1, high)
        tracing.reclaims_for(worker)
        source = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=channel)
        target = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=link)
        while target.recv(1):
            _fetch(source, target)
    finally:
        # Also after an exception: nothing of the dispatcher's may run in here.
        os._exit(0)


def _receive(source: socket.socket) -> tuple[bytes, list[int]]:
    """One message of a channel; nothing if there is none."""
    try:
        return tracing.receiving(lambda: source.recvmsg(MESSAGE_SIZE, _ROOM, _FLAGS))
    except BlockingIOError:
        return b"", []


def _fetch(source: socket.socket, target: socket.socket) -> None:
    data, fds = _receive(source)
    if not data:
        target.sendall(_EMPTY)
        return
    _forward(target, data, fds)
    for fd in fds:
        os.close(fd)


def _forward(target: socket.socket, data: bytes, fds: list[int]) -> None:
    """What it holds is a client's connection: kept until the dispatcher has it or is gone."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    while True:
        try:
            target.sendmsg([data], rights)
        except OSError as error:
            if error.errno not in (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM):
                raise
            select.select([], [], [], 0.001)
            continue
        return


def _room_for_fds(fd: int) -> bool:
    """A message with the most descriptors could be received now."""
    reserved: list[int] = []
    try:
        for _ in range(BATCH_MAX):
            reserved.append(os.dup(fd))  # noqa: PERF401 (kept when a later one fails)
    except OSError:
        return False
    finally:
        for number in reserved:
            os.close(number)
    return True


# ---- the dispatcher's side ----------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Helper:
    """One helper; ``asked_ns`` is 0 while it has nothing to answer."""

    worker: Worker
    lane: int
    link: socket.socket
    asked_ns: int = 0
    late: bool = False
    polled: bool = False


class Reclaims:
    """All helpers, at most one per worker."""

    def __init__(self, poller: Poller, sender: Sender) -> None:
        self._poller = poller
        self._sender = sender
        self._helpers: dict[Worker, Helper] = {}
        self.changed = False  # the watch should look at what has come back
        self.wanting: list[Worker] = []  # by the last look of the watch
        self._refused = False  # no helper is to be had now

    def wanted(self, worker: Worker) -> bool:
        """Its queue is to be moved."""
        if not self._sender.slots.settings.take_back:
            return False
        if worker.state in (State.DEAD, State.DRAINING):
            return True
        return bool(worker.stalled_ns) and not worker.probe_ns

    def busy(self, worker: Worker) -> bool:
        """A helper of it exists."""
        return worker in self._helpers

    def asked(self, worker: Worker) -> int:
        """1 while a helper may hold, or may just be taking, one message of it."""
        helper = self._helpers.get(worker)
        return 1 if helper is not None and helper.asked_ns else 0

    def of_dead(self, only: int) -> bool:
        """Who waited for a worker that died goes before those who come now: accepting goes on by
        itself and take-back by asking; under overload they would be overtaken again and again.
        What only some have a channel for holds up its own listener only.
        """
        if not (self.wanting or self._helpers) or not self._sender.slots.ready or self._refused:
            return False
        partial = self._sender.slots.partial

        def concerned(number: int) -> bool:
            return number == only if only >= 0 else not partial(number)

        if any(
            self._fetches_for_dead(one) and concerned(one.lane) for one in self._helpers.values()
        ):
            return True
        dead = (one for one in self.wanting if one.state == State.DEAD and not self._is_late(one))
        return any(
            lane.queued() for one in dead for number, lane in one.lanes.items() if concerned(number)
        )

    def _fetches_for_dead(self, helper: Helper) -> bool:
        """It may have the last one of the queue in its hand."""
        return helper.asked_ns > 0 and not helper.late and helper.worker.state == State.DEAD

    def _is_late(self, worker: Worker) -> bool:
        helper = self._helpers.get(worker)
        return helper is not None and helper.late

    def run(self, now: int) -> int:
        """Ask for what is wanted, as far as others have room; when to look again (0: no need)."""
        slots = self._sender.slots
        wanting = self.wanting
        if not wanting and not self._helpers:
            return 0
        for helper in list(self._helpers.values()):
            self._poll(helper)
            if helper.asked_ns and not helper.late and now - helper.asked_ns >= ANSWER_NS:
                helper.late = True
                self._sender.totals.abandoned += 1
        slots.refresh(now)
        for helper in list(self._helpers.values()):
            if not helper.asked_ns and not self._useful(helper):
                self._end(helper)
        for worker in wanting:
            if self._sender.held:
                break
            self._ask(worker, now)
        return self._due(now, wanting)

    def _due(self, now: int, wanting: list[Worker]) -> int:
        deadlines = [
            one.asked_ns + ANSWER_NS
            for one in self._helpers.values()
            if one.asked_ns and not one.late
        ]
        unpolled = any(not one.polled for one in self._helpers.values())
        if unpolled or any(not self.asked(one) and self._is_served(one) for one in wanting):
            # It waits for room at the others, or in our table of descriptors.
            deadlines.append(now + MS)
        return min(deadlines, default=0)

    def _is_served(self, worker: Worker) -> bool:
        """Something waits for it that somebody READY has a channel for."""
        served = self._sender.slots.served
        return any(one.ring and served >> i & 1 for i, one in worker.lanes.items())

    def _useful(self, helper: Helper) -> bool:
        """It may be asked again, now or when there is room, if no other channel has room now."""
        worker = helper.worker
        if not self.wanted(worker) or not worker.lanes[helper.lane].queued():
            return False
        return self._may_fetch(helper.lane) or self._fetchable(worker) < 0

    def _on_the_way(self, lane: int) -> int:
        """Asked for. What only some can have is counted apart from what all can."""
        partial = self._sender.slots.partial
        alike = [one for one in self._helpers.values() if one.asked_ns and not one.late]
        if partial(lane):
            return sum(one.lane == lane for one in alike)
        return sum(not partial(one.lane) for one in alike)

    def _may_fetch(self, lane: int) -> bool:
        """No more is on its way than others have room for."""
        sender = self._sender
        return lane not in sender.aside and sender.slots.room_for(lane) > self._on_the_way(lane)

    def _fetchable(self, worker: Worker) -> int:
        """The first channel in which something waits that somebody can have, or -1."""
        lanes = sorted(worker.lanes.items())
        return next((i for i, one in lanes if one.queued() and self._may_fetch(i)), -1)

    def _ask(self, worker: Worker, now: int) -> None:
        helper = self._helpers.get(worker)
        if helper is None:
            lane = self._fetchable(worker)
            if lane < 0 or len(self._helpers) >= HELPERS_MAX:
                return
            helper = self._start(worker, lane)
            self._refused = helper is None
            if helper is None and worker.state == State.DEAD:
                self._fetch_here(worker, lane)
        if helper is None or helper.asked_ns or not self._may_fetch(helper.lane):
            return
        try:
            helper.link.send(b"T", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            self._end(helper)
            return
        helper.asked_ns = now

    def _start(self, worker: Worker, lane: int) -> Helper | None:
        try:
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            # Out of descriptors now: it is tried again at the next look.
            return None
        with its:
            try:
                pid = os.fork()
            except OSError:
                # And so it is without a process to be had.
                ours.close()
                return None
            if pid == 0:
                _helper(worker, worker.lanes[lane].receiver, its.fileno())
        helper = self._helpers[worker] = Helper(worker, lane, ours)
        self._poll(helper)
        return helper

    def _fetch_here(self, worker: Worker, lane: int) -> None:
        """Without a process: one message, as a helper would fetch it."""
        receiver = worker.lanes[lane].receiver
        if not _room_for_fds(receiver):
            return
        source = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=receiver)
        try:
            with tracing.reclaiming(worker):
                data, fds = _receive(source)
        finally:
            source.detach()
        if len(data) == MESSAGE_SIZE:
            self._refused, self.changed = False, True
            self._fetched(worker, lane, Message.unpack(data), fds)

    def _poll(self, helper: Helper) -> None:
        if not helper.polled:
            self._poller.add(helper.link.fileno(), lambda: self._answered(helper))
            helper.polled = True

    def _end(self, helper: Helper) -> None:
        """It sees the end of its link and exits; SIGCHLD is ignored: nobody has to reap it."""
        self._poller.remove(helper.link.fileno())
        helper.link.close()
        del self._helpers[helper.worker]
        self.changed = True

    def _answered(self, helper: Helper) -> None:
        if self._helpers.get(helper.worker) is not helper:
            return
        if not _room_for_fds(helper.link.fileno()):
            # The kernel would drop what it brings. It keeps it until there is room.
            self._poller.remove(helper.link.fileno())
            helper.polled = False
            return
        try:
            data, rights, _, _ = helper.link.recvmsg(MESSAGE_SIZE, _ROOM, _FLAGS)
        except BlockingIOError:
            return
        except OSError:
            data, rights = b"", []
        self.changed = True
        helper.asked_ns, helper.late = 0, False
        fds = [fd for _, _, packed in rights for fd in array.array("i", packed)]
        if len(data) == MESSAGE_SIZE:
            self._fetched(helper.worker, helper.lane, Message.unpack(data), fds)
        else:
            self._end(helper)

    def _fetched(self, worker: Worker, number: int, message: Message, fds: list[int]) -> None:
        """One message came back: a connection goes to whoever has room, a probe is done with."""
        lane = worker.lanes[number]
        lane.queued()
        lane.reclaimed += 1
        if message.kind != Kind.CONNECTION:
            worker.probe_ns = 0
            for fd in fds:
                os.close(fd)
            return
        self._sender.totals.lost += message.count - len(fds)
        worker.given -= message.count
        worker.moved_away += len(fds)
        worker.moved_lately += len(fds)
        hand = Hand(fds, message.accepted_ns, message.peer, number, FLAG_MOVED, worker.id)
        # Placed at the next look, with fresh counts; until then nothing more is asked for.
        self._sender.held.append(hand)

    def finish(self) -> None:
        """At the end nothing may stay with a helper: what was asked for is awaited a moment."""
        for helper in list(self._helpers.values()):
            if helper.asked_ns and not helper.late:
                poll = select.poll()
                poll.register(helper.link, select.POLLIN)
                poll.poll(ANSWER_NS // MS)
                self._answered(helper)
            if helper.worker in self._helpers:
                self._end(helper)
