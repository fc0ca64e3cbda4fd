"""Every worker's process and voice: started, listened to, reaped, forgotten.

Owns the WorkerHandles and what the loop watches of them. Says what happened to ``tell`` (news for
the plan) and to the events; decides nothing.
"""

from __future__ import annotations

import asyncio
import json
import resource
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rrdispatch._core.layout import BATCH_MAX
from rrdispatch.cluster import news, sdnotify
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.handle import UNKNOWN_EXIT, WorkerHandle
from rrdispatch.cluster.launch import Launch
from rrdispatch.cluster.logs import Logs
from rrdispatch.cluster.oom import OomKills
from rrdispatch.cluster.roster import Account
from rrdispatch.cluster.spawn import SHORTAGE, Post, spawn
from rrdispatch.errors import Error

NOTIFY_SIZE = 65536
AT_ONCE = 64  # datagrams of one worker before the others have their turn
MOST_CAPACITY = 1 << 31
REAPED_WITHIN = 0.05  # by whoever adopts orphans


@dataclass(slots=True)
class SlotTotals:
    """What the workers of a slot did that are gone."""

    received: int = 0
    requests: int = 0


@dataclass(slots=True)
class Limits:
    """RLIMIT_NOFILE as we found it, for the workers; our own is raised while we serve."""

    original: tuple[int, int] = field(
        default_factory=lambda: resource.getrlimit(resource.RLIMIT_NOFILE)
    )

    def raise_ours(self) -> None:
        hard = self.original[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def restore(self) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self.original)


@dataclass(slots=True)
class Ears:
    """Who hears of what happens to workers."""

    tell: Callable[[news.News], None]
    died: Callable[[int, asyncio.Future[str]], None]  # a worker, and its last lines
    exited: Callable[[WorkerHandle, str], None]  # after the plan has heard of it
    events: Events
    remember: Callable[[], None] = lambda: None  # for an heir


