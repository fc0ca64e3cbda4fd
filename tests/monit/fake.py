"""A source whose apps are what the test says, and what is seen of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from textual.pilot import Pilot

from rrdispatch.cluster.logformat import Line
from rrdispatch.errors import ConfigError
from rrdispatch.monit.app import Monit
from rrdispatch.monit.dashboard import Dashboard
from rrdispatch.monit.live import Seen

PATIENCE = 60.0  # a bound for a busy machine, no measure


def worker(slot: int, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "slot": slot, "id": slot + 1, "pid": 4000 + slot, "generation": 1, "state": "ready",
        "uptime": 100.0, "connections": 50, "inflight": 3, "pending": 0, "restarts": 0,
        "stalled": False, "cpu": 12.5, "memory": 32 << 20,
    }  # fmt: skip
    return {**told, **more}


def app(name: str, workers: int = 2, *, status: str = "online", **more: Any) -> Seen:
    """As a primary tells it; stopped, errored and killed ones have none."""
    runs = status not in ("stopped", "errored", "killed")
    rows = [worker(slot) for slot in range(workers if runs else 0)]
    row: dict[str, Any] = {
        "id": 0, "name": name, "status": status, "primary_pid": 3999 if runs else None,
        "generation": 1 if runs else None, "instances": len(rows), "serving": len(rows),
        "uptime": 100.0, "restarts": 0, "cpu": 25.0, "memory": 64 << 20, "connections": 6,
        "connections_per_second": 40.0, "pending": 0, "error": None, "workers": rows,
        "listeners": ["127.0.0.1:8000"] if runs else [],
    }  # fmt: skip
    rates = [float(n % 9) for n in range(60)] if runs else []
    return Seen({**row, **more}, rates, {each["id"]: each["connections"] for each in rows})


class Ran:
    """A command that ends when the test says so."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = " ".join(words)
        self.since = time.monotonic()
        self.end: asyncio.Future[tuple[int, str, str]] = asyncio.Future()

    async def done(self) -> tuple[int, str, str]:
        return await self.end


class Lines:
    """The log of one app."""

    def __init__(self, lines: list[Line] | None) -> None:
        self._lines = lines

    async def more(self) -> list[Line]:
        if self._lines is None:
            raise ConfigError("it writes no files")
        found, self._lines = self._lines, []
        return found

    async def close(self) -> None:
        pass


class Fake:
    """``apps`` and ``logs`` may be changed at any time."""

    def __init__(self, *apps: Seen) -> None:
        self.apps = list(apps)
        self.logs: dict[str, list[Line]] = {}
        self.asked: list[tuple[str, int | None]] = []
        self.ran: list[Ran] = []
        self.closed = False

    async def start(self) -> None:
        pass

    def seen(self) -> list[Seen]:
        return self.apps

    def tail(self, name: str, slot: int | None) -> Lines:
        self.asked.append((name, slot))
        found = self.logs.get(name)
        if slot is None or found is None:
            return Lines(found)
        return Lines([line for line in found if line.slot == slot])

    def command(self, *words: str) -> Ran:
        self.ran.append(Ran(words))
        return self.ran[-1]

    async def close(self) -> None:
        self.closed = True

    @property
    def commands(self) -> list[str]:
        return [each.words for each in self.ran]


class View:
    """The screen in the hands of a test."""

    def __init__(self, monit: Monit, pilot: Pilot[None]) -> None:
        self.monit = monit
        self.pilot = pilot

    @property
    def dashboard(self) -> Dashboard:
        found = self.monit.screen_stack[1]
        assert isinstance(found, Dashboard)
        return found

    @property
    def top(self) -> str:
        """What lies on top."""
        return type(self.monit.screen).__name__

    async def press(self, *keys: str) -> str:
        """And what is seen then."""
        for key in keys:
            await self.pilot.press(key)
        return await self.look()

    async def look(self) -> str:
        if len(self.monit.screen_stack) > 1:
            self.dashboard.look()
        await self.settled()
        return self.text()

    async def settled(self) -> None:
        """The pilot takes a process without a core for one that has nothing to do: whatever is
        under way has some turns of the loop first, and what is drawn later has its time.
        """
        await self.pilot.pause()
        for _ in range(2):
            await asyncio.sleep(0.02)
            for _ in range(20):
                await asyncio.sleep(0)

    def text(self) -> str:
        strips = self.monit.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)

    async def until(self, found: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not found():
            assert time.monotonic() < end, f"never: {what}\n{self.text()}"
            await self.pilot.pause(0.02)

    async def until_seen(self, text: str) -> None:
        await self.until(lambda: text in self.text(), text)


@asynccontextmanager
async def view(source: Any, size: tuple[int, int] = (80, 24)) -> AsyncIterator[View]:
    """Open. A fake is seldom looked at unasked: the pilot waits after each key until nothing is
    drawn any more, up to a second on a busy machine that always draws.
    """
    monit = Monit(source, 0.5 if isinstance(source, Fake) else 0.2)
    async with monit.run_test(size=size) as pilot:
        seen = View(monit, pilot)
        await seen.settled()
        yield seen
