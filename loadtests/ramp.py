"""More and more users, until more of them bring no more answers.

    locust -f loadtests/ramp.py --host http://127.0.0.1:8000 --headless

RAMP_STEP seconds per step (10), RAMP_USERS at the first (10), half as many again at each. It ends
when a step brought less than 5 % more requests per second, or with RAMP_MOST users (1000), and
prints the steps.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from locust import LoadTestShape, constant, events, task
from parts import RawUser

STEP_S = float(os.environ.get("RAMP_STEP", "10"))
FIRST, MOST = int(os.environ.get("RAMP_USERS", "10")), int(os.environ.get("RAMP_MOST", "1000"))
GROWTH, LEAST_GAIN = 1.5, 1.05


@dataclass(frozen=True)
class Step:
    users: int
    rate: float
    p99_ms: float


steps: list[Step] = []


class Client(RawUser):
    """A connection per request."""

    wait_time = constant(0)

    @task
    def once(self) -> None:
        self.ask()


class Ramp(LoadTestShape):
    """Looks at the whole requests of the step that has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.users = FIRST
        self.until = STEP_S
        self.before = 0

    def tick(self) -> tuple[int, float] | None:
        now = self.get_run_time()
        if now >= self.until:
            self._ended(STEP_S + now - self.until)
            if saturated(steps) or self.users >= MOST:
                return None
            self.users = min(MOST, int(self.users * GROWTH) + 1)
            self.until = now + STEP_S
        return self.users, float(self.users)

    def _ended(self, seconds: float) -> None:
        assert self.runner is not None
        whole = [e for (_, part), e in self.runner.stats.entries.items() if part == "whole"]
        number = sum(entry.num_requests for entry in whole)
        p99 = max(
            (entry.get_current_response_time_percentile(0.99) or 0 for entry in whole), default=0
        )
        steps.append(Step(self.users, (number - self.before) / seconds, p99))
        self.before = number


def saturated(found: list[Step]) -> bool:
    """The last step brought next to nothing."""
    return len(found) > 1 and found[-1].rate < LEAST_GAIN * max(step.rate for step in found[:-1])


@events.quitting.add_listener
def show(**_: Any) -> None:
    print(f"{'users':>8}{'requests/s':>12}{'p99 ms':>9}")
    for step in steps:
        print(f"{step.users:>8}{step.rate:>12.0f}{step.p99_ms:>9.0f}")
