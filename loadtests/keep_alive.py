"""Locust users that keep their connection, as browsers and proxies do.

    locust -f loadtests/keep_alive.py --host http://127.0.0.1:8000

A connection that the server closes after an answer is opened again; one that it closes in place of
an answer is a failure, and not tried again.
"""

from __future__ import annotations

from locust import constant, task
from parts import RawUser


class KeepAlive(RawUser):
    """Asks as soon as it was answered."""

    wait_time = constant(0)
    keep = True

    @task
    def once(self) -> None:
        self.ask()
