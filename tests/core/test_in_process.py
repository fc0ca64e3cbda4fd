"""The C loop in a process with threads: no GIL held, no child that a waitpid(-1) would meet."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from rrdispatch import _core
from rrdispatch._core.layout import FLAG_MOVED, Control, ControlKind, SpawnRequest
from tests.harness.readable import readable

WAIT_S = 60


class Loop:
    """A dispatcher in a thread, and the primary's side of its control socket."""

    def __init__(self) -> None:
        self.control, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sequence = 0
        self.fds: list[int] = []
        self.thread = threading.Thread(target=_core.run_dispatcher, args=[its.detach()])
        self.thread.start()
        assert self.wait(ControlKind.STARTED).values[0] == os.getpid()

    def wait(self, kind: int, sequence: int = 0) -> Control:
        while True:
            assert readable(self.control, WAIT_S), f"no {kind!r} in time"
            received = _core.control_receive(self.control.fileno())
            assert received is not None
            message = Control.unpack(received[0])
            if (message.kind, message.sequence) == (kind, sequence):
                return message

    def ask(self, kind: int, *, worker: int = 0, values=(), fds=()) -> Control:
        self.sequence += 1
        message = Control(kind, self.sequence, worker=worker, values=tuple(values)).pack()
        _core.control_send(self.control.fileno(), message, fds)
        answer = self.wait(kind, self.sequence)
        assert answer.result == 0
        return answer

    def add(self, number: int) -> tuple[int, int]:
        """A worker that sleeps; its pid and the receiving end of its channel."""
        pid, pidfd = _core.spawn(
            SpawnRequest(program="/bin/sleep", arguments=["sleep", "1000"], environment={})
        )
        sender, receiver = _core.channel_pair()
        lifeline, peer = (end.detach() for end in socket.socketpair())
        board = _core.scoreboard_create(number, 0)
        self.ask(
            ControlKind.WORKER_ADD,
            worker=number,
            values=(number, 0),
            fds=[pidfd, board, lifeline, sender, receiver],
        )
        self.ask(ControlKind.WORKER_READY, worker=number)
        self.fds += [pidfd, board, lifeline, peer, sender, receiver]
        return pid, receiver

    def close(self) -> None:
        self.ask(ControlKind.STOP)
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        self.control.close()
        for fd in self.fds:
            os.close(fd)


@pytest.fixture
def loop() -> Iterator[Loop]:
    before = set(os.listdir("/proc/self/fd"))
    running = Loop()
    yield running
    running.close()
    assert set(os.listdir("/proc/self/fd")) <= before


if _core.NATIVE:

    def test_take_back_forks_nothing_that_others_could_reap(loop: Loop):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            loop.ask(ControlKind.LISTENER_ADD, fds=[listener.fileno()])
            dead, dead_channel = loop.add(1)
            client = socket.create_connection(listener.getsockname())
            assert readable(dead_channel, WAIT_S)
            other, channel = loop.add(2)
            os.kill(dead, signal.SIGKILL)
            assert os.waitpid(-1, 0)[0] == dead
            assert readable(channel, WAIT_S)
            taken = _core.take(channel)
            assert taken is not None
            assert taken.flags & FLAG_MOVED
            os.close(taken.fds[0])
            os.kill(other, signal.SIGKILL)
            assert os.waitpid(-1, 0)[0] == other
            with pytest.raises(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            client.close()

    def test_a_signal_interrupts_nothing(loop: Loop):
        seen = []
        before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
        assert loop.thread.ident is not None
        signal.pthread_kill(loop.thread.ident, signal.SIGUSR1)
        assert loop.ask(ControlKind.PING).values[0] > 0
        signal.signal(signal.SIGUSR1, before)
        assert seen == [signal.SIGUSR1]
