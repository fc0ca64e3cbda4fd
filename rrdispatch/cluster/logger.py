"""The logger, a process of its own: reads the workers' output and writes it, line by line.

Run with ``-I -S``: it uses the standard library only, and of rrdispatch the modules that are about
logs. It keeps the last lines of each worker for error reports. It must not know what a worker is.

Control, a SEQPACKET socket with JSON messages. ``{"setup": {...}}`` (``logplan.Plan``) comes first.
``{"add": id, "slot": n}`` with two fds (stdout and stderr of the worker) and a journal if it is for
files. ``{"begin": 1}``: all that a logger before had is added, so that the half line that it may
have left in a file is whole again before anybody writes there. ``{"tail": id, "wait": seconds}`` is
answered by ``{"tail": id, "lines": [...]}`` when both are at their end, or after ``wait``;
``{"forget": id}``; ``{"say": slot, "text": lines}`` goes where that slot's stderr goes;
``{"reopen": n}`` is answered by ``{"reopened": n, "error": text}``.
It tells ``{"ended": id}``, and ``{"output": name, "error": text, "dropped": lines}`` when an output
fails (no text: it works again). It exits when the control is closed and every pipe is at its end.
SIGUSR1 is ``reopen`` without an answer.
"""

from __future__ import annotations

import array
import errno
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rrdispatch.cluster.journal import Journal
from rrdispatch.cluster.logfiles import LogFile, is_device
from rrdispatch.cluster.logformat import ERR, OUT, Who
from rrdispatch.cluster.logplan import Plan, worker_path
from rrdispatch.cluster.logsink import Sink, Tell
from rrdispatch.cluster.logsources import FileSource, Source, StreamSource, Worker, lines_of, now

IGNORED = ["INT", "TERM", "HUP", "QUIT", "PIPE", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO"]
STREAMS = (OUT, ERR)  # in the order of the fds


class Outputs:
    """Where lines go: our own streams, files, devices; each opened once."""

    def __init__(self, out: int, err: int, tell: Tell) -> None:
        self.streams = {
            OUT: Sink(out, "stdout", tell, self._note),
            ERR: Sink(err, "stderr", tell, self._note),
        }
        self.files: dict[str, LogFile] = {}
        self.plan = Plan()
        self._devices: dict[str, Sink] = {}
        self._tell = tell

    @property
    def sinks(self) -> list[Sink]:
        return [*self.streams.values(), *self._devices.values()]

    def of(self, stream: str, slot: int) -> Sink | LogFile:
        path = self.plan.files.get(stream)
        if path is None:
            return self.streams[stream]
        if is_device(path) and (device := self._device(path)) is not None:
            return device
        path = os.path.realpath(path if self.plan.merge else worker_path(path, slot))
        if path not in self.files:
            self.files[path] = LogFile(
                path, self.plan.most, self.plan.keep, self._tell, self._file_note
            )
        return self.files[path]

    def _device(self, path: str) -> Sink | None:
        """None for one that cannot be opened: as a file it fails, and that is told."""
        if path not in self._devices:
            try:
                fd = open_device(path)
            except OSError:
                return None
            self._devices[path] = Sink(fd, path, self._tell, self._file_note)
        return self._devices[path]

    def _note(self, message: str) -> bytes:
        return self.plan.format(in_file=False).note(self.plan.name, message, now())

    def _file_note(self, message: str) -> bytes:
        return self.plan.format(in_file=True).note(self.plan.name, message, now())

    def say(self, slot: int, text: str) -> None:
        """What is known of a worker but was not printed by it, where its stderr goes."""
        output = self.of(ERR, slot)
        form = self.plan.format(ERR in self.plan.files)
        lines = form.text(
            Who(self.plan.name, slot, ERR), text.encode(errors="backslashreplace"), now()
        )
        if isinstance(output, LogFile):
            output.append(lines)
            return
        for line in lines_of(lines):
            output.put(line)

    def reopen(self) -> str:
        """Every file; the first reason why one cannot be had."""
        return next((why for file in self.files.values() if (why := file.reopen())), "")

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        for sink in self.sinks:
            sink.close()


def open_device(path: str) -> int:
    """Not to be waited for; a FIFO that nobody reads yet, too: we are its reader until then."""
    flags = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_WRONLY)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.open(path, flags | os.O_RDWR)


