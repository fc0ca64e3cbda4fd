"""Looks at how much memory each worker takes, one after the other, and says who takes too much.

What counts is the proportional set size of the worker and of all processes that come from it: with
pages that several share divided among them, so that forked children do not count the same page
several times. It is dear to ask for, the resident size is cheap and never smaller: so that is asked
first, and the other only above the limit.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

from rrdispatch.cluster import memory, news
from rrdispatch.cluster.engine import Engine
from rrdispatch.cluster.lifecycle import State
from rrdispatch.cluster.workers import Workers

EVERY = 5.0  # seconds between two looks at one worker
LEAST = 0.02  # between two looks at all
PAGE = os.sysconf("SC_PAGE_SIZE")
PROC = Path("/proc")


class MemoryWatch:
    """As long as the service runs. Decides nothing: the plan does."""

    def __init__(self, limit: int, workers: Workers, engine: Engine) -> None:
        self._limit = limit
        self._workers = workers
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._last = 0  # the worker that was looked at
        self._timer = self._loop.call_later(EVERY, self._turn)

    def _turn(self) -> None:
        serving = sorted(w.id for w in self._engine.view.workers.values() if w.state is State.READY)
        self._timer = self._loop.call_later(max(LEAST, EVERY / max(1, len(serving))), self._turn)
        if serving:
            self._last = next((number for number in serving if number > self._last), serving[0])
            self._look(self._last)

    def _look(self, number: int) -> None:
        handle = self._workers.handles.get(number)
        if handle is None or handle.reaped:
            return
        takes = taken(handle.pid, self._limit)
        if takes <= self._limit:
            return
        worker = self._engine.view.workers[number]
        before = worker.outgrown, worker.grew_at_once
        self._engine.tell(news.Outgrown(number))
        if (worker.outgrown, worker.grew_at_once) != before:
            text = f"takes {megabytes(takes)}, more than {megabytes(self._limit)}: "
            facts = {"memory": takes, "replaced": worker.outgrown}
            self._workers.announce("outgrown", number, text + self._what(worker.slot), **facts)

    def _what(self, slot: int) -> str:
        known = self._engine.view.slots[slot]
        until = known.grows_until
        if until is None or until <= self._engine.view.now:
            return "a successor is started"
        pause = until - self._engine.view.now
        return f"so did the one before; it is left alone for {pause:.0f} s (is the limit too low?)"

    def close(self) -> None:
        self._timer.cancel()


def taken(pid: int, limit: int) -> int:
    """By a process and those that come from it; exact above the limit only."""
    family = list(descent(pid))
    sizes = {each: resident(each) for each in family}
    if sum(sizes.values()) <= limit:
        return sum(sizes.values())
    return sum(memory.pss(each) or sizes[each] for each in family)


def descent(pid: int) -> Iterator[int]:
    """It, its children, theirs, and so on; without those whose parent is gone."""
    yield pid
    try:
        threads = list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return
    for thread in threads:
        for child in memory.content(thread / "children").split():
            yield from descent(int(child))


def resident(pid: int) -> int:
    """statm(5): the second field, in pages."""
    fields = memory.content(PROC / str(pid) / "statm").split()
    return int(fields[1]) * PAGE if len(fields) > 1 else 0


def megabytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
