"""The logger, a process of its own: reads the workers' output and writes it, a prefix per line.

Run by path with ``-I -S``: it uses the standard library only and imports nothing of rrdispatch.
It keeps the last lines of each worker for error reports. It must not know what a worker is.

Control, a SEQPACKET socket with JSON messages: ``{"add": id, "prefix": text}`` with two fds
(stdout and stderr of the worker); ``{"tail": id, "wait": seconds}`` is answered by
``{"tail": id, "lines": [...]}`` when both are at their end, or after ``wait``; ``{"forget": id}``.
It tells ``{"ended": id}``, and ``{"output": "stdout", "error": text, "dropped": lines}`` when an
output fails (no text: it works again). It exits when the control is closed and every pipe is at
its end.
"""

from __future__ import annotations

import array
import collections
import json
import os
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable

KEPT = 50  # lines per worker
MOST_LINE = 64 * 1024
MOST_TAIL = 24 * 1024
CHUNK = 64 * 1024
PIECE = 4096  # PIPE_BUF: a pipe that polls writable takes so much without blocking
HIGH = 1 << 20  # bytes waiting for a slow reader before the pipes are left alone
PATIENCE = 1.0  # then so long without progress before lines are dropped
END_PATIENCE = 2.0  # with a reader who reads nothing, when all else is over
PAUSE = 1.0  # after an output failed


class Sink:
    """One of our own outputs. A reader that is gone or asleep, or a full disk, stops no worker:
    lines are dropped and counted until it takes some again.
    """

    def __init__(self, fd: int, name: str, tell: Callable[[dict[str, object]], None]) -> None:
        self.fd = own_description(fd)
        self._given = fd
        self._name = name
        self._tell = tell
        self.waiting = bytearray()
        self.dropped = 0
        self.progress = time.monotonic()
        self._failed_at: float | None = None
        self._trouble = ""  # as it was told
        self._noted = 0  # dropped lines that a line in ``waiting`` tells of
        self._cut = False  # an error came in the middle of a line

    def put(self, line: bytes) -> None:
        if self._failing or (self.full and self.stuck):
            self.dropped += 1
            if not self._failing:
                self._in_trouble("nobody reads it")
            return
        if not self.waiting:
            self.progress = time.monotonic()
        if self.dropped and not self.full:
            self.waiting += b"\n" if self._cut else b""
            self.waiting += b"rrdispatch: %d lines dropped: %s\n" % (
                self.dropped,
                self._trouble.encode(),
            )
            self._noted, self.dropped, self._cut = self.dropped, 0, False
        self.waiting += line

    @property
    def full(self) -> bool:
        return len(self.waiting) >= HIGH

    @property
    def stuck(self) -> bool:
        return time.monotonic() - self.progress > PATIENCE

    @property
    def hopeful(self) -> bool:
        """Something waits for a reader that took some not long ago: the end waits for him too."""
        return bool(self.waiting) and time.monotonic() - self.progress < END_PATIENCE

    @property
    def _failing(self) -> bool:
        return self._failed_at is not None and time.monotonic() - self._failed_at < PAUSE

    def write(self) -> None:
        """One piece, of whole lines if it can be; called when the output polls writable."""
        piece = bytes(self.waiting[: self.waiting.rfind(b"\n", 0, PIECE) + 1 or PIECE])
        try:
            done = write_now(self.fd, piece)
        except BlockingIOError:
            return
        except OSError as error:  # EPIPE, EIO, ENOSPC, EFBIG: tried again after a pause
            self._failed(error)
            return
        self._cut = not piece[:done].endswith(b"\n")
        del self.waiting[:done]
        self.progress = time.monotonic()
        self._failed_at = None
        if self._trouble and not self.dropped and len(self.waiting) < PIECE:
            self._tell({"output": self._name, "error": "", "dropped": self._noted})
            self._trouble, self._noted = "", 0

    def _failed(self, error: OSError) -> None:
        lines = self.waiting.count(b"\n")
        self.dropped += lines - 1 + self._noted if self._noted else lines
        self._noted = 0
        self.waiting.clear()
        self._failed_at = time.monotonic()
        self._in_trouble(error.strerror or str(error))

    def _in_trouble(self, why: str) -> None:
        if self._trouble != why:
            self._trouble = why
            self._tell({"output": self._name, "error": why, "dropped": self.dropped})

    def close(self) -> None:
        """Our own description of it, if we have one."""
        if self.fd != self._given:
            os.close(self.fd)


def own_description(fd: int) -> int:
    """Of a pipe or a terminal, not to be blocked by it: O_NONBLOCK on the one that we were given
    would be everybody's who shares it, and others who write to it make POLLOUT a lie.
    """
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):
            return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError:
        # Closed, another user's, or no /proc: the given one has to do.
        return fd
    return fd


def write_now(fd: int, data: bytes) -> int:
    """write(2) that does not wait; a socket cannot be opened anew, but has a flag for it."""
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        with socket.socket(fileno=os.dup(fd)) as output:
            return output.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    return os.write(fd, data)


