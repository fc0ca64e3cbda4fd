"""Reload, restart and scale from outside: asks, waits for what comes of it, never for ever."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rrdispatch.checks import MOST_WORKERS
from rrdispatch.control import definitions, statedir
from rrdispatch.control.ask import Line
from rrdispatch.control.definitions import Definition
from rrdispatch.control.ending import locked
from rrdispatch.control.statedir import NotRunningError
from rrdispatch.errors import ConfigError, ControlError, StartError

SLACK = 30.0
LOOK = 0.05  # seconds between two looks at what nobody announces

OnEvent = Callable[[Mapping[str, Any]], object]


def reload(
    app: Definition, options: Mapping[str, Any], on_event: OnEvent, *, wait: bool = True
) -> dict[str, Any] | None:
    """Returns after probation; ReloadError if it was rolled back. None if nobody waits."""
    with running(app, on_event) as line:
        stats = line.call("stats")
        if wait:
            line.call("subscribe")
        each = _setting(app, "ready_timeout", 60.0) + _setting(app, "drain_timeout", 25.0)
        probation = float(options.get("probation", _setting(app, "probation", 3.0)))
        most = (max(1, stats["wanted"]) + 1) * each + probation + SLACK
        found: dict[str, Any] | None = line.call("reload", most, wait=wait, **options)
        return found


def running(app: Definition, on_event: OnEvent | None = None) -> Line:
    """Its primary; what to do if it has none."""
    try:
        return Line.to(app.name, on_event=on_event)
    except NotRunningError as error:
        error.message, error.hint = f"{app.name} does not run", f"rrdispatch start {app.name}"
        raise


def recycle(app: Definition, slot: int, on_event: OnEvent | None = None) -> int:
    """Replaces one worker; the pid of the new one."""
    with running(app, on_event) as line:
        if on_event is not None:
            line.call("subscribe")
        before = {worker["id"] for worker in line.call("stats")["workers"]}
        line.call("recycle", slot=slot)
        end = time.monotonic() + _setting(app, "ready_timeout", 60.0) + SLACK
        while time.monotonic() < end:
            for worker in line.call("stats")["workers"]:
                new = worker["slot"] == slot and worker["id"] not in before
                if new and worker["state"] == "ready":
                    return int(worker["pid"])
            time.sleep(LOOK)
        raise StartError(f"the new worker {slot} of {app.name} is not ready; the old one serves")


def scale(app: Definition, text: str, on_event: OnEvent | None = None) -> int:
    """To N, or by +N or -N; the number, when so many serve."""
    try:
        with running(app, on_event) as line:
            if on_event is not None:
                line.call("subscribe")
            wanted = _wanted(text, line.call("stats")["wanted"])
            line.call("scale", workers=wanted)
            _until_so_many(app, line, wanted)
    except NotRunningError:
        wanted = _scale_stopped(_still_known(app), text)
    return wanted


def reset(app: Definition) -> None:
    """Restarts are counted from 0 again."""
    try:
        with running(app) as line:
            line.call("reset")
    except NotRunningError:
        with _stopped(_still_known(app)) as found:
            found.restarts, found.ends = 0, []


def _scale_stopped(app: Definition, text: str) -> int:
    """Its next start has as many."""
    with _stopped(app) as found:
        now = found.instances
        wanted = _wanted(text, int(now) if now.isdigit() else None)
        found.typed["instances"] = found.settings["instances"] = str(wanted)
    return wanted


@contextlib.contextmanager
def _stopped(app: Definition) -> Iterator[Definition]:
    """As it is saved, while it does not run; what is changed is saved, too."""
    with locked(app.name):
        try:
            found = _still_known(app)
        except NotRunningError:
            statedir.remove(statedir.home() / app.name)  # the lock made it anew
            raise
        yield found
        definitions.save(found)


def _still_known(app: Definition) -> Definition:
    """As it is by now; NotRunningError if it was deleted, or never had a definition."""
    found = definitions.load(app.name)
    if found is None or found.id < 0:
        raise NotRunningError(f"{app.name} does not run, and is not known any more")
    return found


def _wanted(text: str, now: int | None) -> int:
    sign, digits = (text[0], text[1:]) if text[:1] in ("+", "-") else ("", text)
    if not digits.isascii() or not digits.isdigit() or len(digits) > 9:
        raise ConfigError(f"{text!r} is not a number of workers", hint="N, +N or -N")
    if sign and now is None:
        raise ConfigError("it does not run: +N and -N of nothing", hint="say how many: N")
    number = int(digits) if not sign else (now or 0) + int(text)
    if number < 1:
        raise ConfigError(f"{number} workers", hint="at least 1; rrdispatch stop ends them all")
    if number > MOST_WORKERS:
        raise ConfigError(f"{number} workers", hint=f"at most {MOST_WORKERS}")
    return number


def _until_so_many(app: Definition, line: Line, wanted: int) -> None:
    end = time.monotonic() + _setting(app, "ready_timeout", 60.0)
    end += _setting(app, "drain_timeout", 25.0) + SLACK
    while True:
        stats = line.call("stats")
        if stats["wanted"] != wanted:
            raise ControlError(f"somebody else scaled {app.name} to {stats['wanted']}")
        workers, failed = stats["workers"], _failed(stats)
        ended = sum(slot["state"] == "stopped" for slot in stats["slots"])  # and not replaced
        if stats["serving"] == len(workers) == wanted - ended:
            return
        if failed or time.monotonic() > end:
            text = f"{stats['serving']} of {wanted} workers serve"
            raise StartError(f"{text}: {failed}" if failed else text, hint="it goes on trying")
        time.sleep(LOOK)


def _failed(stats: Mapping[str, Any]) -> str:
    """A worker that died while it should have started."""
    busy = {worker["slot"] for worker in stats["workers"] if worker["state"] == "ready"}
    for slot in stats["slots"]:
        if slot["slot"] not in busy and slot["restarts"] and slot["last_exit"]:
            return f"worker {slot['slot']}: {slot['last_exit']}"
    return ""


def _setting(app: Definition, key: str, default: float) -> float:
    return float(app.settings.get(key, default))
