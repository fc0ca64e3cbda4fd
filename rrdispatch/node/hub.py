"""The primary's effects, in one event loop: workers, their messages, their doors, the dispatcher.

Says what happened as facts, in the order in which it happened; must not know what they mean to a
script (``primary.py``) nor in which thread it runs (``engine.py``).
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rrdispatch import _core
from rrdispatch.cluster import news
from rrdispatch.cluster.dispatching import Dispatching, Hooks
from rrdispatch.cluster.events import Event, Events
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.launch import Launch
from rrdispatch.cluster.lifecycle import State
from rrdispatch.cluster.programs import AskedBy, Opened
from rrdispatch.cluster.roster import Account
from rrdispatch.cluster.spawn import Post
from rrdispatch.cluster.workers import Ears, Limits, Workers
from rrdispatch.errors import ConfigError, StartError
from rrdispatch.net.listeners import ListeningSocket
from rrdispatch.node import wire
from rrdispatch.node.doors import Doors, SharedDoors
from rrdispatch.node.nologs import NoLogs
from rrdispatch.node.pipe import Pipe
from rrdispatch.settings import Settings

ENDED = re.compile(r"exit code (\d+)|killed by (\w+)")
STARTS_WITHIN = 30.0  # one that did not listen by then will not, as far as listeners go
CLOSING_WITHIN = 10.0  # a backlog that never ends is cut then
UNSERVED_WITHIN = 1.0  # and one that nobody takes from yet
PLACE = "RRDISPATCH_NODE"  # in a worker's environment, until its program begins
PIPE = 30  # the number of its end of the messages in a worker: beyond those of 16 listeners
Tell = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One worker to start."""

    worker: int
    settings: Settings
    command: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]
    stdio: Sequence[int]


@dataclass(slots=True, eq=False)
class Known:
    """A worker of ours, until its queue has gone to others."""

    handle: WorkerHandle
    pipe: Pipe
    is_app: bool
    since: float
    ready: bool = False
    listened: bool = False
    leaving: bool = False
    draining: bool = False
    hung_up: bool = False
    waits_for: set[int] = field(default_factory=set)  # listeners that close before it drains


