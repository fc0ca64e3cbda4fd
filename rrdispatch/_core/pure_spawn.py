"""The pure spawn: posix_spawn of a small launcher that does the rest and execs the program.

Owns the child until it runs the program or is reaped. Nothing is forked from Python: that would
copy the page tables of a large service and run its signal handlers in the child.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os
import signal
import socket
import sys
from pathlib import Path

from .layout import SpawnRequest, Step

_LAUNCHER = str(Path(__file__).with_name("launcher.py"))


def spawn(request: SpawnRequest) -> tuple[int, int]:
    """(pid, pidfd); OSError with the failed step as its filename, and then no child is left."""
    ours, its = socket.socketpair()
    with ours:
        with its:
            pid = _start_launcher(request, its.fileno())
        try:
            failure = _hand_over(ours, request)
            if failure is None:
                return pid, os.pidfd_open(pid)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
    os.waitpid(pid, 0)
    step, code = failure
    raise OSError(code, os.strerror(code), step.name)


def _start_launcher(request: SpawnRequest, report: int) -> int:
    """posix_spawn with the descriptors in their places and the report socket above them."""
    keep = [its for _, its in request.fds]
    report_number = max([2, *keep]) + 1
    moved: list[int] = []
    actions: list[tuple[int, int, int]] = []
    try:
        for mine, its in [*request.fds, (report, report_number)]:
            # First out of the way: a pair's target may be the source of the next one.
            moved.append(fcntl.fcntl(mine, fcntl.F_DUPFD_CLOEXEC, report_number + 1))
            actions.append((os.POSIX_SPAWN_DUP2, moved[-1], its))
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", _LAUNCHER, str(report_number)],
            {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"},
            file_actions=actions,
            setsid=request.setsid,
            setsigmask=(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )
    except OSError as error:
        step = Step.FDS if error.errno in (errno.EBADF, errno.EMFILE) else Step.FORK
        raise OSError(error.errno, error.strerror, step.name) from error
    finally:
        for fd in moved:
            os.close(fd)


def _hand_over(ours: socket.socket, request: SpawnRequest) -> tuple[Step, int] | None:
    """Tell the launcher what to do and wait until its exec closes the socket; None is success."""
    told = marshal.dumps(
        {
            "program": request.program,
            "arguments": list(request.arguments),
            "environment": dict(request.environment),
            "cwd": request.cwd,
            "keep": [its for _, its in request.fds],
            "lifeline": request.lifeline,
            "nofile": request.nofile,
            "cores": None if request.cores is None else list(request.cores),
            "own_pid": request.own_pid,
        }
    )
    try:
        ours.sendall(told)
        ours.shutdown(socket.SHUT_WR)
        answer = ours.makefile("rb").read()
    except (BrokenPipeError, ConnectionResetError):
        return Step.EXEC, errno.ENOEXEC
    if answer == b"E":
        return None
    try:
        step, code = answer.partition(b"F")[2].split()
        return Step(int(step)), int(code)
    except ValueError:
        # The launcher ended without a word: the interpreter itself does not start.
        return Step.EXEC, errno.ENOEXEC
