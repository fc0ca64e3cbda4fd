"""A listening socket of another process, as the kernel sees it: what waits, what was dropped."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness import census

SYS_PIDFD_GETFD = 438  # the same on every architecture
SO_MEMINFO = 55
DROPS = 8  # index in what SO_MEMINFO gives
WAITING, MOST = 24, 28  # offsets of tcpi_unacked and tcpi_sacked: a listener's own meaning
SYSCTL = Path("/proc/sys/net")


class Backlog:
    """``drops``: SYNs and handshakes refused for want of room, each of them tried again."""

    def __init__(self, pid: int) -> None:
        (number,) = [each.number for each in census.fds(pid) if each.kind == "tcp listener"]
        self._socket = socket.socket(fileno=_fetched(pid, number))
        self.last_drop = 0  # when
        self.deepest = 0
        self.dropped = self._before = self._drops()

    def _drops(self) -> int:
        found = self._socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36)
        return int(struct.unpack("9I", found)[DROPS])

    @property
    def drops(self) -> int:
        """Since this was made."""
        return self.dropped - self._before

    @property
    def limit(self) -> int:
        """What it may hold, by the kernel's own word."""
        return self._info(MOST)

    def _info(self, offset: int) -> int:
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return int(struct.unpack_from("I", info, offset)[0])

    def look(self) -> None:
        drops, now = self._drops(), time.monotonic_ns()
        if drops != self.dropped:
            self.dropped, self.last_drop = drops, now
        self.deepest = max(self.deepest, self._info(WAITING))

    def close(self) -> None:
        self._socket.close()


def _fetched(pid: int, number: int) -> int:
    """A duplicate of that process' descriptor. PermissionError where ptrace is not permitted."""
    pidfd = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        fd = libc.syscall(SYS_PIDFD_GETFD, pidfd, number, 0)
        if fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return int(fd)
    finally:
        os.close(pidfd)


def permitted(pid: int) -> bool:
    try:
        Backlog(pid).close()
    except PermissionError:
        return False
    return True


@contextmanager
def watched(pid: int, every: float = 0.01) -> Iterator[Backlog]:
    """Looked at in a thread for as long as the block runs, and then let go."""
    backlog = Backlog(pid)
    over = threading.Event()

    def look() -> None:
        while not over.wait(every):
            backlog.look()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield backlog
    finally:
        over.set()
        thread.join()
        backlog.close()


def sysctl(name: str, otherwise: int) -> int:
    try:
        return int((SYSCTL / name).read_text().split()[0])
    except OSError:
        return otherwise


def lost_on_loopback() -> int:
    """Packets that no listener ever saw: the kernel's own queue (netdev_max_backlog) was full."""
    lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(line.split()[1], 16) for line in lines)


def counters() -> Counter[str]:
    """The kernel's own of TCP, in this network namespace: whoever else is in it counts, too."""
    found: Counter[str] = Counter()
    for name in ("snmp", "netstat"):
        lines = Path("/proc/net", name).read_text().splitlines()
        for keys, values in zip(lines[::2], lines[1::2], strict=True):
            if keys.startswith("Tcp"):
                found.update(dict(zip(keys.split()[1:], map(int, values.split()[1:]), strict=True)))
    return found


def retry_times() -> list[float]:
    """Seconds after the first SYN at which the kernel sends it again."""
    linear = sysctl("ipv4/tcp_syn_linear_timeouts", 0)
    moments: list[float] = []
    moment, pause = 0.0, 1.0
    for number in range(linear + sysctl("ipv4/tcp_syn_retries", 6)):
        moment += pause
        moments.append(moment)
        pause *= 2 if number >= linear else 1
    return moments
