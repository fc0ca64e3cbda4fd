"""A locust user that opens a new connection for every request, as clients without keep-alive do.

    locust -f loadtests/connection_per_request.py --host http://127.0.0.1:8000

At the end it prints how many connections each worker answered.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from locust import FastHttpUser, constant, events, task

answered: Counter[str] = Counter()


class ConnectionPerRequest(FastHttpUser):
    """Asks as soon as it was answered, each time on a connection of its own."""

    wait_time = constant(0)

    @task
    def ask(self) -> None:
        headers = {"Connection": "close"}
        with self.client.get("/", headers=headers, catch_response=True) as response:
            found = re.search(r"worker \d+", response.text or "")
            if found:
                answered[found[0]] += 1
            else:
                response.failure(f"not the answer of a worker: {response.text!r}")


@events.quitting.add_listener
def show(**_: Any) -> None:
    """The split over the workers."""
    for worker, count in sorted(answered.items()):
        print(f"{worker}: {count} connections")
