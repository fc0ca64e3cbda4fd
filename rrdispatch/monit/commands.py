"""A command of ours in a process of its own: it goes on to its end, whatever becomes of who asked.

So a restart is not left half done because a connection broke. No pipe leads back, since nobody
reads one whose reader is gone; what it says is in a file without a name.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import rrdispatch
from rrdispatch import _core
from rrdispatch._core.layout import SpawnRequest

_RUN = "import sys; sys.path[0] = sys.argv[1]; from rrdispatch.cli import main; main(sys.argv[2:])"
_MOST = 64 * 1024  # of what it said

_left: list[int] = []  # those that nobody waits for any more


def reap() -> bool:
    """Take those that have ended off the process table; True if none is left."""
    _left[:] = [pid for pid in _left if os.waitpid(pid, os.WNOHANG) == (0, 0)]
    return not _left


class Command:
    """From its start; ``done`` waits for its end."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = " ".join(words)
        self.since = time.monotonic()
        self._words = words

    async def done(self) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            reap()
            pid, pidfd = self._spawn(out.fileno(), err.fileno())
            try:
                await _readable(pidfd)
            except asyncio.CancelledError:
                _left.append(pid)
                raise
            finally:
                os.close(pidfd)
            return _exit_code(pid), _text(out.fileno()), _text(err.fileno())

    def _spawn(self, out: int, err: int) -> tuple[int, int]:
        root = str(Path(rrdispatch.__file__).resolve().parent.parent)
        with open(os.devnull, "rb") as nothing:
            request = SpawnRequest(
                program=sys.executable,
                arguments=[sys.executable, "-c", _RUN, root, *self._words],
                environment=dict(os.environ),
                cwd=os.getcwd(),
                fds=[(nothing.fileno(), 0), (out, 1), (err, 2)],
                setsid=True,
            )
            return _core.spawn(request)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)


def _exit_code(pid: int) -> int:
    """It has ended: nobody waits here."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _text(fd: int) -> str:
    return os.pread(fd, _MOST, 0).decode(errors="replace")
