"""The first moments of an heir: asks the dispatcher for all that the primary before it held.

Owns every descriptor until a Supervisor has taken over; decides nothing.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrdispatch._core.layout import MAX_LISTENERS, AppTag, ControlKind, Inherit, WorkerTag
from rrdispatch.cluster.estate import FORMAT, HANDLE
from rrdispatch.cluster.freeze import thaw
from rrdispatch.cluster.handle import WorkerHandle, pid_of
from rrdispatch.cluster.identity import Identity
from rrdispatch.cluster.launch import Launches, Origin
from rrdispatch.cluster.logs import LoggerFds
from rrdispatch.cluster.vault import Vault, VaultError, read
from rrdispatch.cluster.view import View
from rrdispatch.dispatch.process import ControlMessage, DispatcherHandle
from rrdispatch.errors import DispatcherError
from rrdispatch.net.channels import Channel
from rrdispatch.net.listeners import ListeningSocket, describe
from rrdispatch.settings import Settings

ANSWER_WITHIN = 10.0
PIDFD, SCOREBOARD, LIFELINE, CHANNELS = 0, 1, 2, 3  # the order of WORKER_ADD


@dataclass(slots=True)
class Inherited:
    """All of it."""

    dispatcher: DispatcherHandle
    state: Mapping[str, Any]
    vault: Vault
    listeners: list[ListeningSocket] = field(default_factory=list)  # closed where it was closed
    handles: dict[int, WorkerHandle] = field(default_factory=dict)
    states: dict[int, int] = field(default_factory=dict)  # of workers, as the dispatcher has them
    logger: LoggerFds | None = None
    kept: dict[AppTag, list[int]] = field(default_factory=dict)
    events: list[ControlMessage] = field(default_factory=list)  # told while we asked


def inherit(control: socket.socket) -> Inherited:
    """Everything; DispatcherError if the dispatcher or the state is not what it should be."""
    asker = Asker(control)
    state_fds = asker.kept(AppTag.STATE)
    if not state_fds:
        raise DispatcherError("there is nothing to inherit: no state was kept")
    try:
        state = json.loads(read(state_fds[0]))
    except VaultError as error:
        raise DispatcherError(str(error)) from error
    if state.get("format") != FORMAT:
        raise DispatcherError(
            f"the primary before was of rrdispatch {state.get('version')}, "
            f"whose state this one cannot read",
            hint="stop the app and start it with the new version",
        )
    asker.handle.kind = state["fixed"]["dispatcher"]
    found = Inherited(asker.handle, state, Vault(state_fds[0]))
    shared = [*asker.kept(AppTag.SHARED), *asker.kept(AppTag.SHARED_MORE)]
    for index, told in enumerate(state["listeners"]):
        fds = shared[index : index + 1]
        if not state["fixed"]["settings"]["share_listener"]:
            fds = asker.ask(listener=index, values=(Inherit.LISTENER,))[1]
        found.listeners.append(_listener(fds, told))
    for told in _told_workers(state):
        _worker(asker, told, found)
    logger = asker.kept(AppTag.LOGGER)
    if len(logger) == 2:
        found.logger = LoggerFds(socket.socket(fileno=logger[0]), logger[1])
    for tag in (AppTag.CONTROL, AppTag.LOCK, AppTag.DOOR):
        found.kept[tag] = asker.kept(tag)
    found.events = asker.events
    return found


class Asker:
    """Asks and waits; whatever is told meanwhile is kept."""

    def __init__(self, control: socket.socket) -> None:
        # The dispatcher is our parent: it cannot end and leave its number to another unseen.
        self.handle = DispatcherHandle.inherit(control, os.getppid())
        self.events: list[ControlMessage] = []
        self._poll = select.poll()
        self._poll.register(self.handle, select.POLLIN)

    def kept(self, tag: int, worker: int = 0) -> list[int]:
        return self.ask(worker=worker, values=(Inherit.KEPT, tag))[1]

    def ask(self, **request: Any) -> tuple[ControlMessage, list[int]]:
        """One INHERIT, and the fds of its answer, close-on-exec."""
        sequence = self.handle.request(ControlKind.INHERIT, **request)
        deadline = time.monotonic() + ANSWER_WITHIN
        while (left := deadline - time.monotonic()) > 0:
            self._poll.poll(left * 1000)
            try:
                messages = self.handle.receive()
            except EOFError as error:
                raise DispatcherError("the dispatcher ended while it was inherited") from error
            answers = [one for one in messages if one.sequence == sequence]
            self.events += [one for one in messages if one.kind > ControlKind.STARTED]
            if answers:
                return answers[0], self.handle.take_fds(sequence)
        raise DispatcherError(f"the dispatcher did not answer within {ANSWER_WITHIN:g} s")


def _listener(fds: Sequence[int], told: Mapping[str, Any]) -> ListeningSocket:
    """A closed socket for one that was closed while nobody was there to hear of it."""
    identity = tuple(told["identity"]) if told["identity"] else None
    if fds:
        sock = ListeningSocket(fileno=fds[0])
        sock.identity, sock.inherited = identity, told["inherited"]
        return sock
    sock = ListeningSocket()
    sock.close()
    if identity is not None:
        _unlink(told["address"], identity)
    return sock


def _unlink(path: str, identity: tuple[int, ...]) -> None:
    try:
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == identity:
            Path(path).unlink()
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def _told_workers(state: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Also one that was being started: it may have begun, and be known to the dispatcher."""
    yield from state["handles"]
    known = {told["id"] for told in state["handles"]}
    for told in state["view"]["workers"]:
        if told["id"] not in known:
            yield {name: told[name] for name in HANDLE if name in told}


