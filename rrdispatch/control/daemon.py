"""The primary that ``start`` makes: it claims the name, serves, and says on one socket how it went.

The other end of that socket is the command that waits. If that goes before the answer, the start is
taken back; afterwards nobody is attached to anybody.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import asdict, fields

from rrdispatch import __version__
from rrdispatch.cluster.events import Event, OnEvent
from rrdispatch.cluster.supervisor import Supervisor
from rrdispatch.cluster.view import View
from rrdispatch.control import definitions, heirs, protocol, statedir
from rrdispatch.control.app import App
from rrdispatch.control.definitions import RUN, Definition
from rrdispatch.errors import ControlError, Error, StartError
from rrdispatch.settings import Settings

FD = 3
TOLD_WITHIN = 10.0  # for the definition to come

Gather = Callable[[Definition], Settings]


class Asker:
    """The command that waits, as long as it does."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self.over = False

    def definition(self) -> Definition:
        """What is to be started."""
        self._link.settimeout(TOLD_WITHIN)
        with self._link.makefile("rb") as lines:
            told = json.loads(lines.readline(definitions.MOST) or b"{}")
        if not told:
            raise ControlError("whoever started this primary is gone")
        known = {item.name for item in fields(Definition)}
        return Definition(**{key: value for key, value in told.items() if key in known})

    def event(self, event: Event) -> None:
        if not self.over:
            self._write(protocol.event(event))

    def fail(self, error: Exception) -> None:
        self._write(protocol.failure(1, error))
        self.close()

    def succeed(self, told: dict[str, object]) -> None:
        self._write(protocol.result(1, told))
        self.close()

    def close(self) -> None:
        self.over = True
        self._link.close()

    def when_gone(self, then: Callable[[], object]) -> Callable[[], object]:
        """``then``, if it goes before it has its answer; the result forgets that."""
        loop = asyncio.get_running_loop()
        self._link.setblocking(False)
        loop.add_reader(self._link, self._look, then)
        return lambda: loop.remove_reader(self._link)

    def _look(self, then: Callable[[], object]) -> None:
        try:
            gone = not self._link.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            asyncio.get_running_loop().remove_reader(self._link)
            then()

    def _write(self, data: bytes) -> None:
        """A command that does not read misses events; its answer comes first in its buffer."""
        try:
            self._link.settimeout(1.0)
            self._link.sendall(data)
        except OSError:
            self.over = True
        finally:
            if self._link.fileno() >= 0:
                self._link.setblocking(False)


def run(asker: Asker, gather: Gather, talk: Callable[[Settings], OnEvent]) -> int:
    """From the request to the end of the service; its exit code."""
    try:
        app, settings = _claim(asker.definition(), gather)
    except Error as error:
        asker.fail(error)
        raise
    start = Start(asker, app, settings, talk(settings))
    try:
        code = asyncio.run(start.serve())
    except Error as error:
        asker.fail(start.error or error)
        raise
    if start.error is not None:
        asker.fail(start.error)
    return code


def _claim(definition: Definition, gather: Gather) -> tuple[App, Settings]:
    """The name is ours, and what is to be started is written down."""
    settings = gather(definition)
    heirs.check(settings)
    place = statedir.claim(definition.name)
    try:
        known = definitions.load(definition.name)
    except ControlError:
        known = None  # spoilt: it is written anew
    try:
        definition.id = known.id if known is not None else -1
        before = known.namespace if known is not None else "default"
        definition.namespace = definition.namespace or before
        definition.settings, definition.version = settings.values(), __version__
        definition.before = None if known is None else known.before or asdict(known)
        definition.wanted = RUN  # in the first version of its file, too: see kept.py
        definitions.give_id(definition)
    except BaseException:
        if known is None:
            statedir.remove(place.folder)
        place.release()
        raise
    app = App(place, definition, fresh=known is None)
    app.begins()
    return app, settings


class Start:
    """One start: until every worker serves, or until it was taken back."""

    def __init__(self, asker: Asker, app: App, settings: Settings, on_event: OnEvent) -> None:
        self._asker = asker
        self._app = app
        self._settings = settings
        self._on_event = on_event
        self.error: Error | None = None  # why it was taken back

    async def serve(self) -> int:
        try:
            self._supervisor = heirs.followed(self._settings, self._app.place, self._event)
        except Error as error:
            self._app.ended(error)
            self._app.place.release()
            raise
        return await heirs.serve(self._supervisor, self._app, self._watch)

    def _event(self, event: Event) -> None:
        self._on_event(event)
        self._asker.event(event)

    async def _watch(self) -> None:
        """Answers when all serve. Of what failed nothing is said before everything is gone."""
        forget = self._asker.when_gone(self._take_back)
        supervisor = self._supervisor
        try:
            await supervisor.started()
            await all_serve(supervisor, self._settings.ready_timeout)
        except Error as error:
            if self._app.wanted and self.error is None:
                self._app.failure = error
            self.error = error if self._app.wanted else stopped(self._app)
            if not supervisor.view.finished:
                supervisor.stop()
            return
        finally:
            forget()
        self._app.served()
        over = supervisor.view.finished
        stats = supervisor.stats() if over else await supervisor.fresh_stats()
        self._asker.succeed({"id": getattr(self._app.definition, "id", -1), **stats})

    def _take_back(self) -> None:
        self.error = StartError("whoever started it went away before it served")
        self._supervisor.kill()


def stopped(app: App) -> StartError:
    """By somebody else, who did not want it."""
    hint = "another command stopped it meanwhile"
    return StartError(f"{app.place.folder.name} was stopped before it served", hint=hint)


async def all_serve(supervisor: Supervisor, within: float) -> None:
    """Every worker is ready; StartError if one is not, in spite of its respawns."""
    view, changed = supervisor.view, asyncio.Event()
    unsubscribe = supervisor.events.subscribe(lambda _event: changed.set())
    loop = asyncio.get_running_loop()
    end = loop.time() + within
    try:
        while len(view.serving) + ended_well(view) < view.wanted:
            given_up = any(slot.closed and slot.last_failure for slot in view.slots.values())
            if given_up or view.finished or loop.time() >= end:
                raise await _not_all(supervisor)
            changed.clear()
            try:
                await asyncio.wait_for(changed.wait(), max(0.0, end - loop.time()))
            except asyncio.TimeoutError:
                continue
    finally:
        unsubscribe()


def ended_well(view: View) -> int:
    """Slots whose worker did what it was there for, and is not replaced."""
    return sum(slot.ended and slot.last_failure is None for slot in view.slots.values())


async def _not_all(supervisor: Supervisor) -> StartError:
    view = supervisor.view
    ready = {worker.slot for worker in view.serving}
    failures = [slot.last_failure for slot in view.slots.values() if slot.index not in ready]
    failure = next((failure for failure in failures if failure is not None), None)
    why = f": worker {failure.slot}: {failure.reason}" if failure else ""
    output = await supervisor.operations.output(failure.worker) if failure else ""
    return StartError(f"{len(ready)} of {view.wanted} workers became ready{why}", output=output)
