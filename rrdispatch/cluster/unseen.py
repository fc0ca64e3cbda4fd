"""Programs that listen where we can give them nothing, said soon and not by ``ready_timeout`` only.

Port 0, a unix socket, an address that ``--listen`` leaves out, a program that cannot be preloaded:
it serves by itself, and waits for nothing of ours. Looks from outside, changes nothing.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from rrdispatch.cluster import quiet
from rrdispatch.cluster.engine import Engine
from rrdispatch.cluster.lifecycle import State
from rrdispatch.cluster.view import Worker
from rrdispatch.cluster.workers import Workers
from rrdispatch.net.neighbours import listening_on

EVERY = 2.0
LIBRARY = "rr-shim.so"


class Unseen:
    """As long as the service runs; each generation is told of once."""

    def __init__(self, only: tuple[str, ...], workers: Workers, engine: Engine) -> None:
        """``only``: the addresses that are taken over, if they are named."""
        self._only = only
        self._workers = workers
        self._engine = engine
        self._told: set[int] = set()  # generations
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(EVERY, self._turn)

    def _turn(self) -> None:
        self._timer = self._loop.call_later(EVERY, self._turn)
        for worker in self._engine.view.workers.values():
            if worker.state is State.STARTING and not worker.said_ready:
                self._look(worker)

    def _look(self, worker: Worker) -> None:
        handle = self._workers.handles.get(worker.id)
        if handle is None or handle.channels or worker.generation in self._told:
            return
        for pid in quiet.session(handle.pid):
            if where := listening_on(set(quiet.sockets(pid))):
                self._told.add(worker.generation)
                why, hint = reason(is_preloaded(pid), self._only)
                text = f"listens on {', '.join(where)} by itself: {why}"
                self._workers.announce("unseen", worker.id, text, addresses=where, hint=hint)
                return

    def close(self) -> None:
        self._timer.cancel()


def reason(preloaded: bool, only: tuple[str, ...]) -> tuple[str, str]:
    """(why nothing is given to it there, what to do)."""
    if not preloaded:
        why = "it could not be preloaded, so no connection can be given to it"
        return why, "--share-listener with --bind, or --no-listen"
    if any(only):
        return "that is none of --listen, so no connection is given to it", "name it there, too"
    why = "a port of the kernel's choice (0), or a unix socket, is not taken over"
    return why, "let it listen on a port that is named, or say --no-listen"


def is_preloaded(pid: int) -> bool:
    """Our library is in it; also where it cannot be seen."""
    try:
        text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return any(os.path.basename(line.rstrip()) == LIBRARY for line in text.splitlines())
