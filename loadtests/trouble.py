"""Reload, kill or scale while clients ask; the run fails if a single request does.

    locust -f loadtests/trouble.py --host http://127.0.0.1:8000 --trouble reload --primary PID

``--trouble reload`` sends HUP, ``kill`` SIGKILLs a worker (a child of the primary, found by the pid
that answers tell), ``scale`` sends TTIN and TTOU in turn; ``--every`` seconds, and
with ``--times N`` so often. A request that a killed worker had in hand dies with it, whoever
supervises: ``--in-hand`` allows so many failures per kill (0 if not said). PID is that of
rrdispatch's primary, or gunicorn's.
"""

from __future__ import annotations

import os
import re
import signal
from argparse import Namespace
from itertools import cycle
from typing import Any

import gevent
from locust import constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from parts import RawUser

pids: dict[int, int] = {}  # answers by pid of those that told it
done: list[str] = []


class Client(RawUser):
    """A connection per request."""

    wait_time = constant(0)

    @task
    def once(self) -> None:
        self.ask()

    def _note(self, head: bytes, body: bytes) -> None:
        super()._note(head, body)
        if found := re.search(rb"(?i)\r\nx-pid: *(\d+)|pid (\d+)", head + body):
            pid = int(found[1] or found[2])
            pids[pid] = pids.get(pid, 0) + 1


class Kept(Client):
    """And a kept one."""

    keep = True


@events.init_command_line_parser.add_listener
def options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--trouble", choices=["reload", "kill", "scale"], default="reload")
    parser.add_argument("--primary", type=int, required=True, metavar="PID")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--times", type=int, default=0, metavar="N", help="and then it ends")
    parser.add_argument("--in-hand", type=int, default=0, metavar="N", help="lost per kill")


@events.test_start.add_listener
def begin(environment: Environment, **_: Any) -> None:
    asked = environment.parsed_options
    assert asked is not None
    gevent.spawn(trouble, asked, environment)


def trouble(asked: Namespace, environment: Environment) -> None:
    """So many times, or for as long as locust runs."""
    scale = cycle([signal.SIGTTIN, signal.SIGTTOU])
    while True:
        gevent.sleep(asked.every)
        if asked.times and len(done) >= asked.times:
            assert environment.runner is not None
            environment.runner.quit()
            return
        if asked.trouble == "kill":
            kill(asked.primary)
        else:
            send(asked.primary, signal.SIGHUP if asked.trouble == "reload" else next(scale))


def kill(primary: int) -> None:
    """Of the workers that answer and are children of the primary: the one that answered most."""
    alive = [pid for pid in pids if is_child(pid, primary)]
    if alive:
        victim = max(alive, key=lambda pid: pids[pid])
        pids.pop(victim)
        send(victim, signal.SIGKILL)


def is_child(pid: int, primary: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[1]) == primary
    except OSError:
        return False


def send(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)
    done.append(number.name)


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    asked = environment.parsed_options
    assert asked is not None
    failed = environment.stats.total.num_failures
    allowed = asked.in_hand * done.count("SIGKILL")
    print(f"{asked.trouble}: {len(done)} times ({', '.join(sorted(set(done)))}), {failed} failed")
    good = done and failed <= allowed and environment.stats.total.num_requests
    environment.process_exit_code = 0 if good else 1
