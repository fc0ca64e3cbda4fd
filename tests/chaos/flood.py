"""Very many connections from one process: ``python -m tests.chaos.flood PLAN_JSON``.

An epoll loop over raw sockets, since the careful client of tests/harness is too slow for this.
Says ``begun`` when every connection was begun, and at the end one JSON line per connection. On
stdin ``finish`` lets idle and slow ones come to an end: idle ones ask then, slow ones read all.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
IP_BIND_ADDRESS_NO_PORT = 24
TOTAL_RETRANS = 100  # offset of tcpi_total_retrans in struct tcp_info
PER_SOURCE = 10_000  # ip_local_port_range has room for 28,000, and some are in TIME_WAIT
SLOW_READ = 4096
SLOW_EVERY = 1.0


@dataclass
class Plan:
    """``rate`` 0: all at once. ``idle``: each asks only at the end. ``slow``: reads 4 kB/s."""

    address: str
    count: int
    rate: float = 0.0
    idle: bool = False
    slow: bool = False
    path: str = "/"
    patience: float = 60.0

    @property
    def at_once(self) -> int:
        """The most that are open at once: those that don't stay, for 10 seconds."""
        stays = self.idle or self.slow or not self.rate
        return self.count if stays else min(self.count, int(10 * self.rate))


@dataclass
class Seen:
    """One connection; nanoseconds of CLOCK_MONOTONIC, 0: never."""

    begun: int = 0
    connected: int = 0
    ended: int = 0
    outcome: str = ""
    retries: int = 0  # of its SYN, by the kernel's count
    client: str = ""  # its address, if it failed

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"

    @property
    def connect_seconds(self) -> float:
        return (self.connected - self.begun) / 1e9


@dataclass
class One:
    """A connection that is open."""

    socket: socket.socket
    seen: Seen
    got: bytes = b""
    missing: int = -1  # bytes of the body, once the head is there
    asked: bool = False


