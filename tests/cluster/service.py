"""A Supervisor in the test's own loop, with real workers, and ways to wait for what it tells."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from rrdispatch.cluster.supervisor import Supervisor
from rrdispatch.settings import from_values
from tests.harness import processes
from tests.harness.processes import Process

APPS = Path(__file__).with_name("apps")
LIMIT = 60.0  # a bound for a busy machine, no measure

Event = dict[str, Any]

PLAIN = (APPS / "plain.py").read_text()


def app(folder: Path, text: str = PLAIN, *, name: str = "app") -> Path:
    """Writes an app, at once: a worker may be about to read it; the folder."""
    (folder / f".{name}.py").write_text(text)
    (folder / f".{name}.py").rename(folder / f"{name}.py")
    return folder


def version(number: int) -> str:
    """The plain app, telling another version."""
    return PLAIN + f"\n\nVERSION = {str(number)!r}\n"


class Service:
    """A running Supervisor and what it told so far."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.events: list[Event] = []
        self.task: asyncio.Task[int] = asyncio.ensure_future(supervisor.run())
        self._news = asyncio.Condition()
        self.known: set[Process] = set()

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self._notices = asyncio.ensure_future(self._notify())

    async def _notify(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, event: str, after: int = 0, **facts: Any) -> Event:
        """Waits for an event with these facts, from number ``after`` on."""

        def found() -> Event | None:
            for told in self.events[after:]:
                if told["event"] == event and facts.items() <= told.items():
                    return told
            return None

        async with self._news:
            await asyncio.wait_for(self._news.wait_for(lambda: found() is not None), LIMIT)
        told = found()
        assert told is not None
        return told

    async def settled(self, condition: Callable[[], bool]) -> None:
        """Waits until the view is as it should be: each step of it is told."""
        async with self._news:
            await asyncio.wait_for(self._news.wait_for(condition), LIMIT)

    def mark(self) -> int:
        """For ``until(after=...)``: only what comes from now on."""
        return len(self.events)

    @property
    def address(self) -> str:
        return str(self.supervisor.stats()["listeners"][0]["address"])

    def pids(self, state: str = "ready") -> dict[int, int]:
        """Of the workers in this state, by slot."""
        rows = self.supervisor.stats()["workers"]
        return {row["slot"]: row["pid"] for row in rows if row["state"] == state}

    def states(self) -> dict[int, list[tuple[int, str]]]:
        """Per slot: (generation, state)."""
        found: dict[int, list[tuple[int, str]]] = {}
        for row in self.supervisor.stats()["workers"]:
            found.setdefault(row["slot"], []).append((row["generation"], row["state"]))
        return found

    async def ask(self) -> tuple[str, int]:
        """(version, pid) of who answers a new connection."""
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            answer = (await asyncio.wait_for(reader.read(), LIMIT)).decode().split()
        finally:
            writer.close()
        return answer[0], int(answer[1])

    async def versions(self, count: int = 8) -> set[str]:
        return {(await self.ask())[0] for _ in range(count)}

    def look(self) -> None:
        """Remembers every process of it, to ask for them at the end."""
        found = self.supervisor.stats()
        pids = [row["pid"] for row in found["workers"]]
        pids += [found["dispatcher_pid"], found["logger_pid"]]
        self.known |= {each for pid in pids if (each := processes.process(pid))}


@contextlib.asynccontextmanager
async def running(target: str, cwd: Path, **settings: Any) -> AsyncIterator[Service]:
    """A service that serves; afterwards it is stopped and nothing of it is left."""
    values: dict[str, Any] = {
        "target": target, "cwd": str(cwd), "bind": ["127.0.0.1:0"], "instances": "2",
        "env": {"PYTHONDONTWRITEBYTECODE": "1"}, "drain_timeout": 20.0, "probation": 0.3,
    }  # fmt: skip
    values["env"] |= settings.pop("env", {})
    service = Service(Supervisor(from_values(values | settings), signals=False))
    service.supervisor.events.subscribe(service.tell)
    await asyncio.sleep(0)
    try:
        if service.task.done():
            service.task.result()
        await service.supervisor.started()
        yield service
        service.look()
    finally:
        if not service.task.done():
            service.supervisor.stop()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(service.task, LIMIT)
    left = processes.wait_gone(service.known, LIMIT)
    assert not left, f"left behind: {[processes.command(each.pid) for each in left]}"


async def load(service: Service, stop: asyncio.Event) -> list[str]:
    """Asks all the time, four at once, until told to stop; the errors."""
    errors: list[str] = []

    async def one() -> None:
        while not stop.is_set():
            try:
                await service.ask()
            except (OSError, IndexError, asyncio.TimeoutError) as error:  # noqa: PERF203
                errors.append(f"{type(error).__name__}: {error}")

    await asyncio.gather(*(one() for _ in range(4)))
    return errors


@contextlib.asynccontextmanager
async def loaded(service: Service) -> AsyncIterator[list[str]]:
    """Under load; the list fills with errors at the end."""
    stop = asyncio.Event()
    task = asyncio.ensure_future(load(service, stop))
    errors: list[str] = []
    try:
        yield errors
    finally:
        stop.set()
        errors += await task


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    processes.kill(pid, number)


def own_fds() -> list[str]:
    """What this process holds, without the descriptor that looks."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(each.split(":")[0] for each in found if "/proc/" not in each)


def more_fds(before: list[str]) -> list[str]:
    """Those that it did not hold before; what others had left there may be closed by now."""
    return list((Counter(own_fds()) - Counter(before)).elements())
