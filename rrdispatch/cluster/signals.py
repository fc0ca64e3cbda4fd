"""Signals of the primary, as events of its loop. ``docs/signals.md`` is this table for people."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

PR_GET_CHILD_SUBREAPER = 37
# Sent by habit (USR2 to gunicorn, nginx and puma) or by mistake, they would end the primary.
UNUSED = (signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO)
HELD = {
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN,
    signal.SIGTTOU, *UNUSED,
}  # fmt: skip


class Target(Protocol):
    """What signals can ask for: a Supervisor."""

    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def reload(self) -> object: ...
    def scale_by(self, change: int) -> None: ...
    def reopen_logs(self) -> asyncio.Future[None]: ...
    def ignored(self, name: str) -> None: ...
    def reap_if_ours(self, pid: int) -> bool: ...


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Who asks for the end while there are no handlers yet does not kill: they hear it later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Signals:
    """The handlers, from construction to ``close``."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._had_terminal = has_terminal()
        self._handled: list[int] = []
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, exit codes would be lost
        self._on(signal.SIGTERM, target.stop)
        self._on(signal.SIGINT, target.stop)
        self._on(signal.SIGQUIT, target.kill)
        self._on(signal.SIGHUP, self._hang_up)
        self._on(signal.SIGTTIN, lambda: target.scale_by(1))
        self._on(signal.SIGTTOU, lambda: target.scale_by(-1))
        self._on(signal.SIGUSR1, self._reopen_logs)
        for number in UNUSED:
            self._on(number, partial(target.ignored, number.name))
        if adopts_orphans():
            self._on(signal.SIGCHLD, lambda: reap_orphans(target.reap_if_ours))

    def _on(self, number: int, handler: Callable[[], None]) -> None:
        self._loop.add_signal_handler(number, handler)
        self._handled.append(number)

    def _hang_up(self) -> None:
        """A reload; but a closed ssh sends HUP as well, and means the end."""
        if self._had_terminal and not has_terminal():
            self._target.stop()
        else:
            self._target.reload()

    def _reopen_logs(self) -> None:
        """A file that cannot be opened is told as an event."""
        self._target.reopen_logs().add_done_callback(lambda done: done.exception())

    def close(self) -> None:
        """The service has ended, and what is left to do has a limit: nobody need ask again. In this
        one thread nothing comes between the loop's handlers and SIG_IGN, which Python leaves.
        """
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._handled)
        for number in self._handled:
            self._loop.remove_signal_handler(number)
            if number != signal.SIGCHLD:  # ignored, exit codes would be lost
                signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._handled.clear()


def has_terminal() -> bool:
    """This session has a controlling terminal that still opens."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def adopts_orphans() -> bool:
    """PID 1, or a subreaper: grandchildren that lose their parent become our children."""
    if os.getpid() == 1:
        return True
    found = ctypes.c_int(0)
    libc = ctypes.CDLL(None, use_errno=True)
    asked = libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0)
    return asked == 0 and found.value > 0


def reap_orphans(ours: Callable[[int], bool]) -> None:
    """Whoever was adopted and died. A child of ours is left to the one who holds its pidfd."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        if not ours(found.si_pid):
            os.waitid(os.P_PID, found.si_pid, os.WEXITED | os.WNOHANG)