def _worker(asker: Asker, told: Mapping[str, Any], found: Inherited) -> None:
    """Nothing for one that the dispatcher does not know: it is gone, or its lifeline ends it."""
    number = told["id"]
    answer, fds = asker.ask(worker=number, values=(Inherit.WORKER,))
    if answer.result < 0:
        return
    handle = WorkerHandle(**{name: told[name] for name in HANDLE if name in told}, adopted=True)
    handle.pidfd, handle.lifeline = fds[PIDFD], fds[LIFELINE]
    handle.pid = handle.pid or pid_of(handle.pidfd)
    handle.open_scoreboard(fds[SCOREBOARD])
    ends = fds[CHANNELS:]
    mask = answer.values[8]
    listeners = [index for index in range(MAX_LISTENERS) if mask >> index & 1]
    pairs = zip(ends[::2], ends[1::2], strict=True)
    handle.channels = {i: Channel(*pair) for i, pair in zip(listeners, pairs, strict=True)}
    voice = asker.kept(WorkerTag.VOICE, number)
    if voice:
        handle.notify = socket.socket(fileno=voice[0])
        handle.notify.setblocking(False)
    if len(voice) >= 3:
        handle.stdout, handle.stderr = voice[1:3]
        handle.journal = voice[3] if len(voice) > 3 else -1
    for fd in asker.kept(WorkerTag.SD_NOTIFY, number):
        handle.sd_notify = socket.socket(fileno=fd)
    found.handles[number] = handle
    found.states[number] = answer.values[3]


def told_listeners(
    listeners: Sequence[ListeningSocket], inherited: Inherited | None
) -> list[dict[str, Any]]:
    """``family`` and ``address`` of each; closed ones say no more what they were."""
    if inherited is None:
        return [describe(sock) for sock in listeners]
    told = inherited.state["listeners"]
    return [{"family": one["family"], "address": one["address"]} for one in told]


def door_of(inherited: Inherited) -> tuple[int | None, bytes]:
    """The door of programs, and the secret of their keys."""
    door = inherited.kept.get(AppTag.DOOR)
    return door[0] if door else None, bytes.fromhex(inherited.state["fixed"]["secret"])


def nofile_of(inherited: Inherited) -> tuple[int, int]:
    """The limits that the first primary was started with."""
    soft, hard = inherited.state["fixed"]["nofile"]
    return soft, hard


def launches_of(settings: Settings, state: Mapping[str, Any]) -> Launches:
    """With what the generations that run were started."""
    origin = Origin(state["fixed"]["cwd"], state["fixed"]["environ"])
    known = {
        int(number): {
            **told,
            "argv": tuple(told["argv"]),
            "identity": Identity.of(told["identity"]),
        }
        for number, told in state["launches"].items()
    }
    return Launches(settings, origin, known)


def view_of(inherited: Inherited) -> View:
    """The view, without workers of which nothing is left, or that were never started."""
    view = thaw(inherited.state["view"])
    for number in set(view.workers) - set(inherited.handles):
        del view.workers[number]
    for worker in view.workers.values():
        worker.remove_asked = False
    return view
