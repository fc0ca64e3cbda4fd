"""One dictionary per app, made of its definition and what its primary says: what ``list`` shows.

The keys are a promise (docs/commands.md). CPU and rates come of two looks, ``WINDOW`` apart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rrdispatch.control.ask import SkewError, ask_all
from rrdispatch.control.definitions import RUN, Definition
from rrdispatch.control.statedir import NotRunningError

GONE = ("stopped", "errored", "killed")  # of those that no primary speaks for
WINDOW = 0.1
ANSWER = 3.0  # a primary that takes longer is shown as one that does not answer
PAGE = os.sysconf("SC_PAGE_SIZE")


def collect(apps: Sequence[Definition], *, rates: bool = True) -> list[dict[str, Any]]:
    """A row for each app, in their order."""
    names = [app.name for app in apps]
    told = ask_all(names, "stats", ANSWER)
    alive = [name for name in names if isinstance(told[name], dict)]
    first = {name: _looked(told[name]) for name in alive}
    if alive and rates:
        time.sleep(WINDOW)
        told = {**told, **ask_all(alive, "stats", ANSWER)}
    return [_shown(app, told[app.name], first.get(app.name) if rates else None) for app in apps]


def _looked(stats: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        return look(stats)
    except SkewError:
        return None


def _shown(app: Definition, told: Any, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """One of another version hides no other app."""
    try:
        return row(app, told, before)
    except SkewError as error:
        return row(app, error)


def row(app: Definition, told: Any, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``told``: the stats, or the Error instead of them."""
    stats: Mapping[str, Any] = told if isinstance(told, dict) else {}
    now = look(stats) if stats else {}
    workers = [_worker(worker, now, before) for worker in stats.get("workers", ())]
    serving = [worker for worker in stats.get("workers", ()) if worker["state"] == "ready"]
    return {
        "id": app.id if app.id >= 0 else None,
        "name": app.name,
        "namespace": app.namespace,
        "target": app.target,
        "mode": mode(app),
        "status": status(app, told),
        "state": stats.get("state", "stopped"),
        "primary_pid": stats.get("primary_pid"),
        "generation": stats.get("generation"),
        "degraded": bool(stats.get("degraded")),
        "instances": stats.get("wanted", 0),
        "serving": stats.get("serving", 0),
        "uptime": _uptime(app, stats),
        "restarts": _restarts(app, stats),
        "cpu": round(sum(worker["cpu"] for worker in workers), 1),
        "memory": sum(worker["memory"] for worker in workers),
        "connections": sum(worker["inflight"] for worker in serving),
        "connections_per_second": _rate(now, before),
        "pending": sum(worker["pending"] for worker in workers),
        "accepted": stats.get("accepted", 0),
        "listeners": [listener["address"] for listener in stats.get("listeners", ())],
        "version": stats.get("version"),
        "error": app.error if not stats else None,
        "workers": workers,
    }


def mode(app: Definition) -> str:
    """What runs: an app by our runner, or a program that listens by itself."""
    from rrdispatch.checks import names_app

    return "app" if not app.target or names_app(app.target) else "program"


def status(app: Definition, told: Any) -> str:
    """One word; pm2's where it has one."""
    if isinstance(told, dict):
        return _of_stats(told)
    if not isinstance(told, NotRunningError):
        return "other version" if isinstance(told, SkewError) else "not answering"
    if app.error:
        return "errored"
    return "killed" if app.wanted == RUN and not app.ended else "stopped"


def _of_stats(stats: Mapping[str, Any]) -> str:
    state = str(stats.get("state"))
    if state == "serving":
        return "degraded" if stats.get("degraded") else "online"
    known = {"starting": "launching", "down": "errored", "ended": "stopped"}
    return known.get(state, state)


def _restarts(app: Definition, stats: Mapping[str, Any]) -> int:
    return sum(slot["restarts"] for slot in stats.get("slots", ())) if stats else app.restarts


def _uptime(app: Definition, stats: Mapping[str, Any]) -> float:
    """Seconds since its start; of an app without a definition those of its oldest worker."""
    if not stats:
        return 0.0
    if app.started:
        return round(max(0.0, time.time() - app.started), 1)
    return float(max((worker["uptime"] for worker in stats.get("workers", ())), default=0.0))


def _worker(
    worker: Mapping[str, Any], now: Mapping[str, Any], before: Mapping[str, Any] | None
) -> dict[str, Any]:
    pid = worker["pid"]
    used = now["cpu"].get(pid, 0.0)
    if before is not None and pid in before["cpu"]:
        spent, seconds = used - before["cpu"][pid], now["time"] - before["time"]
    else:
        spent, seconds = used, worker["uptime"]  # of its whole life
    cpu = 100 * spent / seconds if seconds > 0 else 0.0
    return {**worker, "cpu": round(max(0.0, cpu), 1), "memory": memory(pid)}


def look(stats: Mapping[str, Any]) -> dict[str, Any]:
    """CPU seconds of each worker, and connections accepted, at this moment."""
    pids = [worker["pid"] for worker in stats.get("workers", ())]
    used = {pid: cpu_seconds(pid) for pid in pids}
    return {"time": time.monotonic(), "cpu": used, "accepted": stats.get("accepted", 0)}


def _rate(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> float:
    if not now or before is None:
        return 0.0
    seconds = now["time"] - before["time"]
    return round(max(0, now["accepted"] - before["accepted"]) / seconds, 1) if seconds > 0 else 0.0


def cpu_seconds(pid: int) -> float:
    """Of the process with all its threads. clock_getcpuclockid(3) gives this id on Linux."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def memory(pid: int) -> int:
    """Resident bytes."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0
