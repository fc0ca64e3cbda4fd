"""From the death of a primary to its heir: the command, starting it, how often, and being headless:
nobody is there, all is served on, and a client on a kept listener is a call for another.

It must not know what is inherited.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from rrdispatch._core.layout import (
    HEIR_ARGUMENTS_MAX,
    HEIR_COMMAND_MAX,
    HEIR_HEAD,
    HEIR_VARIABLES_MAX,
    HEIRS_MAX,
    Control,
    ControlKind,
)
from rrdispatch.dispatch.accepting import SECOND
from rrdispatch.dispatch.estate import Estate
from rrdispatch.dispatch.poller import Poller
from rrdispatch.dispatch.talk import Talk

LINK = 3
TIMEOUT_MOST = 24 * 3600 * SECOND

# So much later another call is heeded, twice as long each time, up to the window: the client that
# called waits in the backlog even when it is gone, and heirs may go on dying.
CALL_PAUSE = SECOND


@dataclass(frozen=True, slots=True)
class Command:
    """What starts an heir."""

    program: bytes
    cwd: bytes
    arguments: list[bytes]
    environment: dict[bytes, bytes]


def _malformed() -> OSError:
    return OSError(errno.EINVAL, "this is no command for an heir")


def parse(data: bytes) -> Command:
    """Read what HEIR's memfd holds; EINVAL."""
    if not HEIR_HEAD.size <= len(data) <= HEIR_COMMAND_MAX:
        raise _malformed()
    count, variables = HEIR_HEAD.unpack_from(data)
    if not 1 <= count <= HEIR_ARGUMENTS_MAX or variables > HEIR_VARIABLES_MAX:
        raise _malformed()
    *strings, rest = data[HEIR_HEAD.size :].split(b"\0")
    if rest or len(strings) != 2 + count + variables:
        raise _malformed()
    program, cwd, *others = strings
    pairs = [one.partition(b"=") for one in others[count:]]
    if program[:1] != b"/" or cwd[:1] != b"/" or not all(equals for _, equals, _ in pairs):
        raise _malformed()
    return Command(program, cwd, others[:count], {key: text for key, _, text in pairs})


def _read(fd: int) -> bytes:
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode) or about.st_size > HEIR_COMMAND_MAX:
        raise _malformed()
    try:
        return os.pread(fd, about.st_size, 0)
    except OSError as error:
        raise _malformed() from error


def _run(command: Command, link: int) -> NoReturn:
    """In the child: nothing but stdin, our stdout and stderr, and the link."""
    try:
        os.setsid()
        for number in signal.valid_signals():
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.dup2(link, LINK)
        os.set_inheritable(LINK, True)  # it may have had that number already
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.closerange(LINK + 1, 1 << 20)
        os.chdir(command.cwd)
        os.execve(command.program, command.arguments, command.environment)  # noqa: S606
    finally:
        # The end of the link says that it failed.
        os._exit(127)


class Heirs:
    """At most one heir at a time, which has the control socket then."""

    def __init__(
        self, poller: Poller, talk: Talk, estate: Estate, hear: Callable[[], None]
    ) -> None:
        self.talk = talk
        self.estate = estate
        self.started = 0
        self._poller = poller
        self._hear = hear
        self._command: Command | None = None
        self._most = self._window = self._silence = 0
        self._pidfd = -1
        self._silent_ns = 0  # it has said nothing yet: killed then
        self._due_ns = 0  # nobody is there: when to see to that
        self._tries: deque[int] = deque(maxlen=HEIRS_MAX)
        self._listening: list[int] = []  # for whoever calls
        self._was_called = False
        self._call_ns = self._call_pause = 0

    @property
    def wanted(self) -> bool:
        """One is to be started when the primary dies."""
        return self._command is not None

    def instruct(self, request: Control, fds: list[int]) -> None:
        """HEIR: the command, and how often; without an fd no heirs are wanted."""
        most, window, silence = request.values[:3]
        if len(fds) > 1:
            raise OSError(errno.EPROTO, "one command")
        if not fds:
            self._command = None
            return
        if most > HEIRS_MAX or window < 1:
            raise OSError(errno.EINVAL, "out of range")
        self._command = parse(_read(fds[0]))
        self._most, self._window = most, min(window, TIMEOUT_MOST)
        self._silence = min(silence, TIMEOUT_MOST)

    def heard(self) -> None:
        """It has said something."""
        self._silent_ns = 0

    def lost(self, now: int) -> None:
        """The primary is gone, or the heir that was to become one: dead, or silent."""
        self._poller.remove(self.talk.control)
        self.talk.detach()
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.close()
        self._silent_ns, self._due_ns = 0, now
        self.estate.orphan()

    def run(self, now: int) -> int:
        """Start one or be headless, if it is time; when to look again (0: no need)."""
        if self._silent_ns and now >= self._silent_ns:
            self.lost(now)
        if self._due_ns and now >= self._due_ns:
            allowed = self._allowed(now)
            if allowed > now:
                self._be_headless(now, allowed)
            else:
                self._start(now)
        return self._due_ns or self._silent_ns

    def close(self) -> None:
        """Let go of the heir."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    # ---- starting one -----------------------------------------------------------------------

    def _allowed(self, now: int) -> int:
        if self._was_called:
            return now
        if not self._most:
            return now + self._window
        return now if len(self._tries) < self._most else self._tries[-self._most] + self._window

    def _start(self, now: int) -> None:
        """One try; when it fails the next one is due in the next round, if there may be one."""
        self._was_called = False
        self.started += 1
        self._tries.append(now)
        try:
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return
        with its, ours:
            try:
                pid = os.fork()
                if pid == 0:
                    assert self._command is not None
                    _run(self._command, its.fileno())
                self._pidfd = os.pidfd_open(pid)
                self._poller.add(ours.fileno(), self._hear)
            except OSError:
                # If it runs already, it sees the end of its link.
                self.close()
                return
            self.talk.attach(ours.detach())
        self._due_ns = 0
        self._silent_ns = now + self._silence if self._silence else 0
        self.talk.tell(Control(ControlKind.STARTED, values=(os.getpid(), 1)))

    # ---- nobody is there --------------------------------------------------------------------

    def _be_headless(self, now: int, allowed: int) -> None:
        self._due_ns = allowed
        places = self.estate.places_to_call()
        if not places:
            return
        if now < self._call_ns:
            self._due_ns = self._call_ns
            return
        for listener in places:
            with suppress(OSError):
                self._poller.add(listener, self._called)
                self._listening.append(listener)
                self._due_ns = 0

    def _called(self) -> None:
        """A client has connected: it waits for the next heir, which accepts it."""
        if not self._listening:
            return
        for listener in self._listening:
            self._poller.remove(listener)
        self._listening.clear()
        now = time.monotonic_ns()
        quiet = now >= self._call_ns + self._window
        pause = CALL_PAUSE if quiet or not self._call_pause else 2 * self._call_pause
        self._call_pause = min(pause, self._window)
        self._call_ns = now + self._call_pause
        self._tries.clear()
        self._was_called = True
        self._due_ns = now
