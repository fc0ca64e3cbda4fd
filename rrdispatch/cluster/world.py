"""The real world behind the plan: processes, pipes, a dispatcher, a logger, listeners.

Carries out actions and tells the engine what comes of them. Owns every WorkerHandle.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rrdispatch.cluster import actions as act
from rrdispatch.cluster import news
from rrdispatch.cluster.dispatching import Account, Dispatching, Hooks
from rrdispatch.cluster.engine import Engine
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.launch import Launch
from rrdispatch.cluster.lifecycle import Wanted
from rrdispatch.cluster.logs import Logs
from rrdispatch.cluster.spawn import Post, spawn
from rrdispatch.errors import Error
from rrdispatch.net.listeners import ListeningSocket, describe
from rrdispatch.settings import Settings

NOTIFY_SIZE = 65536


@dataclass(slots=True)
class Owner:
    """Who the world belongs to."""

    settings: Settings
    events: Events
    launch: Callable[[int], Launch]  # of a generation
    operation: Callable[[act.Action], None]  # begun, or over
    died: Callable[[int, asyncio.Future[str]], None]  # a worker, and its last lines
    failed: Callable[[Error], None]  # the service cannot go on


@dataclass(slots=True)
class SlotTotals:
    """What the workers of a slot did that are gone."""

    received: int = 0
    requests: int = 0


@dataclass(slots=True)
class Limits:
    """RLIMIT_NOFILE as we found it, for the workers; our own is raised."""

    original: tuple[int, int] = field(
        default_factory=lambda: resource.getrlimit(resource.RLIMIT_NOFILE)
    )

    def raise_ours(self) -> None:
        hard = self.original[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class ProcessWorld:
    """World by real processes."""

    def __init__(self, owner: Owner, listeners: Sequence[ListeningSocket]) -> None:
        self._owner = owner
        self._settings = owner.settings
        self._events = owner.events
        self._listeners = list(listeners)
        self.told_listeners = [describe(sock) for sock in listeners]
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._limits = Limits()
        self._limits.raise_ours()
        self.engine: Engine | None = None
        self.handles: dict[int, WorkerHandle] = {}
        self.totals: dict[int, SlotTotals] = {}
        self.logs = Logs(self._settings.name or "app", self._logger_replaced)
        hooks = Hooks(self._hung, owner.failed, self._refused, owner.events)
        self.dispatching = Dispatching(self._settings, self._listeners, hooks)

    # ---- World ---------------------------------------------------------------------------------

    def now(self) -> float:
        return self._loop.time()

    def wake_at(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when is not None and self.engine is not None:
            # A clock's tick later, so that the deadline is over when the plan looks.
            self._timer = self._loop.call_at(when + 0.0005, self.engine.settle)

    def perform(self, action: act.Action) -> None:
        if isinstance(action, act.Spawn):
            self._spawn(action)
        elif isinstance(action, act.MakeReady | act.Unpark):
            self._ready(action)
        elif isinstance(action, act.Park):
            self.dispatching.park(action.worker)
            self._tell_worker("parked", action.worker)
        elif isinstance(action, act.Drain):
            self._drain(action.worker)
        elif isinstance(action, act.AskToStop):
            self._ask_to_stop(action)
        elif isinstance(action, act.Kill):
            self._kill(action)
        elif isinstance(action, act.Remove):
            self._remove(action.worker)
        elif isinstance(action, act.CloseListeners):
            self.dispatching.close_listeners(self._listeners_closed)
        else:
            self._owner.operation(action)

    def _tell(self, told: news.News) -> None:
        assert self.engine is not None
        self.engine.tell(told)

    # ---- a worker's life -----------------------------------------------------------------------

    def _spawn(self, action: act.Spawn) -> None:
        assert self.engine is not None
        post = Post(
            worker=action.worker,
            slot=action.slot,
            generation=action.generation,
            workers=self.engine.view.wanted,
            listeners=self.told_listeners,
            nofile=self._limits.original,
        )
        try:
            handle = spawn(self._owner.launch(action.generation), post)
        except (OSError, Error) as error:
            self._never_was(action.worker, error)
            return
        handle.started_at = self.now()
        self.handles[handle.id] = handle
        assert handle.notify is not None
        self._loop.add_reader(handle.pidfd, self._exited, handle)
        self._loop.add_reader(handle.notify, self._notified, handle)
        self.logs.add(handle)
        self.dispatching.add(handle)
        self._tell_worker("spawned", handle.id)

    def _never_was(self, worker: int, error: OSError | Error) -> None:
        told: dict[str, Any]
        if isinstance(error, OSError):
            step = f" ({error.filename.lower()})" if isinstance(error.filename, str) else ""
            told = {"message": f"it could not be started: {error.strerror}{step}"}
        else:
            told = {"message": error.message, "hint": error.hint, "code": "config"}
        self._tell(news.Erred(worker, told))
        self._tell(news.Exited(worker, "not started"))

    def _ready(self, action: act.MakeReady | act.Unpark) -> None:
        self.dispatching.ready(action.worker)
        name = "worker-ready" if isinstance(action, act.MakeReady) else "unparked"
        self._tell_worker(name, action.worker)

    def _drain(self, worker: int) -> None:
        self.dispatching.drain(worker, lambda: self._tell(news.Drained(worker)))
        self._tell_worker("draining", worker)

    def _ask_to_stop(self, action: act.AskToStop) -> None:
        handle = self.handles[action.worker]
        if action.signal:
            handle.signal(signal.Signals["SIG" + self._settings.stop_signal])
        handle.signal_group(signal.SIGCONT)

    def _kill(self, action: act.Kill) -> None:
        handle = self.handles[action.worker]
        if action.fault:
            self._tell_worker("killed", action.worker, f"killed: {action.fault}")
        handle.signal_group(signal.SIGKILL)

    def _remove(self, worker: int) -> None:
        self.dispatching.remove(worker, lambda account: self._removed(worker, account))

    def _removed(self, worker: int, account: Account) -> None:
        handle = self.handles.get(worker)
        if handle is not None:
            facts: dict[str, Any] = {"sent": account.sent, "rescued": account.rescued}
            self._tell_worker(
                "removed", worker, received=account.received, exit=handle.how, **facts
            )
            del self.handles[worker]
            self._count(handle)
            self.logs.forget(handle)
            self._close(handle)
        self._tell(news.Removed(worker))

    def _count(self, handle: WorkerHandle) -> None:
        counts = handle.counts()
        totals = self.totals.setdefault(handle.slot, SlotTotals())
        totals.received += counts.received
        totals.requests += counts.requests

    def _close(self, handle: WorkerHandle) -> None:
        if handle.notify is not None:
            self._loop.remove_reader(handle.notify)
        if handle.pidfd >= 0:
            self._loop.remove_reader(handle.pidfd)
        handle.close()

    # ---- what comes from outside ---------------------------------------------------------------

    def _exited(self, handle: WorkerHandle) -> None:
        how = handle.reap()
        if how is None:
            return
        self._loop.remove_reader(handle.pidfd)
        self._notified(handle)  # its last words lie in the socket, and it may have been quick
        self._owner.died(handle.id, self.logs.tail(handle.id))
        self._tell(news.Exited(handle.id, how))
        self._tell_exit(handle, how)

    def _tell_exit(self, handle: WorkerHandle, how: str) -> None:
        """For people only if nobody wanted it."""
        assert self.engine is not None
        view = self.engine.view
        worker, slot = view.workers[handle.id], view.slots.get(handle.slot)
        wanted = worker.wanted is Wanted.GONE or worker.leaves
        text = "" if wanted else f"ended: {news.describe(worker, how)}"
        self._tell_worker("exited", handle.id, text, how=how)
        if slot is not None and slot.errored and not wanted:
            rules = view.rules
            often = f"more than {rules.max_restarts} times in {rules.restart_window:g} s"
            self._tell_worker("errored", handle.id, f"is given up: its slot died {often}; {text}")

    def _notified(self, handle: WorkerHandle) -> None:
        while handle.notify is not None:
            try:
                data = handle.notify.recv(NOTIFY_SIZE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(handle.notify)
                return
            self._said(handle, data.decode(errors="replace"))

    def _said(self, handle: WorkerHandle, text: str) -> None:
        said = dict(line.partition("=")[::2] for line in text.split("\n") if "=" in line)
        if "STATUS" in said:
            handle.status = said["STATUS"][:1000]
            self._tell_worker("status", handle.id, status=handle.status)
        if "ERROR" in said:
            self._tell(news.Erred(handle.id, parse_error(said["ERROR"])))
        if said.get("READY") == "1":
            handle.capacity = number(said.get("CAPACITY"), 0, 1 << 31)
            handle.batch = number(said.get("BATCH"), 1, 16)
            handle.kind = said.get("KIND", "")[:32]
            self._tell(news.Ready(handle.id))
        if said.get("RECYCLE") == "1":
            self._tell(news.Recycle(handle.id))
        if said.get("STOPPING") == "1":
            self._tell(news.Leaves(handle.id))

    def _hung(self, worker: int) -> None:
        handle = self.handles.get(worker)
        if handle is not None:
            self._tell(news.Hung(worker))

    def _refused(self, worker: int, reason: str) -> None:
        handle = self.handles.get(worker)
        if handle is not None:
            self._tell(news.Erred(worker, {"message": f"the dispatcher refused it: {reason}"}))
            handle.signal_group(signal.SIGKILL)

    def _logger_replaced(self) -> None:
        self._events.tell("logger-replaced", "the logger was replaced", pid=self.logs.pid)

    def _listeners_closed(self) -> None:
        self.close_listeners()
        self._tell(news.ListenersClosed())

    def close_listeners(self) -> None:
        """Our copies; unix sockets' files go with them."""
        for sock in self._listeners:
            if sock.fileno() >= 0:
                sock.unlink()
                sock.close()

    def _tell_worker(self, event: str, worker: int, message: str = "", **facts: Any) -> None:
        handle = self.handles.get(worker)
        if handle is None:
            return
        who = f"worker {handle.slot} (pid {handle.pid}) "
        facts |= {"worker": worker, "slot": handle.slot, "generation": handle.generation}
        self._events.tell(event, who + message if message else "", pid=handle.pid, **facts)

    # ---- the end -------------------------------------------------------------------------------

    def reap_orphans(self, others: Callable[[int], bool]) -> None:
        """As PID 1: whoever was adopted and died. Ours are left to those who hold them."""
        while True:
            try:
                flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
                found = os.waitid(os.P_ALL, 0, flags)
            except ChildProcessError:
                return
            if found is None:
                return
            if not self._ours(found.si_pid) and not others(found.si_pid):
                os.waitid(os.P_PID, found.si_pid, os.WEXITED | os.WNOHANG)

    def _ours(self, pid: int) -> bool:
        for handle in self.handles.values():
            if handle.pid == pid and not handle.reaped:
                self._exited(handle)
                return True
        return self.logs.reap_if_ours(pid) or self.dispatching.link.reap_if_ours(pid)

    async def close(self) -> None:
        """After the last worker: the dispatcher, the logger, whatever is open."""
        self.wake_at(None)
        self.close_listeners()
        await self.dispatching.link.stop()
        for handle in self.handles.values():
            self._close(handle)
        await self.logs.close()
        self.handles.clear()
        soft, hard = self._limits.original
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def parse_error(text: str) -> dict[str, Any]:
    """A worker's ERROR; whatever it is, it has a message."""
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        return {"message": text[:1000]}
    return {str(key): value for key, value in told.items()}


def number(text: str | None, least: int, most: int) -> int:
    """A count that a worker told."""
    if text is None or not (text.isascii() and text.isdigit()):
        return least
    return min(max(int(text), least), most)