@dataclass
class Flood:
    """The loop."""

    plan: Plan
    poller: select.epoll = field(default_factory=select.epoll)
    open: dict[int, One] = field(default_factory=dict)
    all: list[Seen] = field(default_factory=list)
    finishing: bool = False
    next_read: float = 0.0

    def run(self) -> None:
        host, _, port = self.plan.address.rpartition(":")
        self.target = (host, int(port))
        request = f"GET {self.plan.path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        self.request = request.encode()
        self.began = time.monotonic()
        self.poller.register(0, select.EPOLLIN)
        told = False
        while len(self.all) < self.plan.count or self.open:
            self._begin_due()
            if not told and len(self.all) == self.plan.count and self._connected():
                print("begun", flush=True)
                told = True
            if self.plan.slow and time.monotonic() >= self.next_read:
                self._read_slowly()
            for fd, _ in self.poller.poll(0.01, 1024):
                if fd == 0:
                    self._told()
                elif fd in self.open:
                    self._guarded(self.open[fd])
            self._give_up()
        for seen in self.all:
            print(json.dumps(astuple(seen)))

    def _connected(self) -> bool:
        """Those that are to stay are there; a plain flood is not waited for."""
        return not (self.plan.idle or self.plan.slow) or all(s.connected for s in self.all)

    # ---- begin --------------------------------------------------------------------------------

    def _begin_due(self) -> None:
        due = self.plan.count
        if self.plan.rate:
            due = min(due, int((time.monotonic() - self.began) * self.plan.rate) + 1)
        room = self.plan.at_once - len(self.open)
        for number in range(len(self.all), min(due, len(self.all) + min(room, 200))):
            self._begin(number)

    def _begin(self, number: int) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if self.plan.slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_READ)
        sock.bind((f"127.0.0.{2 + number // PER_SOURCE}", 0))
        one = One(sock, Seen(time.monotonic_ns()))
        self.all.append(one.seen)
        error = sock.connect_ex(self.target)
        if error not in (0, errno.EINPROGRESS):
            self._end(one, errno.errorcode[error])
            return
        self.open[sock.fileno()] = one
        self.poller.register(sock, select.EPOLLOUT)

    # ---- a connection's life --------------------------------------------------------------------

    def _guarded(self, one: One) -> None:
        try:
            if not one.seen.connected:
                self._established(one)
            else:
                self._read(one, 65536)
        except OSError as error:
            self._end(one, errno.errorcode.get(error.errno or 0, str(error)))

    def _established(self, one: One) -> None:
        error = one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        one.seen.connected = time.monotonic_ns()
        info = one.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        (one.seen.retries,) = struct.unpack_from("I", info, TOTAL_RETRANS)
        slow = self.plan.slow and not self.finishing
        self.poller.modify(one.socket, select.EPOLLHUP if slow else select.EPOLLIN)
        if not self.plan.idle or self.finishing:
            self._ask(one)

    def _ask(self, one: One) -> None:
        one.asked = True
        one.socket.send(self.request)

    def _read(self, one: One, most: int) -> None:
        data = one.socket.recv(most)
        if not data:
            self._end(one, "ok" if one.missing == 0 else "eof")
            return
        if one.missing < 0:
            one.got += data
            head, found, data = one.got.partition(b"\r\n\r\n")
            if not found:
                return
            one.missing = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        one.missing -= len(data)

    def _read_slowly(self) -> None:
        self.next_read = time.monotonic() + SLOW_EVERY
        for one in list(self.open.values()):
            if one.asked and not self.finishing:
                try:
                    self._read(one, SLOW_READ)
                except BlockingIOError:
                    continue
                except OSError as error:
                    self._end(one, errno.errorcode.get(error.errno or 0, str(error)))

    def _end(self, one: One, outcome: str) -> None:
        one.seen.ended, one.seen.outcome = time.monotonic_ns(), outcome
        if not one.seen.ok:
            one.seen.client = "{}:{}".format(*one.socket.getsockname())
        self.open.pop(one.socket.fileno(), None)
        one.socket.close()

    # ---- the end ------------------------------------------------------------------------------

    def _told(self) -> None:
        self.poller.unregister(0)
        self.finishing = True
        self.began_to_finish = time.monotonic()
        for one in list(self.open.values()):
            if one.seen.connected:
                self.poller.modify(one.socket, select.EPOLLIN)
                if not one.asked:
                    self._ask(one)

    def _give_up(self) -> None:
        """Whoever waits for longer than its patience hangs; staying is not waiting."""
        now = time.monotonic_ns()
        stays = (self.plan.idle or self.plan.slow) and not self.finishing
        for one in list(self.open.values()) if not stays else ():
            since = int(self.began_to_finish * 1e9) if self.finishing else one.seen.begun
            if now - max(since, one.seen.begun) > self.plan.patience * 1e9:
                self._end(one, "timeout")


class Crowd:
    """The test's end of it; never outlives its block."""

    def __init__(self, plan: Plan) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.flood", json.dumps(asdict(plan))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_begun(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "begun\n":
            raise RuntimeError("the flood ended before it had begun")

    def finish(self) -> list[Seen]:
        """All connections."""
        output, _ = self._process.communicate("finish\n", 300)
        lines = [line for line in output.splitlines() if line != "begun"]
        return [Seen(*json.loads(line)) for line in lines]

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def outcomes(seen: list[Seen]) -> str:
    counted = Counter(each.outcome for each in seen)
    return " ".join(f"{name}={number}" for name, number in sorted(counted.items()))


def room_for(number: int) -> bool:
    """So many descriptors are permitted."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard == resource.RLIM_INFINITY or hard >= number


@contextmanager
def all_permitted() -> Iterator[None]:
    """Who is started in the block has the hard limit of descriptors as its soft one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


if __name__ == "__main__":
    gc.disable()
    wanted = Plan(**json.loads(sys.argv[1]))
    if not room_for(wanted.at_once + 16):
        raise SystemExit(f"the hard limit of descriptors is below {wanted.at_once + 16}")
    with all_permitted():
        Flood(wanted).run()
