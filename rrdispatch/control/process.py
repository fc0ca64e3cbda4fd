"""The primary process as its service sees it: started by exec, ended by closing its control."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rrdispatch
from rrdispatch import _core
from rrdispatch._core.layout import SpawnRequest
from rrdispatch.errors import ConfigError, StartError
from rrdispatch.settings import Settings, from_values

CONTROL = 3
# Found where we were found, wherever the service's sys.path has it from.
_RUN = (
    "import sys; sys.path[0] = sys.argv[1]; "
    "from rrdispatch.control.primary import main; sys.exit(main(sys.argv[2:]))"
)


@dataclass(slots=True)
class PrimaryProcess:
    """Its process and our end of its control socket; the socket's owner closes it."""

    pid: int
    pidfd: int
    control: socket.socket

    @classmethod
    def start(cls) -> PrimaryProcess:
        """An own session: a terminal's signals are the service's, not ours."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        root = str(Path(rrdispatch.__file__).resolve().parent.parent)
        argv = [sys.executable, "-c", _RUN, root, "--control-fd", str(CONTROL)]
        request = SpawnRequest(
            program=sys.executable,
            arguments=argv,
            environment=dict(os.environ),
            cwd=os.getcwd(),
            fds=[*_standard(), (its.fileno(), CONTROL)],
            setsid=True,
        )
        with its:
            try:
                pid, pidfd = _core.spawn(request)
            except OSError as error:
                ours.close()
                raise StartError(
                    f"the primary could not be started: {error.strerror} ({error.filename})"
                ) from error
        return cls(pid, pidfd, ours)

    def wait(self, timeout: float | None) -> bool:
        """Until it ended; False if it did not."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else max(0, timeout) * 1000))

    def kill(self) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return

    def reap(self) -> int:
        """Its exit code (minus the signal's number); 0 if the service reaped it before us."""
        try:
            found = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except ChildProcessError:
            return 0
        finally:
            os.close(self.pidfd)
            self.pidfd = -1
        assert found is not None
        return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _standard() -> list[tuple[int, int]]:
    """stdin, stdout and stderr, as far as the service has them."""
    found = []
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append((number, number))
    return found


def settings_of(
    target: str, bind: str | Sequence[str] | None, workers: int | str, rest: Mapping[str, Any]
) -> Settings:
    """A Cluster's arguments as settings; ConfigError for a wrong one, in the service itself."""
    for word in ("instances", "worker"):
        if word in rest:
            wrong = f"Cluster: there is no argument {word!r}"
            raise ConfigError(wrong, hint="did you mean 'workers'?")
    values = {**rest, "target": target, "instances": str(workers)}
    if bind is not None:
        values["bind"] = [bind] if isinstance(bind, str) else list(bind)
    settings = from_values(values)
    if settings.heir:
        raise ConfigError(
            "heir: an embedded Cluster ends with its service, nobody follows its primary",
            hint="leave heir out, or start the app by itself: rrdispatch run --heir",
        )
    return settings