class Workers:
    """All of them, by id."""

    def __init__(self, logs: Logs, ears: Ears, silence: float = 0.0) -> None:
        """``silence``: who said WATCHDOG=1 once has to say it again within so many seconds."""
        self._silence = silence
        self._logs = logs
        self._ears = ears
        self._loop = asyncio.get_running_loop()
        self.handles: dict[int, WorkerHandle] = {}
        self.unwritten: dict[str, str] = {}  # logs, and why they are not written at present
        self.totals: dict[int, SlotTotals] = {}
        self._oom = OomKills()
        logs.on_output, logs.on_trouble = self._log_output, self._log_trouble

    def spawn(self, launch: Callable[[int], Launch], post: Post) -> WorkerHandle | None:
        """Starts one. If that fails it has ended at once: told like any other end."""
        try:
            handle = spawn(launch(post.generation), post)
        except (OSError, Error) as error:
            told = spawn_error(error)
            number = getattr(error, "errno", None)
            self._not_spawned(post, told["message"], number)
            self._ears.tell(news.Erred(post.worker, told))
            self._ears.tell(news.Exited(post.worker, "not started", number in SHORTAGE))
            return None
        handle.started_at = self._loop.time()
        self._oom.watch(handle.pid)
        self.handles[handle.id] = handle
        self._watch(handle)
        self._logs.add(handle)
        self.announce("spawned", handle.id)
        return handle

    def _not_spawned(self, post: Post, why: str, number: int | None) -> None:
        facts = {"slot": post.slot, "generation": post.generation, "errno": number}
        self._ears.events.tell("spawn-failed", f"worker {post.slot}: {why}", **facts)

    def adopt(self, handle: WorkerHandle, logged: bool) -> None:
        """One of the primary before, dead or alive; ``logged``: by a logger that lives on."""
        self.handles[handle.id] = handle
        if not handle.reaped:
            self._oom.watch(handle.pid)
            self._watch(handle)
            if handle.watched and self._silence > 0:
                self._sign(handle)  # it has its time anew
        if logged:
            self._logs.adopt(handle)
        else:
            self._logs.add(handle)

    def _log_output(self, output: str, error: str, dropped: int) -> None:
        """The logger cannot write, or can again."""
        what = f"the log {output}" if "/" in output else f"the workers' {output}"
        text = f"{what} is not written: {error}"
        if not error:
            text = f"{what} is written again; {dropped} lines were dropped"
        facts = {"output": output, "error": error, "dropped": dropped}
        if error:
            self.unwritten[output] = error
            self._ears.events.tell("logs-failing", text, **facts)
        else:
            self.unwritten.pop(output, None)
            self._ears.events.tell("logs-resumed", text, **facts)

    def _log_trouble(self, text: str) -> None:
        self._ears.events.tell("warning", text, hint="it is tried again; the workers' output waits")

    def _watch(self, handle: WorkerHandle) -> None:
        self._loop.add_reader(handle.pidfd, self._exited, handle)
        if handle.notify is not None:
            self._loop.add_reader(handle.notify, self._notified, handle)
        if handle.sd_notify is not None:
            self._loop.add_reader(handle.sd_notify, self._heard, handle)

    def announce(self, event: str, worker: int, message: str = "", **facts: Any) -> None:
        """An event about one worker; nothing if it is not known any more."""
        handle = self.handles.get(worker)
        if handle is None:
            return
        who = f"worker {handle.slot} (pid {handle.pid}) "
        facts |= {"worker": worker, "slot": handle.slot, "generation": handle.generation}
        self._ears.events.tell(event, who + message if message else "", pid=handle.pid, **facts)
        if message:
            self._logs.say(handle.slot, f"rrdispatch: {who}{message}")

    def forget(self, worker: int, account: Account) -> None:
        """The dispatcher has let go of a dead one: its counts stay, all else is closed."""
        handle = self.handles.get(worker)
        if handle is None:
            return
        facts: dict[str, Any] = {"sent": account.sent, "rescued": account.rescued}
        self.announce("removed", worker, received=account.received, exit=handle.how, **facts)
        counts = handle.counts()
        totals = self.totals.setdefault(handle.slot, SlotTotals())
        totals.received += counts.received
        totals.requests += counts.requests
        del self.handles[worker]
        self._logs.forget(handle)
        self._close(handle)

    def close(self) -> None:
        """What is left at the very end."""
        for handle in self.handles.values():
            self._logs.forget(handle)
            self._close(handle)
        self.handles.clear()

    def reap_if_ours(self, pid: int) -> bool:
        """For a PID 1 that peeks at every child."""
        for handle in list(self.handles.values()):
            if handle.pid == pid and not handle.reaped:
                self._exited(handle)
                return True
        return False

    def _close(self, handle: WorkerHandle) -> None:
        if handle.watchdog is not None:
            handle.watchdog.close()
        for sock in (handle.notify, handle.sd_notify):
            if sock is not None:
                self._loop.remove_reader(sock)
        if handle.pidfd >= 0:
            self._loop.remove_reader(handle.pidfd)
        handle.close()

    def _exited(self, handle: WorkerHandle) -> None:
        """An adopted worker is reaped by its new parent: how it ended is known soon afterwards."""
        if handle.adopted and not handle.awaited and handle.how_it_ended() == UNKNOWN_EXIT:
            handle.awaited = True
            self._loop.remove_reader(handle.pidfd)
            self._loop.call_later(REAPED_WITHIN, self._exited, handle)
            return
        if handle.pidfd < 0 or handle.reaped:
            return
        how = handle.reap(self._oom.named)
        if how is None:
            return
        if handle.watchdog is not None:
            handle.watchdog.close()
        self._loop.remove_reader(handle.pidfd)
        self._heard(handle, at_last=True)
        self._notified(handle)  # its last words lie in the socket, and it may have been quick
        self._ears.died(handle.id, self._logs.tail(handle.id))
        self._ears.tell(news.Exited(handle.id, how))
        self._ears.exited(handle, how)

    def _notified(self, handle: WorkerHandle) -> None:
        """What it says leaves the socket when it was acted on: an heir would hear it again."""
        if handle.notify is None:
            return
        for _ in range(AT_ONCE):
            try:
                data = receive(handle.notify, NOTIFY_SIZE, socket.MSG_PEEK)
            except BlockingIOError:
                return
            except OSError:
                self._loop.remove_reader(handle.notify)
                return
            if data:
                self._said(handle, data.decode(errors="replace"))
            receive(handle.notify, 1)
        # An end of it looks like an empty datagram, but there is no end of ends.
        if not data and hung_up(handle.notify):
            self._loop.remove_reader(handle.notify)

    def _heard(self, handle: WorkerHandle, at_last: bool = False) -> None:
        """As to systemd. A shim may know better than the program when it is ready.

        Whoever else finds the name is told from it at the cost of some reads: one of them a turn,
        unless it is the last look (the socket's queue is short).
        """
        if handle.sd_notify is None:
            return
        for _ in range(AT_ONCE):
            text = sdnotify.receive(handle.sd_notify, handle.pid)
            if text is None or not (text or at_last):
                return
            lines = text.split("\n")
            if not handle.says_ready:
                lines = [line for line in lines if line != "READY=1"]
            self._said(handle, "\n".join(lines))
            if "WATCHDOG=1" in lines and self._silence > 0 and not handle.reaped:
                self._sign(handle)

    def _sign(self, handle: WorkerHandle) -> None:
        if handle.watchdog is None:
            hung = news.Hung(handle.id, "it gave no sign of life (WATCHDOG=1)")
            over = partial(self._ears.tell, hung)
            look = partial(self._heard, handle, at_last=True)
            handle.watchdog = sdnotify.Watchdog(self._silence, look, over)
        handle.watchdog.sign()
        if not handle.watched:
            handle.watched = True
            self._ears.remember()

    def _said(self, handle: WorkerHandle, text: str) -> None:
        said = dict(line.partition("=")[::2] for line in text.split("\n") if "=" in line)
        if "STATUS" in said:
            handle.status = said["STATUS"][:1000]
            self.announce("status", handle.id, status=handle.status)
        if "ERROR" in said:
            error = parse_error(said["ERROR"])
            text = str(error.get("traceback") or f"rrdispatch: {error.get('message')}")
            self._logs.say(handle.slot, text.rstrip("\n"))
            self._ears.tell(news.Erred(handle.id, error))
        if said.get("LOADED") == "1":
            self._ears.tell(news.Loaded(handle.id))
        if said.get("READY") == "1":
            handle.capacity = number(said.get("CAPACITY"), 0, MOST_CAPACITY)
            handle.batch = number(said.get("BATCH"), 1, BATCH_MAX)
            handle.kind = said.get("KIND", "")[:32]
            self._oom.place(handle.pid)
            self._ears.tell(news.Ready(handle.id))
        if said.get("RECYCLE") == "1":
            self._ears.tell(news.Recycle(handle.id))
        if said.get("STOPPING") == "1":
            self._ears.tell(news.Leaves(handle.id))


