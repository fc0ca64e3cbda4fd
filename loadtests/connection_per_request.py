"""A locust user that opens a new connection for every request, as clients without keep-alive do.

    locust -f loadtests/connection_per_request.py --host http://127.0.0.1:8000

Connect, first byte and the whole are rows of their own. At the end it prints how many connections
each worker answered, and the share of requests over 1 s and over 3 s.
"""

from __future__ import annotations

from locust import constant, task
from parts import RawUser


class ConnectionPerRequest(RawUser):
    """Asks as soon as it was answered, each time on a connection of its own."""

    wait_time = constant(0)

    @task
    def once(self) -> None:
        self.ask()
