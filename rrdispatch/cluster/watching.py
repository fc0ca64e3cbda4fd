"""The primary's side of ``--watch``: starts the watcher and hears of changed files."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from rrdispatch import _core
from rrdispatch._core.layout import SpawnRequest
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.handle import wait_exit
from rrdispatch.cluster.watch import Told
from rrdispatch.errors import MissingExtraError
from rrdispatch.settings import Settings

PROGRAM = str(Path(__file__).with_name("watch.py"))
LIFELINE = 3


def require() -> None:
    """MissingExtraError where nothing can be watched."""
    if importlib.util.find_spec("watchfiles") is None:
        raise MissingExtraError(
            f"--watch needs watchfiles, which is not installed for {sys.executable}",
            hint="pip install 'rrdispatch[watch]'",
        )


class Watching:
    """One watcher; its end is told once and it is not replaced: it is for development."""

    def __init__(
        self,
        told: Told,
        reload: Callable[[], object],
        events: Events,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._reload = reload
        self._events = events
        self._part = b""
        self._reaped = False
        self._start(told)
        self._loop.add_reader(self._pipe, self._readable)
        self._loop.add_reader(self._pidfd, self._exited)

    def _start(self, told: Told) -> None:
        with ExitStack() as its_ends:
            self._pipe, out = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            its_ends.callback(os.close, out)
            os.set_blocking(out, True)
            self._lifeline, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            its_ends.enter_context(far)
            request = SpawnRequest(
                program=sys.executable,
                arguments=[sys.executable, PROGRAM, json.dumps(dataclasses.asdict(told))],
                environment=dict(os.environ),
                fds=[(out, 1), (2, 2), (far.fileno(), LIFELINE)],
                lifeline=LIFELINE,
            )
            self.pid, self._pidfd = _core.spawn(request)

    def _readable(self) -> None:
        try:
            data = os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._pipe)
            return
        *lines, self._part = (self._part + data).split(b"\n")
        paths = [path for line in lines for path in json.loads(line)]
        if paths:
            text = f"reload: {paths[0]} has changed"
            self._events.tell("files-changed", text, paths=paths)
            self._reload()

    def _exited(self) -> None:
        how = wait_exit(self._pidfd)
        if how is not None:
            self._loop.remove_reader(self._pidfd)
            self._reaped = True
            text = f"the watcher ended: {how}"
            self._events.tell("warning", text, hint="changes are not seen any more")

    def reap_if_ours(self, pid: int) -> bool:
        """For a PID 1 that peeks at every child."""
        if pid == self.pid and not self._reaped:
            self._exited()
            return True
        return False

    def close(self) -> None:
        """Ends it and forgets it."""
        self._loop.remove_reader(self._pipe)
        if not self._reaped:
            self._loop.remove_reader(self._pidfd)
            os.kill(self.pid, signal.SIGKILL)  # not reaped yet: the number is still its own
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)
        os.close(self._pipe)
        self._lifeline.close()


def what(settings: Settings, cwd: str) -> Told:
    """What is watched, and what of it does not count."""
    folders = [os.path.normpath(os.path.join(cwd, folder)) for folder in settings.watch_paths]
    files = (settings.log_file, settings.out_file, settings.error_file)
    ours = os.environ.get("RRDISPATCH_HOME")
    return Told(
        which="all" if folders else "python",
        folders=folders or [cwd],
        cwd=cwd,
        ignored=[*settings.ignore_watch, *([os.path.abspath(ours)] if ours else [])],
        written=[name for path in files if path for name in (path, os.path.realpath(path))],
        identities=written_to(),
        since=time.time(),
    )


def written_to() -> list[str]:
    """The files that our output, and that of the workers, goes to: their changes are our own."""
    found = []
    for fd in (1, 2):
        with suppress(OSError):
            status = os.fstat(fd)
            found.append(f"{status.st_dev}:{status.st_ino}")
    return found
