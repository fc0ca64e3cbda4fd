"""Where workers' servers listen: one listener per address, for as long as a worker holds it.

What unmodified programs ask for comes by ``cluster.programs``; this adds when a worker began to
listen, who holds a listener, and the shared listener of SCHED_NONE.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import Any

from rrdispatch.cluster.door import Answer, Request
from rrdispatch.cluster.handle import WorkerHandle
from rrdispatch.cluster.programs import BACKLOG, AskedBy, Opened, Programs
from rrdispatch.errors import ConfigError
from rrdispatch.net.addresses import parse
from rrdispatch.net.listeners import bind, bind_beside, describe

AGAIN = -1  # v6only of a program that was exec'd with its listener open, and began long ago
Listening = Callable[[int, dict[str, Any]], None]
PATIENCE = {"RRDISPATCH_SHIM_TIMEOUT_MS": "60000"}


class Doors(Programs):
    """SCHED_RR: a channel per worker and address."""

    def __init__(self, opened: Opened, asked_by: AskedBy, listening: Listening) -> None:
        super().__init__((), opened, asked_by)
        self._patience = PATIENCE
        self._began = listening
        self._refused: set[int] = set()
        self._binds: dict[str, int] = {}

    def refuse(self, worker: int) -> None:
        """It leaves: it gets no more listeners."""
        self._refused.add(worker)

    def holders(self, index: int) -> list[WorkerHandle]:
        """Living workers that have it."""
        everybody = self._asked_by.handles.values()
        return [one for one in everybody if not one.reaped and index in one.channels]

    def unheld(self) -> list[int]:
        """Listeners of nobody."""
        return [index for index in self.open_ones() if not self.holders(index)]

    def open_ones(self) -> Iterable[int]:
        """Listeners that are open and are to stay so."""
        indexes = range(len(self._listeners))
        return [i for i in indexes if i not in self._closing and self._listeners[i].fileno() >= 0]

    def close_one(self, index: int, then: Callable[[], None], within: float = 0.0) -> None:
        """That one: nobody new comes, what waits is given to those who still take."""
        self._closing.add(index)

        def closed() -> None:
            self._closed(index)
            then()

        self._asked_by.dispatching().close_listener(index, closed, within)

    def bound(self, binds: Iterable[str]) -> list[dict[str, Any]]:
        """The listeners of an app, which are ours to open; their numbers are 0 and following."""
        for wanted, text in enumerate(binds):
            index = self._binds.get(text, -1)
            if index < 0 or self._listeners[index].fileno() < 0:
                index = self._bind(text, wanted)
            if index != wanted or index in self._closing:
                raise ConfigError(
                    f"{text} cannot be listened on for an app any more",
                    hint="setup_primary(exec=..., bind=...) before the first fork()",
                )
        return [dict(one) for one in self._told[: len(self._binds)]]

    def _bind(self, text: str, wanted: int) -> int:
        sock = bind(parse(text))
        told = describe(sock)
        if wanted < len(self._listeners) and self._listeners[wanted].fileno() >= 0:
            sock.close()
            return -1
        self._listeners[wanted : wanted + 1], self._told[wanted : wanted + 1] = [sock], [told]
        self._binds[text] = wanted
        self._asked_by.dispatching().add_listener(wanted)
        return wanted

    def _listen(self, handle: WorkerHandle, request: Request) -> Answer | None:
        if handle.id in self._refused:
            return Answer(-errno.ESHUTDOWN)
        answer = self._give(handle, request)
        if answer is not None and answer.result == 0 and request.v6only != AGAIN:
            self._began(handle.id, self._told[answer.listener])
        return answer

    def _give(self, handle: WorkerHandle, request: Request) -> Answer | None:
        return super()._listen(handle, request)

    def abandon(self) -> None:
        """In a forked child: our copies."""
        for sock in self._listeners:
            sock.close()
        self.door.abandon()


class SharedDoors(Doors):
    """SCHED_NONE: the listener itself; the kernel distributes. The dispatcher has no part in it."""

    def __init__(self, opened: Opened, asked_by: AskedBy, listening: Listening) -> None:
        super().__init__(opened, asked_by, listening)
        self._held: dict[int, set[int]] = {}

    def holders(self, index: int) -> list[WorkerHandle]:
        everybody = self._asked_by.handles
        held = self._held.get(index, ())
        return [one for i in held if (one := everybody.get(i)) is not None and not one.reaped]

    def close_one(self, index: int, then: Callable[[], None], within: float = 0.0) -> None:  # noqa: ARG002
        self._listeners[index].close()
        self._held.pop(index, None)
        then()

    def _give(self, handle: WorkerHandle, request: Request) -> Answer | None:
        index = self._index(request.address)
        if index < 0:
            backlog = max(request.backlog, BACKLOG)
            sock = bind_beside(request.address, bool(request.v6only), backlog)
            sock.setblocking(True)  # as the program's own; whoever changes it does so for all
            told = describe(sock)
            index = self._place(told)
            self._listeners[index : index + 1], self._told[index : index + 1] = [sock], [told]
        self._held.setdefault(index, set()).add(handle.id)
        return Answer(0, index, [self._listeners[index].fileno(), handle.scoreboard])
