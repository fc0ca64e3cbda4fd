"""A followed program: one that listens by itself, on several ports."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from tests.harness import processes
from tests.harness.followed import Followed
from tests.harness.load import Load, load_beside, run_load
from tests.harness.records import Plan, Tally
from tests.harness.servers import wait_until
from tests.programs.program import free_port

APPS = Path(__file__).with_name("apps")


class FollowedProgram(Followed):
    """``several.py`` on two ports; the third one is for later."""

    def __init__(self, *options: str, home: Path, env: Mapping[str, str] | None = None) -> None:
        self.later, *ports = (free_port() for _ in range(3))
        words = (*options, "--", str(self.later), *map(str, ports))
        super().__init__("several.py", *words, home=home, bind=(), cwd=APPS, env=env)
        self.addresses = [f"127.0.0.1:{port}" for port in ports]

    def __enter__(self) -> FollowedProgram:
        return self

    def loads(self, rate: float = 50.0, path: str = "/") -> list[Load]:
        """One on each port."""
        return [load_beside(self, Plan(at, rate=rate, path=path)) for at in self.addresses]

    def ask_ports(self, count: int) -> list[Tally]:
        return [run_load(Plan(at, "closed", count=count)) for at in self.addresses]

    def serving(self) -> dict[int, int]:
        """Pids by slot, as the primary has them."""
        rows = self.stats()["workers"]
        return {row["slot"]: row["pid"] for row in rows if row["state"] == "ready"}

    def wait_serving(self, count: int, without: int = 0) -> dict[int, int]:
        """Until so many workers are given connections."""

        def enough() -> bool:
            found = self.serving()
            return len(found) == count and without not in found.values()

        wait_until(enough, 30.0, f"{count} workers serve")
        return self.serving()

    def listen_later(self, pid: int) -> None:
        """Makes a worker listen on the third port; returns when it waits, or has been answered."""
        before = len(self.output.lines)
        os.kill(pid, signal.SIGUSR1)
        thread = self.output.wait(r"asks (\d+)", 60.0, before)[1]
        wait_until(lambda: processes.state(int(thread)) != "R", 60.0)

    def known_workers(self) -> bool:
        """No worker runs that the primary does not know."""
        told = {row["pid"] for row in self.stats()["workers"]}
        running = (one.pid for one in self.processes() if os.getsid(one.pid) == one.pid)
        return all(
            pid in told for pid in running if "RRDISPATCH_SLOT" in processes.environment(pid)
        )


def assert_even(tally: Tally, workers: set[int]) -> None:
    """Every one of them, in turn."""
    split = tally.split()
    assert not tally.failed
    assert {record.pid for record in tally.records} == workers
    assert max(split.values()) - min(split.values()) <= 1, split
