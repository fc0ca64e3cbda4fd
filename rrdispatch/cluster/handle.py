"""WorkerHandle: everything the primary holds of one worker, each descriptor owned once, here."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rrdispatch import _core
from rrdispatch._core.layout import Field
from rrdispatch.cluster.sdnotify import Watchdog
from rrdispatch.net.channels import Channel

# <linux/pidfd.h>: struct pidfd_info as of its first version, and what of it was filled in.
PIDFD_INFO = struct.Struct("=Q52si")
PIDFD_GET_INFO = 3 << 30 | PIDFD_INFO.size << 16 | 0xFF << 8 | 11
PIDFD_INFO_EXIT = 1 << 3
PIDFD_SIGNAL_PROCESS_GROUP = 1 << 2
UNKNOWN_EXIT = "exit code unknown"


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
    journal: int = -1  # what the logger has read of these and not yet written
    notify: socket.socket | None = None
    channels: dict[int, Channel] = field(default_factory=dict)  # by listener
    sd_notify: socket.socket | None = None  # where a program may speak, as to systemd
    says_ready: bool = False  # what it says there decides, not what its shim sees
    board: _core.Scoreboard | None = None
    started_at: float = 0.0
    capacity: int = 0
    batch: int = 1
    watchdog: Watchdog | None = None  # once it gave a sign of life there
    watched: bool = False  # it did so, in a primary before us or in this one
    kind: str = ""
    status: str = ""
    reaped: bool = False
    how: str = ""  # it ended
    adopted: bool = False  # a primary before us started it: it is no child of ours
    awaited: bool = False  # and its new parent was given time to reap it

    def open_scoreboard(self, fd: int) -> None:
        """Takes the memfd and maps it for reading."""
        self.scoreboard = fd
        self.board = _core.Scoreboard(fd)

    def fds_for_dispatcher(self) -> list[int]:
        """In the order of WORKER_ADD."""
        ends = [end for _, it in sorted(self.channels.items()) for end in (it.sender, it.receiver)]
        return [self.pidfd, self.scoreboard, self.lifeline, *ends]

    @property
    def mask(self) -> int:
        """The listeners that it has channels for, a bit each."""
        return sum(1 << index for index in self.channels)

    def fds_for_heirs(self) -> list[int]:
        """Its voice: what it says and what it prints."""
        assert self.notify is not None
        pipes = [self.stdout, self.stderr, self.journal] if self.stdout >= 0 else []
        return [self.notify.fileno(), *(fd for fd in pipes if fd >= 0)]

    def pending(self) -> int:
        """Connections that wait in its channels."""
        return sum(channel.pending() for channel in self.channels.values())

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

    def tell(self, line: str) -> None:
        """To a worker that may never read: what does not fit, or meets nobody, is not said."""
        if self.notify is None:
            return
        try:
            self.notify.send(line.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            # It is dead, has closed its end, or some hundred lines lie there.
            return

    def signal(self, number: int) -> None:
        """To the process itself: its children end with it, or by its own hand."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            # It is dead and about to be reaped.
            return

    def signal_group(self, number: int) -> None:
        """To its whole group; before it is reaped, so that the number cannot be another's."""
        if self.reaped or self.pid <= 1:
            return
        try:
            if self.adopted:
                # Whoever adopted it may have reaped it already.
                signal.pidfd_send_signal(self.pidfd, number, None, PIDFD_SIGNAL_PROCESS_GROUP)
            else:
                os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            # Nobody is left in it, or only programs of another user.
            return
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.signal(number)  # before Linux 6.9 a pidfd stands for the process only

    def how_it_ended(self) -> str | None:
        """Without reaping it; None if it lives."""
        return wait_exit(self.pidfd, os.WNOWAIT)

    def reap(self, named: Callable[[int, str], str] = lambda _, how: how) -> str | None:
        """How it ended, if it did. The group goes first, while the leader still has its number.

        ``named`` has the last word on how, of a pid that still has its place in /proc.
        """
        how = self.how_it_ended()
        if how is None:
            return None
        how = named(self.pid, how)
        self.signal_group(signal.SIGKILL)
        wait_exit(self.pidfd)
        self.reaped, self.how = True, how
        return how

    def close_pipes(self) -> None:
        """The log pipes' read ends, and what belongs to them."""
        for fd in self.take_pipes():
            os.close(fd)

    def take_pipes(self) -> list[int]:
        """The same, from now on the caller's: stdout, stderr, and the journal if there is one."""
        fds = [fd for fd in (self.stdout, self.stderr, self.journal) if fd >= 0]
        self.stdout = self.stderr = self.journal = -1
        return fds

    def close(self) -> None:
        """Everything. A second close does nothing."""
        self.close_pipes()
        if self.board is not None:
            self.board.close()
            self.board = None
        for sock in (self.notify, self.sd_notify):
            if sock is not None:
                sock.close()
        self.notify = self.sd_notify = None
        for fd in (self.pidfd, self.scoreboard, self.lifeline):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.scoreboard = self.lifeline = -1
        for channel in self.channels.values():
            channel.close()
        self.channels.clear()


def wait_exit(pidfd: int, flags: int = 0) -> str | None:
    """How a child of ours ended; None if it lives. Reaps it, unless told WNOWAIT."""
    try:
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | flags)
    except ChildProcessError:
        return _end_of_another(pidfd)
    return None if found is None else describe_exit(found.si_code, found.si_status)


def pid_of(pidfd: int) -> int:
    """The process behind a pidfd; -1 if it has been reaped (proc(5), fdinfo)."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        found = [line for line in file if line.startswith("Pid:")]
    return int(found[0].split()[1]) if found else -1


def wait_end(pidfd: int) -> None:
    """Until a process has ended, whose child it may be; reaps it if it is ours."""
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    ended.poll()
    wait_exit(pidfd)


def _end_of_another(pidfd: int) -> str | None:
    """How a process ended that is not our child: Linux 6.15 keeps it for those with a pidfd."""
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    if not ended.poll(0):
        return None
    told = bytearray(PIDFD_INFO.pack(PIDFD_INFO_EXIT, b"", 0))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, told, True)
    except OSError:
        return UNKNOWN_EXIT
    known, _, status = PIDFD_INFO.unpack(told)
    if not known & PIDFD_INFO_EXIT:
        return _end_of_zombie(pidfd)  # its new parent has not reaped it
    return _describe_status(status)


def _end_of_zombie(pidfd: int) -> str:
    """proc(5), stat, field 52: the wait status, for those who may trace it."""
    try:
        text = Path(f"/proc/{pid_of(pidfd)}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return UNKNOWN_EXIT
    fields = text.rpartition(")")[2].split()
    if fields[0] != "Z":
        return UNKNOWN_EXIT
    return _describe_status(int(fields[49]))


def _describe_status(status: int) -> str:
    """Of wait(2)."""
    if os.WIFEXITED(status):
        return describe_exit(os.CLD_EXITED, os.WEXITSTATUS(status))
    code = os.CLD_DUMPED if os.WCOREDUMP(status) else os.CLD_KILLED
    return describe_exit(code, os.WTERMSIG(status))


def describe_exit(code: int, status: int) -> str:
    """``exit code 3``, ``killed by SIGSEGV (core dumped)``."""
    if code == os.CLD_EXITED:
        return f"exit code {status}"
    try:
        name = signal.Signals(status).name
    except ValueError:
        name = f"signal {status}"
    return f"killed by {name}" + (" (core dumped)" if code == os.CLD_DUMPED else "")
