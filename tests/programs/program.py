"""``rrdispatch run`` of a program, as a test sees it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.harness.load import run_load
from tests.harness.ports import free_port as free_port
from tests.harness.records import Plan, Tally
from tests.harness.servers import START_TIMEOUT, Server, rrdispatch_command, workers

APPS = Path(__file__).with_name("apps")

# Who gets no core for some milliseconds is passed over, rightly; here each has its turn.
PATIENT = ("--stall-timeout", "60")


class Program(Server):
    """Every worker is ready when the constructor returns."""

    def __init__(self, *arguments: str, port: int, options: tuple[str, ...] = ()) -> None:
        self.address = f"127.0.0.1:{port}"
        super().__init__(rrdispatch_command("run", *options, *arguments), cwd=APPS)
        try:
            self.output.wait(r": ready after", START_TIMEOUT)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Program:
        return self

    def workers(self) -> dict[int, int]:
        """Pids by slot."""
        return workers(self.processes())

    def ask(self, count: int, concurrency: int = 1, path: str = "/") -> Tally:
        """A connection per request."""
        plan = Plan(self.address, "closed", count=count, concurrency=concurrency, path=path)
        return run_load(plan)

    def said(self, pattern: str) -> list[str]:
        return re.findall(pattern, self.output.text())