class Logger:
    """The loop."""

    def __init__(self, control: socket.socket, out: int = 1, err: int = 2) -> None:
        self.control: socket.socket | None = control
        self.outputs = Outputs(out, err, self._tell)
        self.sources: dict[int, Source] = {}
        self.workers: dict[int, Worker] = {}
        self.reopen_asked = False
        self._begun = False
        self._commands: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "setup": self._set_up,
            "begin": self._begin,
            "tail": self._tail,
            "forget": self._forget,
            "say": self._say,
            "reopen": self._reopen,
        }

    def run(self) -> None:
        while self.control is not None or self.sources or self._hopeful():
            self._once()
        self.outputs.close()

    def _hopeful(self) -> bool:
        return any(sink.hopeful for sink in self.outputs.sinks)

    def _once(self) -> None:
        poll = select.poll()
        if self.control is not None:
            poll.register(self.control, select.POLLIN)
        for sink in self.outputs.sinks:
            if sink.waiting:
                poll.register(sink.fd, select.POLLOUT)
        sources = list(self.sources.values()) if self._begun else []
        for source in sources:
            if not source.waits:
                poll.register(source.fd, select.POLLIN)
        for fd, _ in poll.poll(self._patience(any(source.waits for source in sources))):
            self._serve(fd)
        self._look_after_workers(time.monotonic())

    def _look_after_workers(self, now: float) -> None:
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
        if self.reopen_asked:
            self.reopen_asked = False
            self.outputs.reopen()
        if self.control is not None and fd == self.control.fileno():
            self._command()
            return
        for sink in self.outputs.sinks:
            if fd == sink.fd and sink.waiting:
                sink.write()
                return
        source = self.sources.get(fd)
        if source is not None and not source.read():
            del self.sources[fd]
            source.close()
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
            self._add(int(told["add"]), int(told["slot"]), fds)
            return
        for word in told:
            if word in self._commands:
                self._commands[word](told)

    def _tail(self, told: Mapping[str, Any]) -> None:
        worker = self.workers.setdefault(int(told["tail"]), Worker(int(told["tail"])))
        worker.tail_by = time.monotonic() + float(told["wait"])

    def _forget(self, told: Mapping[str, Any]) -> None:
        known = self.workers.get(int(told["forget"]))
        if known is not None:
            known.forgotten = True

    def _begin(self, _told: Mapping[str, Any]) -> None:
        self._begun = True
        for source in self.sources.values():
            source.begin()

    def _set_up(self, told: Mapping[str, Any]) -> None:
        self.outputs.plan = Plan(**told["setup"])

    def _say(self, told: Mapping[str, Any]) -> None:
        self.outputs.say(int(told["say"]), str(told["text"]))

    def _reopen(self, told: Mapping[str, Any]) -> None:
        self._tell({"reopened": told["reopen"], "error": self.outputs.reopen()})

    def _add(self, number: int, slot: int, fds: Sequence[int]) -> None:
        worker = self.workers[number] = Worker(number)
        memory = fds[len(STREAMS)] if len(fds) > len(STREAMS) else -1
        for part in range(len(STREAMS)):
            source = self._source(fds[part], worker, slot, (memory, part))
            self.sources[source.fd] = source
            worker.open += 1
            if self._begun:
                source.begin()
        if memory >= 0:
            os.close(memory)  # what maps it keeps it

    def _source(self, fd: int, worker: Worker, slot: int, journal: tuple[int, int]) -> Source:
        stream = STREAMS[journal[1]]
        plan, output = self.outputs.plan, self.outputs.of(stream, slot)
        who, in_file = Who(plan.name, slot, stream), stream in plan.files
        if isinstance(output, Sink):
            return StreamSource(fd, worker, who, plan.format(in_file), output)
        return FileSource(fd, worker, who, plan.format(True), output, Journal(*journal))

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
            65536, socket.CMSG_SPACE(4 * fds.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except OSError:
        return b"", []
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(value[: len(value) - len(value) % fds.itemsize])
    return data, fds.tolist()


def main() -> None:
    """The control is fd 3. Signals to the group of a terminal are not for us: the end is EOF."""
    for name in IGNORED:
        signal.signal(signal.Signals[f"SIG{name}"], signal.SIG_IGN)
    logger = Logger(socket.socket(fileno=3))

    def reopen(*_: Any) -> None:
        logger.reopen_asked = True  # before the next line; not in the midst of this one

    signal.signal(signal.SIGUSR1, reopen)
    logger.run()
    sys.exit(0)
