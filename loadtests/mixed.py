"""Mostly quick requests, and 1 % that block their worker for 500 ms.

    locust -f loadtests/mixed.py --host http://127.0.0.1:8000

An open loop: each user asks every 100 ms whatever became of the last request, and waiting counts
from when it should have asked. The app has to block on ``/block/500`` (loadtests/apps/contender.py
does); MIXED_QUICK and MIXED_SLOW in the environment name other paths.
"""

from __future__ import annotations

import os
import random

from locust import constant, task
from parts import RawUser

QUICK, SLOW = os.environ.get("MIXED_QUICK", "/"), os.environ.get("MIXED_SLOW", "/block/500")
SHARE = 0.01


class Mixed(RawUser):
    """Ten requests a second."""

    wait_time = constant(0)
    open_loop_s = 0.1

    @task
    def once(self) -> None:
        self.ask(SLOW if random.random() < SHARE else QUICK)
