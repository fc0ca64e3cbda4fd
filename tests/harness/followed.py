"""``rrdispatch run --heir`` as a test sees it: whoever is the primary now, asked and ended."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rrdispatch.control import protocol, statedir
from rrdispatch.errors import ControlError
from tests.harness import processes
from tests.harness.servers import APPS, Service, wait_until

NAMES = itertools.count(1)
ADOPTED_WITHIN = 60.0  # a bound for a busy machine, no measure


class Followed(Service):
    """A service whose primary may be killed; every process of it ends with the block."""

    def __init__(
        self,
        target: str,
        *options: str,
        home: Path,
        name: str = "",
        bind: Sequence[str] = ("127.0.0.1:0",),
        cwd: Path = APPS,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name or f"app{os.getpid()}-{next(NAMES)}"
        self.home = home
        home.mkdir(mode=0o700, exist_ok=True)
        told = {"RRDISPATCH_HOME": str(home), **(env or {})}
        named = ("--heir", "--name", self.name)
        super().__init__(target, *named, *options, bind=bind, cwd=cwd, env=told)
        self.processes()

    def __enter__(self) -> Followed:
        return self

    # ---- the primary of the moment -------------------------------------------------------------

    def ask(self, method: str, timeout: float = 30.0, **params: Any) -> Any:
        """The answer of the primary, of the heir if it comes to that; our own exceptions."""
        with statedir.connect(self.name, self.home, timeout) as control:
            control.sendall(protocol.request(method, params, 1))
            with control.makefile("rb") as lines:
                answer = json.loads(lines.readline() or b'{"error": {"message": "closed"}}')
                # Until it has closed its end: whoever counts its descriptors counts none of ours.
                with suppress(OSError):
                    control.shutdown(socket.SHUT_WR)
                    lines.read()
        if "error" in answer:
            raise protocol.exception(answer["error"])
        return answer["result"]

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("stats")
        return found

    def primary(self) -> int:
        """Its pid. Asking a headless service starts one."""
        found: int = self.stats()["primary_pid"]
        return found

    def primaries(self) -> list[int]:
        """Pids of all that live, without asking anybody: never more than one."""
        said = {self.pid, *(int(line.split()[2]) for line in self._followings())}
        return [pid for pid in sorted(said) if processes.state(pid) not in ("", "Z")]

    def _followings(self) -> list[str]:
        return [line for _, line in self.output.lines if " follows " in line]

    def kill_primary(self, pid: int | None = None) -> int:
        """SIGKILL; its pid."""
        victim = self.primaries()[0] if pid is None else pid
        self.processes()  # orphans are found by what is known of them
        processes.kill(victim)
        wait_until(lambda: processes.state(victim) in ("", "Z"), 30.0)
        return victim

    def wait_heir(self, of: int) -> int:
        """Until somebody has said that it follows ``of``; its pid."""
        match = self.output.wait(rf"primary (\d+) follows {of},", ADOPTED_WITHIN)
        return int(match[1])

    def replace_primary(self) -> int:
        """Kills it and waits for its heir."""
        return self.wait_heir(self.kill_primary())

    # ---- the end -------------------------------------------------------------------------------

    def stop(self, signum: int = signal.SIGTERM, timeout: float = 40.0) -> int:
        """By a signal to whoever is the primary; 0, since an heir's exit code goes to init."""
        self.processes()
        last = self._last_primary()
        if last:
            with suppress(ProcessLookupError):
                os.kill(last, signum)
            wait_until(lambda: processes.state(last) in ("", "Z"), timeout, f"{last} ends")
        code = self.wait(timeout)
        self.assert_nothing_left()
        return code if last == self.pid else 0

    def _last_primary(self) -> int:
        """0 when all has ended already."""
        living = self.primaries()
        if living:
            return living[0]
        return self.primary() if control_is_there(self) else 0


def refused(service: Followed) -> bool:
    """Nobody listens any more."""
    host, _, port = service.address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


def control_is_there(service: Followed) -> bool:
    try:
        statedir.connect(service.name, service.home).close()
    except ControlError:
        return False
    return True
