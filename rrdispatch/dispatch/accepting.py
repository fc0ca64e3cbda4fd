"""The listeners: which are armed, accepting in rounds, what accept's errors mean, and closing.

Owns the listening sockets' descriptors. It must not know channels. Before accept is tried, somebody
must have room; else the listeners are disarmed and the kernel's backlog holds the rest.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable

from rrdispatch import _core
from rrdispatch._core.layout import ControlKind
from rrdispatch.dispatch.lanes import MS
from rrdispatch.dispatch.listening import Listening
from rrdispatch.dispatch.peers import known
from rrdispatch.dispatch.poller import Poller
from rrdispatch.dispatch.sending import Sender
from rrdispatch.dispatch.slots import Slots, Worker
from rrdispatch.dispatch.talk import Talk

SECOND = 1000 * MS
PAUSE_FIRST, PAUSE_MOST = 10 * MS, 500 * MS
FULL_RETRY_MOST = 10 * MS
QUICKLY, SLOWLY = 16, 256  # parts of how long there was none
UNSERVED_AGAIN = 10 * MS

# Errors of the connection that was to be accepted: the next one may be good.
NEXT = frozenset(
    {
        errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN,
        errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EPERM,
    }
)  # fmt: skip
FATAL = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})


class Acceptor:
    """All listeners, and whether anything is accepted at all."""

    def __init__(self, poller: Poller, sender: Sender, talk: Talk) -> None:
        self.listeners: list[Listening] = []
        self.full = False
        # To those who waited for dead workers, at a listener or, with -1, at those that all serve.
        self.give_way: Callable[[int], bool] = lambda _: False
        self._poller = poller
        self._sender = sender
        self._talk = talk
        self._first = 0
        self._unserved = 0  # as the listeners were armed last
        self._aside_ns = 0  # since when something is held for one of them only
        self._full_ns = 0
        self._full_told = False
        self._full_told_ns = -SECOND

    @property
    def _slots(self) -> Slots:
        return self._sender.slots

    # ---- armed or not -----------------------------------------------------------------------

    def add(self, index: int, fd: int, shared: bool) -> None:
        """Take over a listening socket; OSError if it is none, and then the fd is the caller's."""
        before = self.find(index)
        if before is not None and before.open:
            raise OSError(errno.EEXIST, "index")
        sock = socket.socket(fileno=fd)
        try:
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise OSError(errno.EINVAL, "it does not listen")
            if not known(sock.family):
                raise OSError(errno.EAFNOSUPPORT, "neither TCP nor unix")
            os.set_blocking(fd, False)
            listener = Listening(index, sock, shared=shared)
            if not self.full:
                self._arm(listener)
        except OSError:
            sock.detach()
            raise
        if before is not None:
            self.listeners.remove(before)
        self.listeners.append(listener)

    def find(self, index: int) -> Listening | None:
        """The listener of this index, be it closed; a successor is not told of those before it."""
        return next((one for one in self.listeners if one.index == index), None)

    def _arm(self, listener: Listening) -> None:
        if listener.open and not listener.armed and not listener.retry_ns:
            if self._slots.unserved >> listener.index & 1 or listener.index in self._sender.aside:
                return
            self._poller.add(listener.sock.fileno(), listener.note_readable)
            listener.armed = True

    def _disarm(self, listener: Listening) -> None:
        if listener.armed:
            self._poller.remove(listener.sock.fileno())
            listener.armed = listener.readable = False

    def _serve(self, now: int) -> None:
        """Arm what is served now; a listener that nobody READY has a channel for waits alone."""
        self._unserved = self._slots.unserved
        for listener in self.listeners:
            if self._unserved >> listener.index & 1:
                self._disarm(listener)
            elif not self.full and not listener.armed:
                self._arm(listener)
                listener.quiet_ns = now + listener.quiet

    def _wait_for_room(self, listener: Listening, now: int) -> None:
        """Nobody has room. Or the few who have a channel for it have none: then it waits alone."""
        index = listener.index
        if self._sender.held or not self._slots.partial(index) or not self._slots.has_room():
            self._become_full(now)
        else:
            self._wait_alone(listener, now)

    def _wait_alone(self, listener: Listening, now: int) -> None:
        listener.pause_ns = min(2 * listener.pause_ns or MS, FULL_RETRY_MOST)
        listener.retry_ns = now + listener.pause_ns
        self._disarm(listener)

    def _become_full(self, now: int) -> None:
        if self.full:
            return
        self.full, self._full_ns = True, now
        for listener in self.listeners:
            self._disarm(listener)
        if now - self._full_told_ns >= SECOND:
            self._full_told, self._full_told_ns = True, now
            self._talk.event(ControlKind.FULL)

    def _become_roomy(self, now: int) -> None:
        self.full = False
        for listener in self.listeners:
            self._arm(listener)
            listener.quiet_ns = now + listener.quiet
            # It was disarmed while something waited: look without asking the poller first.
            listener.readable = listener.armed
        if self._full_told:
            self._full_told = False
            self._talk.event(ControlKind.ROOM)

    # ---- accepting --------------------------------------------------------------------------

    def run(self, now: int) -> None:
        """One round over all listeners that have something."""
        sender, slots = self._sender, self._sender.slots
        if slots.unserved != self._unserved:
            self._serve(now)
        later = self.give_way(-1)
        if self.full or sender.held or sender.aside or later:
            self._retry(now, later)
        if not self.full:
            self._round(now)
        if sender.collected:
            sender.flush(now)
            if sender.held:
                self._become_full(now)

    def _retry(self, now: int, later: bool) -> None:
        """Again for what is held: is there room now?"""
        sender, slots = self._sender, self._slots
        slots.refresh(now)
        sender.retry_held(now)
        sender.return_moved(now)
        if sender.held or later or not slots.has_room():
            self._become_full(now)
        elif self.full:
            self._become_roomy(now)
        else:
            self._serve(now)

    def _round(self, now: int) -> None:
        count = len(self.listeners)
        for step in range(count):
            listener = self.listeners[(self._first + step) % count]
            if listener.readable and listener.armed and not self.full:
                self._accept_some(listener, now)
        self._first = (self._first + 1) % count if count else 0

    def _accept_some(self, listener: Listening, now: int) -> None:
        """At most a round of them. Counts are read again after as many picks as there are workers:
        one reading per pick."""
        slots = self._sender.slots
        if slots.partial(listener.index) and self.give_way(listener.index):
            self._wait_alone(listener, now)
            return
        left = slots.settings.round
        while left > 0:
            slots.refresh(now)
            workers = slots.in_turn(listener.index)
            if workers:
                now = self._accept_in_turn(listener, workers[:left], now)
            else:
                workers = slots.ready
                now = self._accept_by_policy(listener, min(left, len(workers) or 1), now)
            if not now:
                break
            left -= len(workers) or 1

    def _accept_in_turn(self, listener: Listening, workers: list[Worker], now: int) -> int:
        """One for each of them; the time, or 0: no more in this round. Next to nothing is done
        per connection: this is where a Python dispatcher spends its time."""
        sender, letter, lane = self._sender, listener.letter, listener.index
        accept, clock = listener.accept, time.monotonic_ns
        write, give = letter.write, sender.give_in_turn
        count, fd, failure = 0, -1, None
        try:
            for worker in workers:
                fd, address = accept()
                now = clock()
                write(now, address)
                give(worker, fd, now, letter, lane)
                count += 1
                fd = -1
        except OSError as error:
            failure = error
        if count:
            self._note_accepted(listener, count, now)
            sender.note_in_turn(count, now)
        if fd >= 0:
            return now if self._give_again(listener, fd, now) else 0
        return now if failure is None or self._failed(listener, failure, now) else 0

    def _give_again(self, listener: Listening, fd: int, now: int) -> bool:
        """Whose turn it is could not be given its connection; True: go on with this round."""
        sender = self._sender
        self._note_accepted(listener, 1, now)
        sender.slots.refresh(now)
        sender.give(sender.slots.turn, fd, now, listener.letter, listener.index)
        if sender.held:
            self._become_full(now)
        return not sender.held

    def _accept_by_policy(self, listener: Listening, most: int, now: int) -> int:
        """The same for whoever the policy picks, one by one."""
        sender, slots = self._sender, self._sender.slots
        letter, lane = listener.letter, listener.index
        for _ in range(most):
            index = slots.next(lane)
            if index < 0:
                slots.refresh(now)
                index = slots.next(lane)
            if index < 0:
                self._wait_for_room(listener, now)
                return 0
            try:
                fd, address = listener.accept()
            except OSError as error:
                if self._failed(listener, error, now):
                    continue
                return 0
            now = time.monotonic_ns()
            self._note_accepted(listener, 1, now)
            letter.write(now, address)
            if slots.sticky:
                index = slots.next_of(lane, letter.peer())
            sender.give(index, fd, now, letter, lane)
            if sender.held or lane in sender.aside:
                self._wait_for_room(listener, now)
                return 0
        return now

    def _dry(self, listener: Listening) -> None:
        listener.readable = False
        unix = listener.sock.family == socket.AF_UNIX
        if listener.ending and not listener.shared and (unix or listener.narrow):
            # A gated unix listener gets nothing more, and the poller would call it readable;
            # without a gate each moment of quiet lets somebody in.
            self.drop(listener)

    def _note_accepted(self, listener: Listening, count: int, now: int) -> None:
        self._sender.totals.accepted += count
        listener.accepted += count
        listener.pause_ns = 0
        listener.quiet_ns = now + listener.quiet

    def _failed(self, listener: Listening, error: OSError, now: int) -> bool:
        """True: go on with this listener in this round."""
        if isinstance(error, BlockingIOError):
            self._dry(listener)
            return False
        code = error.errno or 0
        self._sender.totals.accept_errors += 1
        if code in NEXT:
            if not listener.error_told_ns or now - listener.error_told_ns >= SECOND:
                self._tell_error(listener, code, 0, now)
            return True
        if code in FATAL:
            if listener.closing is None and not listener.ending:
                self._talk.event(ControlKind.LISTENER_FAILED, listener=listener.index, result=-code)
            listener.failed = not listener.ending
            self.drop(listener)
            return False
        listener.pause_ns = min(2 * listener.pause_ns or PAUSE_FIRST, PAUSE_MOST)
        listener.retry_ns = now + listener.pause_ns
        self._disarm(listener)
        self._tell_error(listener, code, listener.pause_ns, now)
        return False

    def _tell_error(self, listener: Listening, code: int, pause: int, now: int) -> None:
        listener.error_told_ns = now
        self._talk.event(
            ControlKind.ACCEPT_ERROR, value=pause, listener=listener.index, result=-code
        )

    # ---- closing ----------------------------------------------------------------------------

    def start_close(self, listener: Listening, quiet: int, limit: int, now: int) -> None:
        """Turn new connections away, accept what is queued, and close when nothing more comes."""
        listener.ending = True
        waits = self._slots.unserved >> listener.index & 1
        listener.empty = bool(waits) and not listener.waits()
        if not listener.shared:
            try:
                _core.gate(listener.sock.fileno())
            except OSError:
                # A filter on TCP takes CAP_NET_ADMIN on newer kernels (EPERM without it on 6.18).
                listener.sock.listen(0)
                listener.narrow = True
        listener.accepted = 0
        listener.quiet = quiet
        listener.quiet_ns = now + quiet
        listener.limit_ns = now + limit

    def orphan(self) -> None:
        """Whoever waits for a close is dead: it goes on."""
        self._full_told = False
        for listener in self.listeners:
            listener.closing = None

    def drop(self, listener: Listening) -> None:
        """Close it, and answer who asked for that."""
        self._disarm(listener)
        if listener.narrow:
            # The primary closes its copy later: nobody is to be let in, and reset, until then.
            listener.sock.shutdown(socket.SHUT_RD)
        listener.sock.close()
        listener.open = listener.ending = False
        if listener.closing is not None:
            self._talk.answer(listener.closing, 0, (listener.accepted,))
            listener.closing = None

    def _is_quiet(self, listener: Listening, now: int) -> bool:
        """Nothing came for so long. Where nobody can accept, the backlog is asked for instead; a
        shut unix listener is always readable: what was in it when it was shut waits for the limit.
        """
        if now <= listener.quiet_ns:
            return False
        if listener.armed:
            return not listener.readable
        index = listener.index
        if not self._slots.unserved >> index & 1 or index in self._sender.aside:
            return False
        listener.quiet_ns = now + listener.quiet + UNSERVED_AGAIN
        if listener.sock.family == socket.AF_UNIX and not listener.shared:
            return listener.empty
        return not listener.waits()

    def look(self, now: int) -> int:
        """Ends pauses and closes whose time has come; when to look again (0: no need)."""
        due = [now + self._retry_after(self._full_ns, now)] if self.full and self._hopeful() else []
        if self._sender.aside:
            self._aside_ns = self._aside_ns or now
            due.append(now + self._retry_after(self._aside_ns, now))
        else:
            self._aside_ns = 0
        for listener in self.listeners:
            if not listener.open:
                continue
            if listener.retry_ns and now >= listener.retry_ns:
                listener.retry_ns = 0
                if not self.full:
                    self._arm(listener)
                    listener.quiet_ns = now + listener.quiet
            if listener.retry_ns:
                due.append(listener.retry_ns)
            if listener.ending:
                if self._is_quiet(listener, now) or now >= listener.limit_ns:
                    self.drop(listener)
                else:
                    due += [listener.limit_ns, max(listener.quiet_ns, now + MS)]
        return min(due, default=0)

    def _hopeful(self) -> bool:
        """Room may show itself by a timer (EPOLLOUT would come too late); else only by an event."""
        slots = self._sender.slots
        return bool(self._sender.held) or any(not one.stalled_ns for one in slots.ready)

    def _retry_after(self, since: int, now: int) -> int:
        """Room shows itself by a timer only; the longer none was, the less often it is worth it.
        Where queues are short it comes and goes quickly, but for those who serve for seconds.
        """
        part = SLOWLY if self._sender.slots.short_queues else QUICKLY
        return max(MS, min((now - since) // part, FULL_RETRY_MOST))
