"""What people and tools are told: stats, and errors made of what a failed worker left behind."""

from __future__ import annotations

import operator
import os
import sys
import time
from typing import Any

from rrdispatch import _core
from rrdispatch.cluster.dispatching import Dispatching
from rrdispatch.cluster.lifecycle import State
from rrdispatch.cluster.view import (
    ANOTHER,
    STOPPING,
    Failure,
    Reload,
    Slot,
    Start,
    Stop,
    View,
    Worker,
)
from rrdispatch.cluster.workers import SlotTotals
from rrdispatch.cluster.world import ProcessWorld
from rrdispatch.errors import Error, MissingExtraError, StartError, TargetError
from rrdispatch.net.listeners import address_of
from rrdispatch.settings import Settings


def stats(settings: Settings, view: View, world: ProcessWorld) -> dict[str, Any]:
    """The view from outside; numbers of this moment, the dispatcher's of its last ping."""
    dispatching = world.dispatching
    told = world.listening()
    return {
        "name": settings.name or "app",
        "state": state_of(view),
        "primary_pid": os.getpid(),
        "dispatcher_pid": dispatching.link.pid,
        "logger_pid": world.logs.pid,
        "logs": world.logs.plan,
        "unwritten": dict(world.workers.unwritten),
        "dispatcher": dispatching.kind,
        "policy": settings.policy,
        "generation": view.generation,
        "degraded": view.degraded,
        "wanted": view.wanted,
        "serving": len(view.serving),
        "listeners": [
            {"family": listener["family"], "address": str(address_of(listener))}
            for listener in told
        ],
        **_counters(dispatching),
        "workers": [
            row for w in view.workers.values() if (row := _worker(settings, view, world, w))
        ],
        "slots": [_slot(view, world, slot) for slot in view.slots.values()],
    }


def fallback(settings: Settings) -> tuple[str, str] | None:
    """(what, hint) if the Python dispatcher has to do where the C one could."""
    built = sys.platform != "linux" or _core.dispatcher_program() is not None
    if settings.dispatcher != "auto" or built:
        return None
    what = "the C dispatcher was not built; the Python one costs more CPU per connection"
    return what, "install a C compiler and reinstall, or say --dispatcher python"


def state_of(view: View) -> str:
    """One word for the service."""
    operation = view.operation
    if view.finished:
        return "stopped"
    if isinstance(operation, Stop):
        return "stopping"
    if isinstance(operation, Start):
        return "starting"
    if isinstance(operation, Reload):
        return "reloading"
    if view.serving:
        return "serving"
    return "ended" if view.slots and all(slot.ended for slot in view.slots.values()) else "down"


def _counters(dispatching: Dispatching) -> dict[str, int]:
    totals = dispatching.counters()
    return {"accepted": totals.accepted, "moved": totals.moved, "lost": totals.lost}


def _cores(pid: int) -> list[int]:
    """Where the kernel lets it run; none if it is gone."""
    try:
        return sorted(os.sched_getaffinity(pid))
    except ProcessLookupError:
        return []


def _worker(
    settings: Settings, view: View, world: ProcessWorld, worker: Worker
) -> dict[str, Any] | None:
    handle = world.workers.handles.get(worker.id)
    if handle is None:
        return None
    counts, figures = handle.counts(), world.dispatching.roster.figures(worker.id)
    slot = view.slots.get(worker.slot)
    return {
        "slot": worker.slot,
        "id": worker.id,
        "pid": handle.pid,
        "generation": worker.generation,
        "state": worker.state.value,
        "uptime": round(world.now() - handle.started_at, 3),
        "connections": counts.received,
        "inflight": counts.inflight,
        "pending": handle.pending() if handle.channels else 0,
        "busy": counts.busy,
        "requests": counts.requests,
        "picks": figures.picks,
        "moved_away": figures.moved_away,
        "restarts": slot.restarts if slot else 0,
        "stalled": handle.stalled(),
        "kind": handle.kind,
        "status": handle.status,
        "cores": _cores(handle.pid) if settings.pin else None,
    }


def _slot(view: View, world: ProcessWorld, slot: Slot) -> dict[str, Any]:
    workers = view.of_slot(slot.index)
    best = max(workers, key=lambda worker: (worker.state is State.READY, worker.id), default=None)
    totals = world.workers.totals.get(slot.index) or SlotTotals()
    handles = world.workers.handles
    running = [handles[worker.id].counts() for worker in workers if worker.id in handles]
    return {
        "slot": slot.index,
        "wanted": _closed(slot) or "serve",
        "state": _closed(slot) or (best.state.value if best else "empty"),
        "restarts": slot.restarts,
        "last_exit": slot.last_exit,
        "connections": totals.received + sum(counts.received for counts in running),
        "requests": totals.requests + sum(counts.requests for counts in running),
    }


def _closed(slot: Slot) -> str:
    """Why nobody is started in it; empty if somebody is."""
    return "errored" if slot.errored else "stopped" if slot.ended else ""


def ends(view: View, now: float) -> list[dict[str, Any]]:
    """The unwanted ends that are remembered, the oldest first; by the clock of the wall."""
    found = [
        {"slot": slot.index, "time": time.time() - (now - at), "reason": reason}
        for slot in view.slots.values()
        for at, reason in slot.ends
    ]
    return sorted(found, key=operator.itemgetter("time"))


def start_error(
    failure: Failure, told: dict[str, Any] | None, output: str, served: bool = False
) -> Error:
    """Why the service did not start, or go on if it has ``served``, with what to do about it."""
    told = told or {}
    message = str(told.get("message") or failure.reason)
    hint = str(told["hint"]) if told.get("hint") else None
    code, traceback = told.get("code"), str(told.get("traceback") or "")
    if code == "target":
        return TargetError(message, hint=hint, traceback=traceback)
    if code == "extra":
        return MissingExtraError(message, hint=hint, traceback=traceback)
    if failure.worker and not told:
        message = failure.reason if served else f"no worker became ready: {failure.reason}"
        hint = "see the worker's output above" if output else "it printed nothing"
    if traceback:
        message = f"{message}\n{traceback.rstrip()}"
    return StartError(message, hint=hint, output=output)


def reload_failure(
    failure: Failure, told: dict[str, Any] | None, degraded: bool
) -> tuple[str, str | None]:
    """(what, hint). Where nobody is to blame it says so: else people look for it in their code."""
    if failure.reason == STOPPING:
        wrong = "nothing is to be mended: the next start has the new code"
        return f"the reload was given up: {failure.reason}", wrong
    who = f"worker {failure.slot} of the new generation: " if failure.worker else ""
    hint = str(told["hint"]) if told and told.get("hint") else None
    if failure.reason == ANOTHER:
        hint = "nothing is to be mended: the later one goes on"
    after = ", with respawned workers" if degraded else ""
    text = f"{who}{failure.reason}; the old code serves{after}"
    return f"the reload was rolled back: {text}", hint