class Source:
    """One pipe of one worker."""

    def __init__(self, fd: int, worker: Worker, sink: Sink) -> None:
        self.fd = fd
        self.worker = worker
        self.sink = sink
        self.part = b""

    def read(self) -> bool:
        """Takes what is there; False at the end."""
        try:
            data = os.read(self.fd, CHUNK)
        except InterruptedError:
            return True
        lines = (self.part + data).split(b"\n")
        self.part = lines.pop()
        for line in lines:
            self._line(line)
        if self.part and (not data or len(self.part) >= MOST_LINE):
            self._line(self.part)
            self.part = b""
        return bool(data)

    def _line(self, line: bytes) -> None:
        self.worker.last.append(line[:4096])
        self.sink.put(self.worker.prefix + line + b"\n")


class Worker:
    """What is known of one worker's output."""

    def __init__(self, number: int, prefix: str) -> None:
        self.number = number
        self.prefix = prefix.encode() + b" | "
        self.last: collections.deque[bytes] = collections.deque(maxlen=KEPT)
        self.open = 0
        self.tail_by: float | None = None
        self.forgotten = False  # nobody will ask again

    def tail(self) -> list[str]:
        """The last lines, the oldest ones left out first if they are too long."""
        lines: list[str] = []
        room = MOST_TAIL
        for line in reversed(self.last):
            room -= len(line)
            if room < 0:
                break
            lines.append(line.decode(errors="replace"))
        return lines[::-1]


class Logger:
    """The loop."""

    def __init__(self, control: socket.socket, out: int = 1, err: int = 2) -> None:
        self.control: socket.socket | None = control
        self.sinks = (Sink(out, "stdout", self._tell), Sink(err, "stderr", self._tell))
        self.sources: dict[int, Source] = {}
        self.workers: dict[int, Worker] = {}

    def run(self) -> None:
        while self.control is not None or self.sources or any(s.hopeful for s in self.sinks):
            self._once()
        for sink in self.sinks:
            sink.close()

    def _once(self) -> None:
        poll = select.poll()
        if self.control is not None:
            poll.register(self.control, select.POLLIN)
        for sink in self.sinks:
            if sink.waiting:
                poll.register(sink.fd, select.POLLOUT)
        paused = [sink for sink in self.sinks if sink.full and not sink.stuck]
        for source in self.sources.values():
            if source.sink not in paused:
                poll.register(source.fd, select.POLLIN)
        for fd, _ in poll.poll(self._patience(bool(paused))):
            self._serve(fd)
        now = time.monotonic()
        for worker in list(self.workers.values()):
            if worker.tail_by is not None and (not worker.open or now >= worker.tail_by):
                self._tell({"tail": worker.number, "lines": worker.tail()})
                worker.tail_by = None
            if worker.forgotten and worker.tail_by is None:
                del self.workers[worker.number]

    def _patience(self, paused: bool) -> float | None:
        """Milliseconds."""
        ends = [worker.tail_by for worker in self.workers.values() if worker.tail_by is not None]
        if paused or (self.control is None and not self.sources):
            ends.append(time.monotonic() + 0.1)
        return max(0.0, min(ends) - time.monotonic()) * 1000 + 1 if ends else None

    def _serve(self, fd: int) -> None:
        if self.control is not None and fd == self.control.fileno():
            self._command()
            return
        for sink in self.sinks:
            if fd == sink.fd and sink.waiting:
                sink.write()
                return
        source = self.sources.get(fd)
        if source is not None and not source.read():
            del self.sources[fd]
            os.close(fd)
            source.worker.open -= 1
            if not source.worker.open:
                self._tell({"ended": source.worker.number})

    def _command(self) -> None:
        assert self.control is not None
        data, fds = receive(self.control)
        if not data:
            self.control.close()
            self.control = None
            return
        told = json.loads(data)
        if "add" in told:
            self._add(int(told["add"]), str(told["prefix"]), fds)
        elif "tail" in told:
            worker = self.workers.setdefault(int(told["tail"]), Worker(int(told["tail"]), ""))
            worker.tail_by = time.monotonic() + float(told["wait"])
        elif "forget" in told:
            known = self.workers.get(int(told["forget"]))
            if known is not None:
                known.forgotten = True

    def _add(self, number: int, prefix: str, fds: list[int]) -> None:
        worker = self.workers[number] = Worker(number, prefix)
        for fd, sink in zip(fds, self.sinks, strict=False):
            self.sources[fd] = Source(fd, worker, sink)
            worker.open += 1

    def _tell(self, told: dict[str, object]) -> None:
        if self.control is None:
            return
        try:
            self.control.send(json.dumps(told).encode(), socket.MSG_DONTWAIT)
        except OSError:
            # The primary is gone, or does not read: it can ask again.
            return


def receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """One message and its fds; no bytes at the end."""
    fds = array.array("i")
    try:
        data, ancillary, _, _ = control.recvmsg(
            65536, socket.CMSG_SPACE(2 * fds.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except OSError:
        return b"", []
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(value[: len(value) - len(value) % fds.itemsize])
    return data, fds.tolist()


def main() -> None:
    """The control is fd 3. Signals to the group of a terminal are not for us: the end is EOF."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    Logger(socket.socket(fileno=3)).run()
    sys.exit(0)


if __name__ == "__main__":
    main()
