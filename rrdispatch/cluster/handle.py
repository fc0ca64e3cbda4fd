"""WorkerHandle: everything the primary holds of one worker, each descriptor owned once, here."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass, field

from rrdispatch import _core
from rrdispatch._core.layout import Field
from rrdispatch.net.channels import Channel


@dataclass(slots=True)
class Counts:
    """What a scoreboard says, clamped: a worker may write anything there."""

    received: int = 0
    closed: int = 0
    busy: int = 0
    requests: int = 0

    @property
    def inflight(self) -> int:
        return max(0, self.received - self.closed)


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """One worker's process and descriptors; -1 (or None) where there is none."""

    id: int
    slot: int
    generation: int
    pid: int = 0
    pidfd: int = -1
    scoreboard: int = -1
    lifeline: int = -1
    stdout: int = -1
    stderr: int = -1
    notify: socket.socket | None = None
    channels: list[Channel] = field(default_factory=list)
    board: _core.Scoreboard | None = None
    started_at: float = 0.0
    capacity: int = 0
    batch: int = 1
    kind: str = ""
    status: str = ""
    reaped: bool = False
    how: str = ""  # it ended

    def open_scoreboard(self, fd: int) -> None:
        """Takes the memfd and maps it for reading."""
        self.scoreboard = fd
        self.board = _core.Scoreboard(fd)

    def fds_for_dispatcher(self) -> list[int]:
        """In the order of WORKER_ADD."""
        ends = [end for channel in self.channels for end in (channel.sender, channel.receiver)]
        return [self.pidfd, self.scoreboard, self.lifeline, *ends]

    def pending(self) -> int:
        """Connections that wait in its channels."""
        return sum(channel.pending() for channel in self.channels)

    def counts(self) -> Counts:
        """What it did so far."""
        if self.board is None:
            return Counts()
        load = self.board.load
        return Counts(
            received=max(0, load(Field.RECEIVED)),
            closed=max(0, load(Field.CLOSED)),
            busy=max(0, load(Field.BUSY)),
            requests=max(0, load(Field.REQUESTS)),
        )

    def stalled(self) -> bool:
        return self.board is not None and bool(self.board.load(Field.STALLED))

    def signal(self, number: int) -> None:
        """To the process itself: its children end with it, or by its own hand."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            # It is dead and about to be reaped.
            return

    def signal_group(self, number: int) -> None:
        """To its whole group. Only before it is reaped: afterwards the number may be another's."""
        if self.reaped or self.pid <= 1:
            return
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            # Nobody is left in it, or only programs of another user.
            return

    def reap(self) -> str | None:
        """How it ended, if it did. The group goes first, while the leader still has its number."""
        how = wait_exit(self.pidfd, os.WNOWAIT)
        if how is None:
            return None
        self.signal_group(signal.SIGKILL)
        wait_exit(self.pidfd)
        self.reaped, self.how = True, how
        return how

    def close_pipes(self) -> None:
        """The log pipes' read ends."""
        for fd in (self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)
        self.stdout = self.stderr = -1

    def close(self) -> None:
        """Everything. A second close does nothing."""
        self.close_pipes()
        if self.board is not None:
            self.board.close()
            self.board = None
        if self.notify is not None:
            self.notify.close()
            self.notify = None
        for fd in (self.pidfd, self.scoreboard, self.lifeline):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.scoreboard = self.lifeline = -1
        for channel in self.channels:
            channel.close()
        self.channels.clear()


def wait_exit(pidfd: int, flags: int = 0) -> str | None:
    """How a child of ours ended; None if it lives. Reaps it, unless told WNOWAIT."""
    try:
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | flags)
    except ChildProcessError:
        return "ended; its exit code is not known"
    return None if found is None else describe_exit(found.si_code, found.si_status)


def describe_exit(code: int, status: int) -> str:
    """``exit code 3``, ``killed by SIGSEGV (core dumped)``."""
    if code == os.CLD_EXITED:
        return f"exit code {status}"
    try:
        name = signal.Signals(status).name
    except ValueError:
        name = f"signal {status}"
    return f"killed by {name}" + (" (core dumped)" if code == os.CLD_DUMPED else "")
