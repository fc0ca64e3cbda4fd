"""What primaries say, once in a while, each app for itself: one that is frozen holds nobody up.

One connection per app, and one request under way on it: a primary that stands still is not asked
again, so that its backlog does not fill with questions. Its answer is taken whenever it comes.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rrdispatch.control import rows, selectors, statedir
from rrdispatch.control.aclient import AsyncClient
from rrdispatch.control.definitions import Definition
from rrdispatch.control.rows import ANSWER
from rrdispatch.errors import ConfigError, ControlError, Error
from rrdispatch.monit.commands import Command
from rrdispatch.monit.tail import Tail

WINDOW = 60.0  # seconds over which the split between workers is taken
KEPT = 240  # rates


@dataclass(slots=True)
class Seen:
    """An app at this moment; ``row`` is that of ``list --json``."""

    row: dict[str, Any]
    rates: Sequence[float] = ()  # one for each look, the newest last
    taken: Mapping[int, int] = field(default_factory=dict)  # by worker, within WINDOW
    hint: str = ""

    @property
    def name(self) -> str:
        return str(self.row["name"])


class Live:
    """The apps that are meant, whoever comes and goes."""

    def __init__(self, texts: Sequence[str] = (), every: float = 1.0) -> None:
        self._texts = texts
        self._every = every
        self._apps: dict[str, Follower] = {}
        self._order: list[str] = []
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when the apps are known; what they do comes later."""
        await self._look()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def seen(self) -> list[Seen]:
        return [self._apps[name].seen() for name in self._order]

    def tail(self, name: str, slot: int | None) -> Tail:
        """What its workers print."""
        return Tail(self._apps[name].definition, slot)

    def command(self, *words: str) -> Command:
        """Begins a command."""
        return Command(words)

    async def close(self) -> None:
        tasks = [follower.cancel() for follower in self._apps.values()]
        if self._task is not None:
            self._task.cancel()
            tasks.append(self._task)
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await self._look()

    async def _look(self) -> None:
        try:
            found = await asyncio.to_thread(self._known)
        except Error:
            return  # the state folder cannot be read now: what was seen stays
        names = [app.name for app in found]
        for app in found:
            if app.name in self._apps:
                self._apps[app.name].definition = app
            else:
                self._apps[app.name] = Follower(app, self._every)
        for name in set(self._apps) - set(names):
            self._apps.pop(name).cancel()
        self._order = names

    def _known(self) -> list[Definition]:
        if not self._texts:
            return selectors.known()
        found: dict[str, Definition] = {}
        for text in self._texts:
            try:
                found |= {target.name: target.definition for target in selectors.resolve([text])}
            except ConfigError:  # noqa: PERF203 (deleted meanwhile; it may come back)
                continue
        return list(found.values())


@dataclass(frozen=True, slots=True)
class Counts:
    """Connections that each worker had taken at a time."""

    time: float
    by: Mapping[int, int]
    serving: frozenset[int]

    @classmethod
    def of(cls, stats: Mapping[str, Any]) -> Counts:
        workers = stats["workers"]
        serving = frozenset(each["id"] for each in workers if each["state"] == "ready")
        return cls(time.monotonic(), {w["id"]: w["connections"] for w in workers}, serving)


class Follower:
    """One app: asks, remembers, and says so when there is no answer."""

    def __init__(self, definition: Definition, every: float) -> None:
        self.definition = definition
        self._every = every
        self._client: AsyncClient | None = None
        self._asked: float | None = time.monotonic()
        self._stats: dict[str, Any] | None = None
        self._look: dict[str, Any] | None = None
        self._error: Error = ControlError("no answer yet")
        self._row: dict[str, Any] | None = None
        self._rates: deque[float] = deque(maxlen=KEPT)
        self._counts: deque[Counts] = deque()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    def seen(self) -> Seen:
        if self._asked is not None and time.monotonic() - self._asked > ANSWER:
            return self._silent()
        if self._row is None:
            row = rows.row(self.definition, self._error)
            if row["status"] == "not answering" and self._asked is not None:
                row["status"] = "asking"
            return Seen(row, tuple(self._rates), hint=self._error.hint or "")
        return Seen(self._row, tuple(self._rates), self._taken())

    def cancel(self) -> asyncio.Task[None]:
        self._task.cancel()
        return self._task

    def _silent(self) -> Seen:
        """Its workers may serve all the same: their CPU and memory are read from /proc."""
        hint = f"its primary does not answer; is it stopped? rrdispatch ping {self.definition.name}"
        told: Any = self._stats if self._stats is not None else ControlError("no answer")
        row = rows.row(self.definition, told, self._look)
        row |= {"status": "not answering", "connections_per_second": 0.0}
        return Seen(row, (*self._rates, 0.0), self._taken(), hint)

    async def _follow(self) -> None:
        try:
            while True:
                self._asked = time.monotonic()
                try:
                    self._take(await self._ask())
                except Error as error:
                    self._forget(error)
                except (KeyError, TypeError, ValueError) as error:
                    self._forget(ControlError(f"another version answers: {error!r}"))
                self._asked = None
                await asyncio.sleep(self._every)
        finally:
            await self._close()

    async def _ask(self) -> dict[str, Any]:
        """Of the connection that there is; else, or if that has ended, of a new one."""
        if self._client is not None:
            try:
                found: dict[str, Any] = await self._client.call("stats")
            except ControlError:
                await self._close()
            else:
                return found
        control = await _connected(self.definition.name)
        client = AsyncClient(lambda _event: None, lambda: None)
        await client.open(control)
        self._client = client
        return dict(await client.call("stats"))

    def _take(self, stats: dict[str, Any]) -> None:
        self._row = rows.row(self.definition, stats, self._look)
        if self._look is not None:
            self._rates.append(self._row["connections_per_second"])
        self._stats, self._look = stats, rows.look(stats)
        self._counts.append(Counts.of(stats))
        while self._counts[0].time < self._counts[-1].time - WINDOW:
            self._counts.popleft()

    def _forget(self, error: Error) -> None:
        self._error, self._row, self._stats, self._look = error, None, None, None
        self._counts.clear()
        self._rates.append(0.0)

    def _taken(self) -> dict[int, int]:
        """Since the whole of those who serve now did so: who came later is not wronged."""
        if not self._counts:
            return {}
        last = self._counts[-1]
        first = next(counts for counts in self._counts if last.serving <= counts.serving)
        taken = {worker: count - first.by.get(worker, 0) for worker, count in last.by.items()}
        return {worker: max(0, count) for worker, count in taken.items()}

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


async def _connected(name: str) -> socket.socket:
    """A thread connects on when nobody awaits it any more: then its socket is closed."""
    loop = asyncio.get_running_loop()
    connecting = loop.run_in_executor(None, statedir.connect, name, None, ANSWER)
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_close)
        raise


def _close(connecting: asyncio.Future[socket.socket]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()
