"""Workers in the hands of a test: the test itself, which takes when it wants to, or a process.

Every wait is for an event and ends with an error after ``LIMIT``.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from rrdispatch import _core
from rrdispatch._core.layout import Field, SpawnRequest, Taken
from rrdispatch.net.channels import Channel

LIMIT = 60.0
ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("worker_process.py")


def wait_readable(fd: int, what: str, limit: float = LIMIT) -> None:
    """Until `fd` is readable."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(limit * 1000), f"{what} did not come within {limit} s"


@dataclass
class Connection:
    """A connection that a worker has taken."""

    worker: Worker
    sock: socket.socket
    taken: Taken

    def answer(self, text: bytes | None = None) -> None:
        """Say something (the worker's slot) and close."""
        self.sock.sendall(str(self.worker.slot).encode() if text is None else text)
        self.close()

    def close(self) -> None:
        """Close, counted as the protocol asks."""
        if self.worker.counts:
            self.worker.board.add(Field.CLOSED)
        self.sock.close()


@dataclass
class Worker:
    """A worker with its channels; ``pid`` is 0 where the test takes by itself."""

    id: int
    slot: int
    generation: int
    channels: dict[int, Channel]  # by listener
    board_fd: int
    lifeline: tuple[int, int]
    pid: int = 0
    pidfd: int = -1
    counts: bool = True
    dead: bool = False
    taken: list[Connection] = field(default_factory=list)
    board: _core.Scoreboard = field(init=False)

    def __post_init__(self) -> None:
        self.board = _core.Scoreboard(self.board_fd, writable=True)

    def fds(self) -> list[int]:
        """What WORKER_ADD carries."""
        ends = [
            end for _, one in sorted(self.channels.items()) for end in (one.sender, one.receiver)
        ]
        return [self.pidfd, self.board_fd, self.lifeline[1], *ends]

    def mask(self) -> int:
        """What WORKER_ADD says of them; 0 = of the first listeners."""
        dense = sorted(self.channels) == list(range(len(self.channels)))
        return 0 if dense else sum(1 << number for number in self.channels)

    def pending(self, lane: int = 0) -> int:
        """Messages that wait in a channel."""
        return self.channels[lane].pending()

    def take_all(self, lane: int = 0) -> list[Connection]:
        """One message, which has to come."""
        wait_readable(self.channels[lane].receiver, f"a connection for slot {self.slot}")
        return self._take(lane)

    def _take(self, lane: int) -> list[Connection]:
        taken = _core.take(self.channels[lane].receiver)
        assert taken is not None
        if self.counts:
            self.board.add(Field.RECEIVED, len(taken.fds))
        got = [Connection(self, socket.socket(fileno=fd), taken) for fd in taken.fds]
        self.taken += got
        return got

    def take(self, lane: int = 0) -> Connection:
        """One connection, which has to come alone."""
        (connection,) = self.take_all(lane)
        return connection

    def try_take(self) -> list[Connection]:
        """What waits now, if a reclaimer is not faster."""
        try:
            return self._take(0)
        except BlockingIOError:
            return []

    def start(self) -> None:
        """Let a process be the worker, and wait until it takes."""
        said, says = os.pipe()
        numbers = [10 + i for i in range(len(self.channels))]
        receivers = (one.receiver for one in self.channels.values())
        pairs = list(zip(receivers, numbers, strict=True))
        arguments = [sys.executable, "-I", "-S", str(SCRIPT), str(ROOT), str(self.slot)]
        os.close(self.pidfd)
        self.pid, self.pidfd = _core.spawn(
            SpawnRequest(
                program=sys.executable,
                arguments=[*arguments, *map(str, numbers)],
                environment={},
                fds=[*pairs, (self.board_fd, 9), (says, 8), (2, 2)],
            )
        )
        os.close(says)
        wait_readable(said, "a word from the worker")
        os.close(said)

    def stop(self) -> None:
        """SIGSTOP, and wait until it has stopped."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def go_on(self) -> None:
        """SIGCONT."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait until it is dead and reaped."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pid, self.dead = 0, True

    def forget(self) -> None:
        """Let go of the channels, as a primary that dies."""
        for channel in self.channels.values():
            channel.close()

    def close(self) -> None:
        """Close all that the test holds of it."""
        if self.pid:
            self.kill()
        for connection in self.taken:
            connection.sock.close()
        self.board.close()
        self.forget()
        for fd in (self.board_fd, *self.lifeline, self.pidfd):
            os.close(fd)
