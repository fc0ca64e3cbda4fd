"""A contender while it runs: all its processes, the CPU and memory they use, its workers' pids."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.harness import processes
from tests.harness.load import Load
from tests.harness.ports import free_port
from tests.harness.records import Plan, Record
from tests.harness.servers import Server, wait_until

from .contenders import Contender, Place

APPS = Path(__file__).with_name("apps")
START_S = 45.0
RECENT = 200  # answers in which every worker is seen


class Traffic(Load):
    """A load of the faster generator."""

    program = "loadtests.generator"

    def __enter__(self) -> Traffic:
        return self

    def busy(self) -> float:
        """CPU seconds that the generator has used: near the wall's, the generator is the limit."""
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return float(times.user + times.system)


def traffic(plan: Plan, seconds: float = 0.0) -> list[Record]:
    """For so many seconds, or to the end of what the plan counts."""
    with Traffic(plan) as load:
        if seconds:
            pause(seconds)
            return load.stop().records
        return load.finish().records


def pause(seconds: float) -> None:
    """The length of a measurement."""
    time.sleep(max(0.0, seconds))


@dataclass(frozen=True)
class Usage:
    """CPU nanoseconds of all processes so far, of those that ended too; and of each that lives."""

    total: int
    by_pid: dict[int, int]

    def since(self, before: Usage, workers: set[int]) -> tuple[float, float]:
        """Nanoseconds in workers, and elsewhere."""
        own = sum(
            used - before.by_pid.get(pid, 0) for pid, used in self.by_pid.items() if pid in workers
        )
        return own, max(0, self.total - before.total - own)


class Running(Server):
    """One contender over its own copy of the app, answering with all its workers."""

    def __init__(self, contender: Contender, directory: Path, workers: int) -> None:
        shutil.copytree(APPS, directory, ignore=shutil.ignore_patterns("__pycache__"))
        self.contender, self.directory, self.number = contender, directory, workers
        self.deploy("v0")
        port = free_port()  # not all of them tell which one they got for port 0
        self.address = f"127.0.0.1:{port}"
        self.workers: set[int] = set()
        self.spoilt = False  # not worth an end in order
        place = Place(port, workers, directory)
        environment = {"CONTENDER_PORT": str(port), "PM2_HOME": str(directory / "pm2")}
        began = time.monotonic()
        super().__init__(
            contender.command(place), cwd=directory, env=environment | contender.environment
        )
        try:
            wait_until(self._listens, START_S, f"{contender.name} listens")
            wait_until(self._all_answer, START_S, f"all workers of {contender.name} answer")
        except BaseException:
            self.close()
            raise
        self.started_in = time.monotonic() - began

    def deploy(self, version: str, addition: str = "") -> None:
        """Both are read when a worker boots."""
        app = self.directory / "contender.py"
        app.write_text((APPS / "contender.py").read_text() + addition)
        (self.directory / "version").write_text(version)

    def _listens(self) -> bool:
        if self.popen.poll() is not None:
            raise RuntimeError(f"it ended:\n{self.output.text()[-2000:]}")
        host, _, port = self.address.rpartition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def _all_answer(self) -> bool:
        if self.popen.poll() is not None:
            raise RuntimeError(f"it ended:\n{self.output.text()[-2000:]}")
        plan = Plan(self.address, count=25 * self.number, path="/sleep/10", timeout=5.0)
        self.workers |= {record.pid for record in traffic(plan) if record.ok}
        return len(self.workers) >= self.number

    def usage(self) -> Usage:
        by_pid: dict[int, int] = {}
        ended = 0.0
        for each in self.processes():
            with suppress(psutil.Error, OSError):
                times = psutil.Process(each.pid).cpu_times()
                # The clock id of another process' CPU time, exact where cpu_times() counts ticks.
                by_pid[each.pid] = time.clock_gettime_ns((~each.pid << 3) | 2)
                ended += times.children_user + times.children_system
        return Usage(sum(by_pid.values()) + int(ended * 1e9), by_pid)

    def pss_mib(self) -> float:
        """Shared pages by their share; 0 where the kernel does not say."""
        total = 0
        for each in self.processes():
            with suppress(OSError, ValueError):
                total += processes.memory(each.pid).pss
        return total / 1024

    def reload(self) -> None:
        """As an operator would."""
        if self.contender.reload == "pm2":
            subprocess.Popen(
                ["pm2", "reload", "all"],
                env=os.environ | {"PM2_HOME": str(self.directory / "pm2")},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ).wait(60)
        else:
            self.send_signal(getattr(signal, f"SIG{self.contender.reload}"))

    def seen(self, records: list[Record]) -> list[int]:
        """Pids of the workers that answer, as the clients see them."""
        alive = {each.pid for each in self.processes()}
        found = {record.pid for record in records[-RECENT:] if record.ok and record.pid}
        self.workers |= found
        return sorted(found & alive)

    def end(self) -> None:
        """In order if it can, and in any case."""
        self.processes()
        if self.popen.poll() is None and not self.spoilt:
            self.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                self.wait(8.0)
        self.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def all_files() -> None:
    """As many descriptors as there may be, for each contender: what it can do is asked."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
