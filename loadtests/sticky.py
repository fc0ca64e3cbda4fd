"""Sessions: does a client meet the same worker again?

    locust -f loadtests/sticky.py --host http://127.0.0.1:8000

Each user keeps its cookies and asks on a new connection each time. At the end it prints how many of
the requests were answered by the worker that answered the user's first one: a share of 1/N with N
workers means that nothing sticks, and that sessions must not live in a worker's memory. With
STICKY=1 in the environment an answer by another worker is a failure.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from locust import constant, events, task
from parts import RawUser, Unanswered

REQUIRED = os.environ.get("STICKY", "") not in ("", "0")
met: Counter[str] = Counter()


class Session(RawUser):
    """A client with a cookie jar."""

    wait_time = constant(0)
    first = ""

    @task
    def once(self) -> None:
        self.ask()

    def _note(self, head: bytes, body: bytes) -> None:
        super()._note(head, body)
        if not self.first:
            self.first = self.worker
            return
        same = self.worker == self.first
        met["same" if same else "other"] += 1
        if REQUIRED and not same:
            raise Unanswered(f"answered by {self.worker}, not by {self.first}")


@events.quitting.add_listener
def share(**_: Any) -> None:
    total = max(1, sum(met.values()))
    print(f"the worker of the first request again: {100 * met['same'] / total:.1f} %")
