"""Heirs in the hands of a test: the process that the dispatcher starts gives its control socket to
the test, which goes on as the primary.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rrdispatch._core.layout import AppTag, Control, ControlKind, Inherit, heir_command
from rrdispatch.dispatch.process import DispatcherHandle

from .rig import SECOND, Rig
from .workers import LIMIT, Worker, wait_readable

SCRIPT = Path(__file__).with_name("heir_process.py")
LONG = 600 * SECOND


@contextlib.contextmanager
def memory(data: bytes) -> Iterator[int]:
    """A memfd that holds `data`."""
    fd = os.memfd_create("command")
    try:
        os.write(fd, data)
        yield fd
    finally:
        os.close(fd)


def identity(fd: int) -> tuple[object, ...]:
    """What is the same of every descriptor of one thing, and of no other thing's."""
    about = os.fstat(fd)
    found = [os.readlink(f"/proc/self/fd/{fd}"), about.st_dev, about.st_ino]
    if "pidfd" in str(found[0]):
        text = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii")
        found.append(re.findall(r"^Pid:.*$", text, re.MULTILINE)[0])
    if str(found[0]).startswith("socket:"):
        with socket.socket(fileno=os.dup(fd)) as sock:
            found.append(sock.getsockopt(socket.SOL_SOCKET, 57, 8))  # SO_COOKIE
    return tuple(found)


class House:
    """The test as one primary after another of the same dispatcher."""

    def __init__(self, dispatcher: Rig, folder: Path) -> None:
        self.rig = dispatcher
        self.folder = folder
        self.facts: dict[str, Any] = {}
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(folder / "heirs"))
        self._door.listen()
        self._lines: list[socket.socket] = []
        self._calls: list[socket.socket] = []
        self.control: socket.socket | None = None

    @property
    def command(self) -> list[str]:
        """An heir's program and arguments."""
        return [sys.executable, "-I", "-S", str(SCRIPT), str(self.folder / "heirs")]

    def say(self, data: bytes, values: Sequence[int] = (3, LONG, 0)) -> int:
        """HEIR with these bytes; the result."""
        with memory(data) as fd:
            sequence = self.rig.request(ControlKind.HEIR, values=values, fds=[fd])
            return self.rig.answer(sequence).result

    def expect(
        self,
        most: int = 3,
        window: int = LONG,
        silence: int = 0,
        *,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """HEIR: from now on the primary's death starts one."""
        words = list(command or self.command)
        data = heir_command(words[0], str(self.folder), words, environment or {})
        assert self.say(data, (most, window, silence)) == 0

    def keep_control(self) -> None:
        """A control listener is kept: clients call for an heir there."""
        self.control = socket.socket(socket.AF_UNIX)
        self.control.bind(str(self.folder / "control"))
        self.control.listen()
        self.rig.ask(ControlKind.KEEP, values=(AppTag.CONTROL,), fds=[self.control.fileno()])

    def keep_door(self) -> None:
        """Where programs ask: another place to call at."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.folder / "door"))
            listener.listen()
            self.rig.ask(ControlKind.KEEP, values=(AppTag.DOOR,), fds=[listener.fileno()])

    def call(self, where: str = "control") -> socket.socket:
        """A client connects to the control listener, or to the ``door``."""
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.folder / where))
        self._calls.append(client)
        return client

    def die(self) -> None:
        """The end of the control socket, as when the primary dies."""
        self.rig.dispatcher.close()
        self.rig.dispatcher.pidfd = os.pidfd_open(self.rig.dispatcher.pid)

    def succeed(self) -> Control:
        """The test goes on as the heir that was started; its first message."""
        wait_readable(self._door.fileno(), "an heir")
        line, _ = self._door.accept()
        self._lines.append(line)
        wait_readable(line.fileno(), "an heir's word")
        data, fds, _, _ = socket.recv_fds(line, 1, 1)
        text = data + line.makefile("rb").readline()
        self.facts = json.loads(text)
        old = self.rig.dispatcher
        control = socket.socket(fileno=fds[0])
        self.rig.dispatcher = DispatcherHandle.inherit(control, old.pid, kind=old.kind)
        old.close()
        self.rig.events.clear()
        wait_readable(self.rig.dispatcher.fileno(), "STARTED")
        started, *events = self.rig.dispatcher.receive()
        assert started.kind == ControlKind.STARTED
        # Nothing was asked yet: what the dead one asked for is not answered here.
        assert all(event.sequence == 0 for event in events)
        self.rig.events.extend(events)
        return started

    def started(self) -> int:
        """Heirs of all time."""
        return self.rig.ask(ControlKind.PING).values[9]

    def inherit(
        self, what: Inherit, *, worker: Worker | None = None, listener: int = 0, tag: int = 0
    ) -> tuple[Control, list[int]]:
        """INHERIT; the fds are closed with the rig."""
        number = worker.id if worker else 0
        sequence = self.rig.request(
            ControlKind.INHERIT, worker=number, listener=listener, values=(what, tag)
        )
        answer = self.rig.answer(sequence)
        return answer, self.rig.fds_of(sequence)

    def headless(self) -> bool:
        """Nobody is there, and the dispatcher listens for a call: it is in its epoll set."""
        assert self.control is not None
        inode = os.fstat(self.control.fileno()).st_ino
        base = Path(f"/proc/{self.rig.dispatcher.pid}")
        try:
            links = {int(one.name): os.readlink(one) for one in (base / "fd").iterdir()}
        except FileNotFoundError:
            return False  # one was just closed
        (epoll,) = [fd for fd, name in links.items() if name == "anon_inode:[eventpoll]"]
        kept = [fd for fd, name in links.items() if name == f"socket:[{inode}]"]
        text = (base / "fdinfo" / str(epoll)).read_text(encoding="ascii")
        return any(re.search(rf"^tfd: +{fd} ", text, re.MULTILINE) for fd in kept)

    def await_headless(self) -> None:
        """Until it is."""
        wait_until(self.headless, "headless")

    def close(self) -> None:
        """Whoever is still there ends: heirs see the end of their line."""
        if self.rig.dispatcher.fileno() < 0 and not self.rig.ended:
            self.rig.kill_dispatcher()
        for sock in (self._door, *self._lines, *self._calls, *filter(None, [self.control])):
            sock.close()


def wait_until(condition: Any, what: str) -> None:
    """For what no event tells of."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        select.poll().poll(2)


def children(pid: int) -> dict[int, str]:
    """State by pid of the processes that a process has started and that were not reaped."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            text = (entry / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        state, parent = text.rpartition(")")[2].split()[:2]
        if int(parent) == pid:
            found[int(entry.name)] = state
    return found
