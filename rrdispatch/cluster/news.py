"""What can happen, and how each changes the view. Owns the events; must not act on the world."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from rrdispatch.cluster.ends import exit_code, left_by_itself, unwanted
from rrdispatch.cluster.growth import outgrown
from rrdispatch.cluster.lifecycle import State, Trigger, Wanted
from rrdispatch.cluster.view import (
    ANOTHER,
    STOPPING,
    Failure,
    Finish,
    Reload,
    ReloadOptions,
    Start,
    Stop,
    View,
    Worker,
)


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker said READY=1."""

    worker: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A worker's runner has imported the app, and calls it."""

    worker: int


@dataclass(frozen=True, slots=True)
class Recycle:
    """A worker asked for its successor."""

    worker: int


@dataclass(frozen=True, slots=True)
class Outgrown:
    """A worker takes more than max_memory_restart."""

    worker: int


@dataclass(frozen=True, slots=True)
class Leaves:
    """A worker said that it drains by its own decision."""

    worker: int


@dataclass(frozen=True, slots=True)
class Erred:
    """A worker said why it is about to exit."""

    worker: int
    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hung:
    """A worker took nothing, or was silent, for heartbeat_timeout."""

    worker: int
    why: str = "it took no connection"


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing waits in a worker's queue any more."""

    worker: int


@dataclass(frozen=True, slots=True)
class Quiet:
    """A program that is given nothing any more has no connection at work."""

    worker: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker's process is gone and reaped."""

    worker: int
    how: str
    short: bool = False  # it never began: the machine had nothing to start it with


@dataclass(frozen=True, slots=True)
class Removed:
    """The dispatcher has forgotten a dead worker."""

    worker: int


@dataclass(frozen=True, slots=True)
class ListenersClosed:
    """Every backlog is empty and every listener closed."""


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    token: int
    options: ReloadOptions


@dataclass(frozen=True, slots=True)
class ScaleAsked:
    wanted: int


@dataclass(frozen=True, slots=True)
class StopAsked:
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class KillAsked:
    pass


@dataclass(frozen=True, slots=True)
class Slept:
    """For so many seconds this process did not run: frozen, stopped, or without a core."""

    seconds: float


News = (
    Ready
    | Loaded
    | Recycle
    | Outgrown
    | Leaves
    | Erred
    | Hung
    | Drained
    | Quiet
    | Exited
    | Removed
    | ListenersClosed
    | ReloadAsked
    | ScaleAsked
    | StopAsked
    | KillAsked
    | Slept
)


def apply(news: News, view: View, now: float) -> None:
    """Changes the view by what happened at this moment."""
    view.now = now
    _apply(news, view)


@singledispatch
def _apply(news: object, _view: View) -> None:
    raise TypeError(f"not an event of the plan: {news!r}")


@_apply.register
def _(news: Ready, view: View) -> None:
    worker = view.workers.get(news.worker)
    if worker is not None and worker.state is State.STARTING:
        worker.said_ready = True
        if isinstance(view.operation, Start) and view.operation.opened_at is None:
            view.operation.opened_at = view.now


@_apply.register
def _(news: Loaded, view: View) -> None:
    worker = view.workers.get(news.worker)
    if worker is not None and worker.loaded_at is None:
        worker.loaded_at = view.now


@_apply.register
def _(news: Recycle, view: View) -> None:
    worker = view.workers.get(news.worker)
    if worker is not None and worker.live:
        worker.recycle = True


@_apply.register
def _(news: Outgrown, view: View) -> None:
    worker = view.workers.get(news.worker)
    if worker is not None:
        outgrown(view, worker)


@_apply.register
def _(news: Leaves, view: View) -> None:
    worker = view.workers.get(news.worker)
    if worker is not None and worker.live:
        left_by_itself(view, worker)


@_apply.register
def _(news: Erred, view: View) -> None:
    worker = view.workers.get(news.worker)
    if worker is not None:
        worker.error = news.error


@_apply.register
def _(news: Hung, view: View) -> None:
    worker = view.workers.get(news.worker)
    if worker is not None and worker.live:
        worker.fault = f"hung: {news.why} for heartbeat_timeout"


@_apply.register
def _(news: Drained, view: View) -> None:
    worker = view.workers.get(news.worker)
    if worker is not None:
        worker.queue_empty = True


@_apply.register
def _(news: Quiet, view: View) -> None:
    worker = view.workers.get(news.worker)
    if worker is not None:
        worker.quiet = True


@_apply.register
def _(news: Exited, view: View) -> None:
    worker = view.workers.get(news.worker)
    if worker is None:
        return
    worker.move(Trigger.EXIT)
    slot = view.slots.get(worker.slot)
    if slot is not None:
        slot.last_exit = news.how
    if view.rules.exit_decides if worker.leaves else worker.wanted is not Wanted.GONE:
        unwanted(view, worker, describe(worker, news.how), exit_code(news.how), news.short)


@_apply.register
def _(news: Removed, view: View) -> None:
    worker = view.workers.pop(news.worker, None)
    if worker is not None:
        worker.move(Trigger.REMOVE)


@_apply.register
def _(_news: ListenersClosed, view: View) -> None:
    if isinstance(view.operation, Stop):
        view.operation.closed = True


@_apply.register
def _(news: ReloadAsked, view: View) -> None:
    asked = Reload(news.token, news.options)
    if view.finished or isinstance(view.operation, Stop):
        _cut_short(view, asked, STOPPING)
        return
    if view.queued is not None:
        _cut_short(view, view.queued, ANOTHER)
    view.queued = asked
    if isinstance(view.operation, Reload) and view.operation.failure is None:
        view.operation.failure = Failure(ANOTHER)


@_apply.register
def _(news: ScaleAsked, view: View) -> None:
    view.resize(news.wanted)


@_apply.register
def _(news: StopAsked, view: View) -> None:
    if not isinstance(view.operation, Stop):
        view.begin_stop(Stop(view.now, failure=news.failure))
    elif view.operation.failure is None:
        view.operation.failure = news.failure


@_apply.register
def _(_news: KillAsked, view: View) -> None:
    if not isinstance(view.operation, Stop):
        view.begin_stop(Stop(view.now))
    assert isinstance(view.operation, Stop)
    view.operation.kill = True


@_apply.register
def _(news: Slept, view: View) -> None:
    view.postpone(news.seconds)


def describe(worker: Worker, how: str) -> str:
    """What happened to a worker, for people."""
    if worker.fault:
        return worker.fault
    when = "" if worker.ready_at is not None else " before it was ready"
    said = str(worker.error.get("message", "")) if worker.error else ""
    return f"{how}{when}: {said}" if said else f"{how}{when}"


def _cut_short(view: View, reload: Reload, reason: str) -> None:
    view.ended.append(Finish("reload", reload.token, Failure(reason)))