def receive(sock: socket.socket, size: int, flags: int = 0) -> bytes:
    """One datagram. Of a worker that ended without having read what we said to it, the kernel says
    ECONNRESET once, before its last words.
    """
    try:
        return sock.recv(size, flags)
    except ConnectionResetError:
        return sock.recv(size, flags)


def hung_up(sock: socket.socket) -> bool:
    """Nobody holds the other end any more."""
    poll = select.poll()
    poll.register(sock, select.POLLHUP)
    return bool(poll.poll(0))


def spawn_error(error: OSError | Error) -> dict[str, Any]:
    """Why a worker could not be started, in the words of a worker's ERROR."""
    if isinstance(error, Error):
        return {"message": error.message, "hint": error.hint, "code": "config"}
    step = f" ({error.filename.lower()})" if isinstance(error.filename, str) else ""
    return {"message": f"it could not be started: {error.strerror}{step}"}


def parse_error(text: str) -> dict[str, Any]:
    """A worker's ERROR; whatever it is, it has a message."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        return {"message": text[:1000]}
    return {str(key): value for key, value in told.items()}


def number(text: str | None, least: int, most: int) -> int:
    """A count that a worker told."""
    if text is None or not (text.isascii() and text.isdigit()):
        return least
    return min(max(int(text[:20]), least), most)
