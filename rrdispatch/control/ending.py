"""Stopping and deleting apps from outside: asks, and waits until nothing is left of them."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from typing import Any

from rrdispatch.control import definitions, statedir
from rrdispatch.control.ask import ANSWER, GoneError, Line
from rrdispatch.control.definitions import STOP, Definition
from rrdispatch.control.statedir import NotRunningError, SilentError
from rrdispatch.errors import ControlError

SLACK = 15.0  # beyond what the settings allow a stop to take
SOON = 2.0  # for the first answer of one that is to end now
MOST_SILENCES = 4  # of it: an heir on a busy machine needs more than one


def stop(app: Definition, *, now: bool = False, wanted: str = STOP) -> bool:
    """Drains it, or ends it ``now``; False if it did not run.

    ``wanted`` RUN: only the moment is meant, it should run all the same.
    """
    asked = _end(app, now=now, wanted=wanted)
    try:
        _settle(app, wanted)
    except ControlError as error:
        error.message = f"it is stopped, but {error.message}"
        raise
    return asked


def _end(app: Definition, *, now: bool = False, wanted: str = STOP) -> bool:
    """Nothing of it runs any more; False if nothing did."""
    from rrdispatch.control import frozen

    remedies = frozen.remedies(app.name) if now else iter(())
    end = time.monotonic() + longest(app)
    silent = 0
    asked = False
    if now:
        frozen.wake(app.name)
    while True:
        try:
            if not _ask(app, SOON if now and not silent else ANSWER, end, now=now, wanted=wanted):
                break
        except SilentError as error:
            if not now or silent == MOST_SILENCES:
                error.hint = f"rrdispatch stop --now {app.name} ends it all the same"
                raise
            next(remedies, None)
            silent += 1
        asked = True  # once more: its heir goes on with the stop, if it was killed in the midst
    return asked


def _ask(app: Definition, within: float, end: float, *, now: bool, wanted: str) -> bool:
    """Asks whoever is its primary, and waits for its end; False if there is none."""
    try:
        with Line.to(app.name) as line, _process(line.call("stats", within)) as pidfd:
            if now:
                line.call("kill", wanted=wanted)
            else:  # also while it stops: that may be a signal's doing, nobody's wish
                line.call("stop", once=True, wanted=wanted)
            _until_gone(app, pidfd, end)
    except NotRunningError:
        return False
    except GoneError:
        if time.monotonic() > end:
            raise
        time.sleep(0.01)
    return True


def longest(app: Definition) -> float:
    """Seconds that a stop may take."""
    settings = app.settings
    delay, drain = settings.get("shutdown_delay", 0.0), settings.get("drain_timeout", 25.0)
    return float(delay) + float(drain) + SLACK


@contextlib.contextmanager
def _process(stats: dict[str, Any]) -> Iterator[int]:
    try:
        pidfd = os.pidfd_open(stats["primary_pid"])
    except ProcessLookupError:
        yield -1
        return
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def _until_gone(app: Definition, pidfd: int, end: float) -> None:
    if pidfd < 0:
        return
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
        raise SilentError(f"{app.name} did not end within {longest(app):g} s")


def _settle(app: Definition, wanted: str) -> None:
    """It was killed, or ended before it heard of us: it is stopped because somebody says so."""
    found = definitions.load(app.name) if app.id >= 0 else None
    if found is None or (found.wanted in (STOP, wanted) and found.ended and not found.error):
        return
    with locked(app.name, ANSWER):
        found = definitions.load(app.name)
        if found is not None:
            found.wanted = STOP if wanted == STOP else found.wanted
            found.error, found.ended = None, found.ended or time.time()
            definitions.save(found)


@contextlib.contextmanager
def locked(name: str, within: float = 0.0) -> Iterator[None]:
    """While it does not run; ControlError if it does, and goes on for longer than that."""
    directory, lock = _hold(name, time.monotonic() + within)
    try:
        yield
    finally:
        with contextlib.suppress(ControlError):
            _leave(name, lock)
        os.close(lock)
        os.close(directory)


def _leave(name: str, lock: int) -> None:
    """Of an app that somebody deleted meanwhile nothing comes back: the lock made its folder."""
    folder = statedir.home() / name
    if statedir.is_still_there(folder, lock) and definitions.load(name) is None:
        statedir.remove(folder)


def _hold(name: str, end: float) -> tuple[int, int]:
    """A dispatcher lets go of the lock a moment after its primary."""
    while True:
        try:
            return statedir.hold(name)
        except ControlError:  # noqa: PERF203 (it waits)
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def delete(app: Definition) -> None:
    """Stops it if need be, and forgets it. What its workers printed stays in the log folder.

    Nothing is written: it is a way out of a full disk.
    """
    _end(app)
    end = time.monotonic() + ANSWER
    while not _remove(app.name, end):
        time.sleep(0.01)


def _remove(name: str, end: float) -> bool:
    try:
        with locked(name):
            statedir.remove(statedir.home() / name)
    except ControlError:  # its dispatcher lets go of the lock a moment after its primary
        if time.monotonic() > end:
            raise
        return False
    return True
