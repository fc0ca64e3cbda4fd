"""Starting a primary that outlives the command: its process, and the wait for its answer.

An own session, no terminal, stdin from nowhere, its words in the state folder. Must not know what a
definition's options mean.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rrdispatch
from rrdispatch import _core
from rrdispatch._core.layout import SpawnRequest
from rrdispatch.control import definitions, ending, statedir
from rrdispatch.control.ask import Line
from rrdispatch.control.definitions import Definition
from rrdispatch.errors import ConfigError, ControlError, Error, StartError

FD = 3
SOON = 3.0  # for an answer of one that runs already
SLACK = 30.0  # beyond what the settings allow a start to take
END = 10.0  # for a primary whose start failed to be gone
TAIL = 16 * 1024
_RUN = (
    "import sys; sys.path[0] = sys.argv[1]; "
    "from rrdispatch.cli.daemon import main; sys.exit(main())"
)


def start(
    definition: Definition, within: float, on_event: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """Serving when it returns; else its error, and nothing is left."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        with its:
            before, pid, pidfd = _spawn(definition, its)
        try:
            return _answer(definition, Line(definition.name, ours, on_event), within)
        except BaseException as error:
            ours.close()  # without an answer this means: take it back
            _see_off(pidfd)
            if isinstance(error, Silent):
                died = _died(definition, before, pid)
                _tidy(definition.name)
                raise died from None
            raise
        finally:
            os.close(pidfd)
            with contextlib.suppress(ChildProcessError):  # whoever ignores SIGCHLD has none to reap
                os.waitpid(pid, os.WNOHANG)


def check_free(name: str) -> None:
    """ControlError if it runs: said before anything is begun. Who holds the name is its lock's
    affair all the same.
    """
    try:
        with Line.to(name) as line:
            state = line.call("stats", SOON)["state"]
    except ControlError:
        return  # nobody is there; or nobody answers, and the lock says it
    if state == "stopping":
        raise ControlError(
            f"{name} is still stopping", hint=f"rrdispatch stop {name} waits for its end"
        )
    if state != "ended":
        raise statedir.runs_already(name)


class Silent(Error):
    """It went without an answer."""


def _answer(definition: Definition, line: Line, within: float) -> dict[str, Any]:
    told = json.dumps(dataclasses.asdict(definition)).encode() + b"\n"
    try:
        line.control.settimeout(SLACK)
        line.control.sendall(told)
    except OSError:
        raise Silent("it did not listen") from None
    end = time.monotonic() + within + SLACK
    while 1 not in line.answers:
        if time.monotonic() >= end:
            raise StartError(f"{definition.name} did not become ready within {within + SLACK:g} s")
        if line.ended:
            raise Silent("no answer")
        try:
            line.wait(end)
        except ControlError:
            continue  # too late, or gone: told above
    found: dict[str, Any] = line.result(1)
    return found


def _spawn(definition: Definition, its: socket.socket) -> tuple[int, int, int]:
    """(how long its output was before, pid, pidfd)."""
    root = str(Path(rrdispatch.__file__).resolve().parent.parent)
    if not os.path.isdir(definition.cwd):
        raise ConfigError(f"cwd: {definition.cwd} is no folder", hint="start it from another one")
    home = str(statedir.home())
    output = statedir.open_output(definition.name)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    request = SpawnRequest(
        program=sys.executable,
        arguments=[sys.executable, "-c", _RUN, root],
        environment={**definition.environ, "RRDISPATCH_HOME": home},
        cwd=definition.cwd,
        fds=[(nothing, 0), (output, 1), (output, 2), (its.fileno(), FD)],
        setsid=True,
    )
    try:
        before = os.fstat(output).st_size
        pid, pidfd = _core.spawn(request)
    except OSError as error:
        text = f"the primary could not be started: {error.strerror} ({error.filename})"
        raise StartError(text) from error
    finally:
        os.close(output)
        os.close(nothing)
    return before, pid, pidfd


def _died(definition: Definition, before: int, pid: int) -> StartError:
    """What it said last; its heir, if it has one, is not wanted either."""
    try:
        with Line.to(definition.name) as line:
            if _listener(line.control) == pid:  # not somebody else's app of that name
                line.call("kill")
    except ControlError:
        pass  # nobody is there
    text = ""
    try:
        with open(statedir.output_path(definition.name), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(before if before <= size else 0, size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        pass  # deleted with the rest
    return StartError(f"the primary of {definition.name} ended without a word", output=text)


def _tidy(name: str) -> None:
    """A folder that nobody claimed, but for the words of one who died before he could."""
    with contextlib.suppress(Error), ending.locked(name):
        if definitions.load(name) is None:
            statedir.remove(statedir.home() / name)


def _listener(control: socket.socket) -> int:
    """Who called listen(2), as unix(7) tells it: heirs have the socket of the first primary."""
    told = control.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", told)[0]
    return pid


def _see_off(pidfd: int) -> None:
    """A primary whose start failed is waited for, and ended if need be."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(END * 1000):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll.poll(END * 1000)
