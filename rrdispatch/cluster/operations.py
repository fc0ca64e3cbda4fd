"""Operations from outside: who waits for which result, and what dead workers left to explain it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from rrdispatch.cluster import report
from rrdispatch.cluster.events import Events
from rrdispatch.cluster.view import Finish, Start, View
from rrdispatch.errors import Error, ReloadError, StartError

MOST_REMAINS = 64


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """A reload that went well; ``notes`` say what was done otherwise than asked."""

    generation: int
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Asked:
    """A reload that somebody waits for."""

    future: asyncio.Future[ReloadResult]
    began: float
    notes: tuple[str, ...] = ()


class Operations:
    """Turns the plan's Finish into results and errors."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._asked: dict[int, Asked] = {}
        self._last_token = 0
        self._tails: OrderedDict[int, asyncio.Future[str]] = OrderedDict()
        self._errors: dict[int, dict[str, Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.started: asyncio.Future[None] = self._loop.create_future()
        self.done: asyncio.Future[Error | None] = self._loop.create_future()
        self.fatal: Error | None = None
        self.ran_out = False  # every worker has ended, and none is to follow
        # Nobody need wait for the start: what made it fail is also what ends the service.
        self.started.add_done_callback(lambda future: future.cancelled() or future.exception())

    def new_reload(self, notes: tuple[str, ...]) -> tuple[int, asyncio.Future[ReloadResult]]:
        """Its token for the plan, and its result to come."""
        self._last_token += 1
        asked = self._asked[self._last_token] = self._new_asked(notes)
        return self._last_token, asked.future

    def _new_asked(self, notes: tuple[str, ...]) -> Asked:
        future: asyncio.Future[ReloadResult] = self._loop.create_future()
        # Whoever asked by a signal does not wait: the result is told as an event as well.
        future.add_done_callback(lambda over: over.cancelled() or over.exception())
        return Asked(future, self._loop.time(), notes)

    @property
    def last_token(self) -> int:
        """Of the reload that was asked for last."""
        return self._last_token

    def follow(self, view: View, token: int) -> None:
        """As an heir: whoever asked the primary before is gone, what was asked for goes on."""
        self._last_token = token
        if not isinstance(view.operation, Start):
            self.started.set_result(None)

    def died(self, worker: int, error: dict[str, Any] | None, tail: asyncio.Future[str]) -> None:
        """A worker's remains are kept a while: an operation may have failed because of it."""
        self._tails[worker] = tail
        if error is not None:
            self._errors[worker] = error
        while len(self._tails) > MOST_REMAINS:
            oldest, _ = self._tails.popitem(last=False)
            self._errors.pop(oldest, None)

    def finish(self, finish: Finish, view: View) -> None:
        """The plan says that an operation is over."""
        culprit = view.workers.get(finish.failure.worker) if finish.failure else None
        told = culprit.error if culprit is not None else None
        if finish.failure is not None and told is None:
            told = self._errors.get(finish.failure.worker)
        if finish.operation == "reload":
            self._spawn(self._reload_over(finish, told, view.last_generation))
        elif finish.operation == "ended":
            self._all_ended(finish)
        elif finish.operation == "stop":
            self._spawn(self._stop_over(finish))
        else:
            self._spawn(self._start_over(finish, told))

    async def _start_over(self, finish: Finish, told: dict[str, Any] | None) -> None:
        failure = finish.failure
        if failure is None:
            self.started.set_result(None)
            self._events.tell("ready")
            return
        output = await self.output(failure.worker)
        over = self.started.done() and not self.started.cancelled()
        served = over and self.started.exception() is None
        error = report.start_error(failure, told, output, served)
        self.fatal = self.fatal or error
        if not self.started.done():
            self.started.set_exception(error)

    def _all_ended(self, finish: Finish) -> None:
        """By their own doing: a failure only if one of them ended badly."""
        self.ran_out = True
        if finish.failure is not None:
            hint = "its output is above; --stop-exit-codes names exit codes that are no failure"
            self.fatal = self.fatal or Error(finish.failure.reason, hint=hint)
        else:
            self._events.tell("all-ended", "every worker has ended, and none is replaced")

    async def _reload_over(
        self, finish: Finish, told: dict[str, Any] | None, generation: int
    ) -> None:
        # Asked for from the primary before us: nobody waits any more.
        asked = self._asked.pop(finish.token, None) or self._new_asked(())
        seconds = self._loop.time() - asked.began
        failure = finish.failure
        if failure is None:
            result = ReloadResult(generation, round(seconds, 3), asked.notes)
            text = f"reloaded in {seconds:.1f} s"
            self._events.tell("reloaded", text, generation=generation, seconds=seconds)
            if not asked.future.done():
                asked.future.set_result(result)
            return
        output = await self.output(failure.worker)
        message, hint = report.reload_failure(failure, told, finish.degraded)
        trace = str(told.get("traceback", "")) if told else ""  # not in the worker's own output
        output = f"{output}\n{trace}".strip()
        self._events.tell(
            "reload-failed",
            message,
            hint=hint,
            output=output,
            traceback=trace,
            degraded=finish.degraded,
        )
        if not asked.future.done():
            asked.future.set_exception(ReloadError(message, hint=hint, output=output))

    async def _stop_over(self, finish: Finish) -> None:
        """Last of all: the others' results are waited for, each is bounded."""
        mine = asyncio.current_task()
        await asyncio.gather(*(task for task in self._tasks if task is not mine))
        if not self.started.done():
            self.started.set_exception(self.fatal or StartError("the service was stopped"))
        failed = finish.failure is not None
        self.done.set_result((self.fatal or StartError("stopped")) if failed else None)

    async def output(self, worker: int) -> str:
        """A dead worker's last lines."""
        tail = self._tails.get(worker)
        return await tail if tail is not None else ""

    def _spawn(self, over: Coroutine[Any, Any, None]) -> None:
        self._keep(self._loop.create_task(over))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
