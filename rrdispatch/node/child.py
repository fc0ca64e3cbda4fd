"""A worker's side: its messages, and how it ends. Light: every worker loads it.

A thread reads and writes; handlers run in a second one, or in whoever is in ``run()``, so that a
server may block the main thread. Python's signal handlers run in the main thread: to end it, it is
sent the signal that ends it best.
"""

from __future__ import annotations

import atexit
import faulthandler
import fcntl
import os
import select
import signal
import socket
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from types import FrameType
from typing import Any

from rrdispatch.node import wire
from rrdispatch.node.emitter import Emitter
from rrdispatch.node.facts import Facts

MOST_EARLY = 64 << 20  # bytes that wait for the first handler; what is more is not heard
LAST_WORDS_WITHIN = 5.0  # for a primary that does not read
PATIENCE = 25.0  # then a pause of its connections is enough
EVENTS = frozenset(("online", "listening", "message", "disconnect", "exit", "error"))


class OwnProcess:
    """``worker.process``: this one."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.pid = os.getpid()

    @property
    def connected(self) -> bool:
        return self._worker.is_connected()

    def send(self, message: Any) -> bool:
        return self._worker.send(message)

    def disconnect(self) -> None:
        """Ends the messages, and so the worker, now."""
        self._worker.hang_up("hang_up")


class Worker(Emitter):
    """``cluster.worker`` in a worker."""

    EVENTS = EVENTS

    def __init__(self, number: int, sock: socket.socket, lifeline: int | None = None) -> None:
        super().__init__()
        self.id = number
        self.state = "online"
        self.exited_after_disconnect: bool | None = None
        self.process = OwnProcess(self)
        self.facts = Facts(self._take, self._flow)
        self._sock = sock
        self._lifeline = lifeline
        self._box = wire.Outbox(sock)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._finishing = self._paused = False
        self._written = threading.Event()  # nothing is left to be sent, nor will be
        self._early: deque[bytes] = deque()
        self._early_size = 0
        self._taken_over = False
        self.over = False  # nobody will say anything any more, and the script knows
        self.done: Any = None  # called then, in place of ending the main thread
        self._ending: int | None = None
        self._told_end = self._alone = False
        self._before: Any = signal.SIG_DFL

    def begin(self) -> None:
        """In the main thread, before the script."""
        self._before = signal.signal(signal.SIGINT, self._interrupted)
        self._nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)  # while we live
        atexit.register(self._last_words)
        os.register_at_fork(after_in_child=self._sock.close)
        self._queue(wire.act("online"))
        threading.Thread(target=self._work, name="rrdispatch-messages", daemon=True).start()
        self._pump = threading.Thread(target=self._hear, name="rrdispatch-events", daemon=True)
        self._pump.start()

    # ---- what a script may ask -----------------------------------------------------------------

    def send(self, message: Any) -> bool:
        """Never waits. False: not connected, or the primary has much to read already."""
        if not self.is_connected():
            return False
        self._queue(wire.message(message))
        return self._box.size < wire.MUCH

    def disconnect(self) -> Worker:
        """Gets nothing more, finishes what it has, and exits."""
        if self.state not in ("disconnecting", "destroying"):
            self.state = "disconnecting"
            self.exited_after_disconnect = True
            self._queue(wire.act("exited_after_disconnect"))
        return self

    def kill(self) -> None:
        """Exits with code 0, now."""
        if self.state != "destroying":
            self.state = "destroying"
            self.exited_after_disconnect = True
            self.hang_up("exited_after_disconnect")

    destroy = kill

    def hang_up(self, why: str) -> None:
        """The last word; then the end."""
        self._queue(wire.act(why, now=True))
        self._finish()

    def is_connected(self) -> bool:
        return self._sock.fileno() >= 0 and not (self._finishing or self._alone)

    def is_dead(self) -> bool:
        return False

    def run(self) -> None:
        """Until it is to end; handlers run in this thread."""
        self.take_over()
        self.done = lambda: None
        while not self.over:
            self.facts.wait()

    def take_over(self) -> None:
        """Facts are taken by who calls this, from now on."""
        if not self._taken_over:
            self._taken_over = True
            self.facts.put("nothing")
            self._pump.join()

    # ---- the threads ---------------------------------------------------------------------------

    def _queue(self, data: bytes) -> None:
        self._written.clear()
        self._box.add(data)
        os.eventfd_write(self._wake, 1)

    def _finish(self) -> None:
        self._finishing = True
        os.eventfd_write(self._wake, 1)

    def _work(self) -> None:
        lines = wire.Lines()
        ended = False
        while not ended:
            ended = self._turn(lines)
        self._written.set()
        self._sock.close()
        self.facts.put("disconnect")
        if not self._finishing:
            self._outlive()
        self.facts.put("over")

    def _outlive(self) -> None:
        """The primary is gone. What it let in is still given to us: the dispatcher ends after that.

        Then kernel (worker.lifeline) and shim send SIGTERM: it must not end what is at work.
        """
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            # Only the main thread may call signal(), and it may be busy.
            faulthandler.register(signal.SIGTERM, self._nowhere, all_threads=False, chain=False)
        look, ports = threading.Event(), set(own_ports())
        if self._lifeline is not None:
            flags = fcntl.fcntl(self._lifeline, fcntl.F_GETFL)
            fcntl.fcntl(self._lifeline, fcntl.F_SETFL, flags & ~os.O_ASYNC)
            poll = select.poll()
            poll.register(self._lifeline, select.POLLIN)
            poll.poll()
        from rrdispatch.cluster import quiet

        # A signal that nobody handles: what is owed is answered before the end.
        by = time.monotonic() + PATIENCE
        watch = quiet.Watch(os.getsid(0), ports, signal.SIGKILL, by)
        while watch.at_work():
            look.wait(watch.next_look)

    def _turn(self, lines: wire.Lines) -> bool:
        """Waits, reads, writes; True at the end."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        wanted = 0 if self._paused else select.POLLIN
        poll.register(self._sock, wanted | (0 if self._box.empty else select.POLLOUT))
        ready = dict(poll.poll())
        if self._wake in ready:
            os.eventfd_read(self._wake)
        try:
            empty = self._box.flush()
        except OSError:
            return True
        if empty:
            if self._finishing:
                return True
            self._written.set()
        if self._sock.fileno() in ready and not self._paused:
            return self._read(lines)
        return False

    def _read(self, lines: wire.Lines) -> bool:
        try:
            data = self._sock.recv(wire.CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        for line in lines.feed(data):
            if wire.is_ours(line):
                self._told(line)
            else:
                self.facts.put("message", line)
        return not data

    def _told(self, line: bytes) -> None:
        act = wire.read(line).get("act")
        if act == "disconnect":
            self.exited_after_disconnect = True
            self.state = "disconnecting"
        elif act == "alone":
            self._alone = True
            self.facts.put("disconnect")
        elif act == "leave":
            self._finish()

    def _flow(self, on: bool) -> None:
        self._paused = not on
        os.eventfd_write(self._wake, 1)

    def _hear(self) -> None:
        try:
            while not (self._taken_over or self.over):
                self.facts.wait()
        except SystemExit as error:
            self._end(error.code if isinstance(error.code, int) else int(bool(error.code)))
        except BaseException:
            sys.excepthook(*sys.exc_info())
            self._end(1)

    # ---- what happens --------------------------------------------------------------------------

    def _take(self, what: str, *facts: Any) -> None:
        if what == "message":
            if self._early_size < MOST_EARLY:
                self._early.append(facts[0])
                self._early_size += len(facts[0])
            self._hear_early()
        elif what == "handler":
            self._hear_early()
        elif what == "disconnect" and not self._told_end:
            self._told_end = True
            self.emit("disconnect")
        elif what == "over":
            self.over = True
            if self.done is not None:
                self.done()
            else:
                self._end(0)

    def _hear_early(self) -> None:
        """What came before there was anybody to hear it: the script may just begin."""
        while self._early and self.has("message"):
            line = self._early.popleft()
            self._early_size -= len(line)
            self.emit("message", wire.read(line))

    def _add(self, event: str, handler: Any, only_once: bool) -> Any:
        added = super()._add(event, handler, only_once)
        if handler is not None and event == "message":
            self.facts.put("handler")
        return added

    def _end(self, code: int) -> None:
        """The main thread leaves as it would by itself, if it can be told."""
        self._ending = code
        self._signal_main(self._best_signal())

    def _signal_main(self, number: signal.Signals) -> None:
        """To that thread: another one would note it, and leave the main thread in its call."""
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, number)

    def _best_signal(self) -> signal.Signals:
        """One that the program has a handler for; else ours, which raises SystemExit."""
        interrupt, end = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        handled = end not in (signal.SIG_DFL, signal.SIG_IGN)
        if interrupt == self._interrupted and handled:
            return signal.SIGTERM
        return signal.SIGINT

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        """In the main thread."""
        if self._ending is not None:
            raise SystemExit(self._ending)
        if callable(self._before):
            self._before(number, frame)

    def _last_words(self) -> None:
        """What was said before the end is heard, unless nobody listens."""
        if self._sock.fileno() >= 0 and not self._box.empty:
            self._written.wait(LAST_WORDS_WITHIN)


def own_ports() -> list[int]:
    """Where this process listens."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode):
                continue  # or the duplicate would stay open
            with socket.socket(fileno=os.dup(int(name))) as sock:
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.append(sock.getsockname()[1])
        except (OSError, TypeError, IndexError):
            continue
    return found


_current: Worker | None = None


def current() -> Worker | None:
    """This process' worker; None in a primary."""
    return _current


def enter(place: Mapping[str, Any]) -> Worker:
    """Makes this process the worker that its primary wanted. Called by ``boot``, once."""
    global _current  # noqa: PLW0603 (a process is one worker)
    fd = int(place["fd"])
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    lifeline = os.environ.get("RRDISPATCH_LIFELINE", "")
    _current = Worker(int(place["id"]), sock, int(lifeline) if lifeline.isdigit() else None)
    _current.begin()
    return _current