class Hub:
    """Made and called in its loop only."""

    def __init__(self, tell: Tell, settings: Settings, shared: bool) -> None:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._known: dict[int, Known] = {}
        self._unheard = 0  # ends that the script does not know yet
        self._listeners: list[ListeningSocket] = []
        if _core.shim_library() is None:
            raise ConfigError(
                "servers of a script's own take the C core, which was not built",
                hint="install a C compiler and rrdispatch again",
            )
        self._patience = settings.drain_timeout  # then a pause of its connections is enough
        self._limits = Limits()
        self._limits.raise_ours()
        events = Events(self._event)
        hooks = Hooks(lambda _: None, self._failed, self._refused, events)
        self._dispatching = Dispatching(settings, self._listeners, hooks)
        ears = Ears(self._news, lambda *_: None, self._exited, events)
        self._workers = Workers(NoLogs(), ears)  # type: ignore[arg-type]
        asked_by = AskedBy(
            self._workers.handles, self._news, events, lambda: self._dispatching, lambda: None
        )
        opened = Opened(self._listeners, [])
        self._doors = (SharedDoors if shared else Doors)(opened, asked_by, self._began)

    # ---- what is asked of it -------------------------------------------------------------------

    def spawn(self, wanted: Wanted) -> int:
        """The pid; StartError if it could not be started, and then nothing is left of it."""
        is_app = not wanted.settings.is_program
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        taken = {known.handle.slot for known in self._known.values()}
        with its:
            post = Post(
                worker=wanted.worker,
                slot=min(set(range(len(taken) + 1)) - taken),
                generation=1,
                workers=len(taken) + 1,
                listeners=self._doors.bound(wanted.settings.bind) if is_app else (),
                nofile=self._limits.original,
                shim=None if is_app else self._doors.shim(wanted.worker),
                stdio=wanted.stdio,
                also=[(its.fileno(), PIPE)],
            )
            launch = Launch(
                wanted.settings, wanted.command[0], wanted.cwd, wanted.environment, wanted.command
            )
            handle = self._workers.spawn(lambda _: launch, post)
        if handle is None:
            ours.close()
            raise StartError(f"worker {wanted.worker} could not be started: {wanted.command[0]}")
        said, over = partial(self._said, wanted.worker), partial(self._hung_up, wanted.worker)
        pipe = Pipe(ours, said, over)
        self._known[wanted.worker] = Known(handle, pipe, is_app, self._loop.time())
        self._tell("fork", wanted.worker)
        self._loop.call_later(STARTS_WITHIN, self.settle)
        self._dispatching.roster.add(handle)
        return handle.pid

    def pipe(self, worker: int) -> Pipe | None:
        """Its messages."""
        known = self._known.get(worker)
        return known.pipe if known is not None else None

    def kill(self, worker: int, number: int) -> bool:
        """False if it is dead."""
        known = self._known.get(worker)
        if known is None or known.handle.reaped:
            return False
        known.handle.signal(number)
        return True

    def hang_up(self, worker: int) -> None:
        """No more messages for the script; a worker without them ends."""
        known = self._known.get(worker)
        if known is not None and known.pipe.open and not known.hung_up:
            known.pipe.send(wire.act("alone"))
            known.hung_up = True
            self._tell("disconnect", worker)
            self.leave([worker], told=False)

    def leave(self, workers: Sequence[int], *, told: bool = True) -> None:
        """They get nothing more, finish what they have, and end.

        A listener that nobody else has is closed first: so its backlog still finds them.
        """
        found = [known for one in workers if (known := self._known.get(one)) is not None]
        going = [known for known in found if not known.leaving]
        for known in going:
            known.leaving = True
            self._doors.refuse(known.handle.id)
            if told:
                known.pipe.send(wire.act("disconnect"))
        if not self._somebody_starts():
            for index in self._doors.open_ones():
                self._close_if_left(index, going)
        for known in going:
            if not known.waits_for:
                self._drain(known)

    def settle(self) -> None:
        """Closes what nobody listens on any more, unless somebody may be about to."""
        if self._unheard or self._somebody_starts():
            return
        for index in self._doors.unheld():
            self._doors.close_one(index, lambda: None)
        for known in self._known.values():
            for index, channel in known.handle.channels.items():
                if known.handle.reaped and not self._doors.holders(index):
                    drop(channel.receiver)

    def heard(self) -> None:
        """The script has heard of an end, and may have forked a successor."""
        self._unheard -= 1
        self.settle()

    def pause(self) -> None:
        """The script has enough to do."""
        for known in self._known.values():
            known.pipe.pause()

    def resume(self) -> None:
        for known in self._known.values():
            known.pipe.resume()

    async def close(self) -> None:
        """After the last worker."""
        for known in self._known.values():
            known.pipe.close()
        self._doors.close()
        for sock in self._listeners:
            if sock.fileno() >= 0:
                sock.unlink()
                sock.close()
        await self._dispatching.link.stop()
        self._workers.close()
        self._limits.restore()

    def abandon(self) -> None:
        """In a forked child: whatever it holds of ours would keep the cluster from ending."""
        for known in self._known.values():
            known.pipe.abandon()
            known.handle.close()
        self._doors.abandon()
        self._dispatching.link.abandon()

    # ---- leaving -------------------------------------------------------------------------------

    def _somebody_starts(self) -> bool:
        late = self._loop.time() - STARTS_WITHIN
        everybody = self._known.values()
        return any(
            not (one.listened or one.leaving or one.handle.reaped) and one.since > late
            for one in everybody
        )

    def _close_if_left(self, index: int, going: Sequence[Known]) -> None:
        holders = [self._known[handle.id] for handle in self._doors.holders(index)]
        if not holders or not all(known.leaving for known in holders):
            return
        for known in holders:
            if known in going:
                known.waits_for.add(index)
        served = any(known.ready for known in holders)
        within = CLOSING_WITHIN if served else UNSERVED_WITHIN
        self._doors.close_one(index, partial(self._closed, index), within)

    def _closed(self, index: int) -> None:
        for known in list(self._known.values()):
            if index in known.waits_for:
                known.waits_for.discard(index)
                if not known.waits_for:
                    self._drain(known)

    def _drain(self, known: Known) -> None:
        if known.handle.reaped:
            return
        if not self._stop_giving(known):
            self._drained(known)

    def _stop_giving(self, known: Known) -> bool:
        """False if it was given nothing yet."""
        known.draining = True
        if known.ready:
            drained = partial(self._drained, known)
            self._dispatching.roster.become(known.handle.id, State.DRAINING, drained)
        return known.ready

    def _drained(self, known: Known) -> None:
        if known.is_app:
            self._go(known)  # its runner finishes what it has
        else:
            by = time.monotonic() + self._patience
            self._doors.watch_until_quiet(known.handle.id, signal.SIGTERM, by)

    def _go(self, known: Known) -> None:
        """One whose messages have ended does so by itself."""
        known.pipe.send(wire.act("leave"))

    # ---- what happens --------------------------------------------------------------------------

    def _news(self, told: news.News) -> None:
        known = self._known.get(getattr(told, "worker", 0))
        if known is None:
            return
        if isinstance(told, news.Ready) and not known.draining and not known.handle.reaped:
            known.ready = True
            self._dispatching.roster.become(known.handle.id, State.READY)
            if known.is_app:
                for one in self._doors.told()[: len(known.handle.channels)]:
                    self._began(known.handle.id, one)
        elif isinstance(told, news.Quiet):
            self._go(known)
        elif isinstance(told, news.Leaves):
            self.leave([known.handle.id], told=False)

    def _began(self, worker: int, told: Mapping[str, Any]) -> None:
        self._known[worker].listened = True
        self._tell("listening", worker, dict(told))
        self._loop.call_soon(self.settle)

    def _said(self, worker: int, line: bytes) -> None:
        known = self._known[worker]
        if wire.is_ours(line):
            with suppress(ValueError):
                if wire.read(line).get("now"):  # it ends by itself: it needs nobody's signal
                    known.leaving = True
                    self._doors.refuse(worker)
                    self._stop_giving(known)
        if not known.hung_up:
            self._tell("act" if wire.is_ours(line) else "message", worker, line)

    def _hung_up(self, worker: int) -> None:
        known = self._known[worker]
        if not known.hung_up:
            self._tell("disconnect", worker)
        if not known.leaving and known.handle.how_it_ended() is None:
            self.leave([worker], told=False)

    def _exited(self, handle: WorkerHandle, how: str) -> None:
        self._known[handle.id].pipe.read_to_the_end()
        self._unheard += 1
        self._tell("exit", handle.id, *ended(how))
        self._dispatching.roster.remove(handle.id, partial(self._removed, handle.id))

    def _removed(self, worker: int, account: Account) -> None:
        self._workers.forget(worker, account)
        self._known.pop(worker, None)

    def _refused(self, worker: int, reason: str) -> None:
        with suppress(OSError):
            os.write(2, f"rrdispatch: the dispatcher refused worker {worker}: {reason}\n".encode())
        self.kill(worker, signal.SIGKILL)

    def _failed(self, error: Exception) -> None:
        self._tell("error", error)

    def _event(self, event: Event) -> None:
        if event["event"] in ("warning", "dispatcher-replaced", "accept-error", "listener-failed"):
            with suppress(OSError):
                os.write(2, f"rrdispatch: {event.get('message', event['event'])}\n".encode())


def ended(how: str) -> tuple[int | None, str | None]:
    """Node's code and signal: one of them is None; both if nobody can know."""
    match = ENDED.match(how)
    if match is None:
        return None, None
    return (int(match[1]), None) if match[1] else (None, match[2])


def drop(receiver: int) -> None:
    """What waits for a dead worker, where nobody is left to take it."""
    while True:
        try:
            taken = _core.take(receiver)
        except OSError:
            return
        if taken is None:
            return
        for fd in taken.fds:
            os.close(fd)
