"""A reload at given hours (``--cron-restart``): when the next one is, and the wait for it.

As cron(8) does with clocks: local time; an hour that summer time skips is made up for at once, one
that comes twice counts once; a clock set by less than three hours neither repeats nor drops a
reload; one set by more is believed, and nothing is made up for.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any

from rrdispatch.errors import ConfigError, MissingExtraError

LOOK = 30.0  # seconds between two looks at the clock, at most: it may be set
BELIEVED = 3 * 3600.0
_WORDS = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def require(expression: str | None, source: str = "cron_restart") -> None:
    """MissingExtraError where no expression can be read, ConfigError if this one is wrong."""
    if expression is None:
        return
    if importlib.util.find_spec("cronsim") is None:
        raise MissingExtraError(
            f"{source} needs cronsim, which is not installed for {sys.executable}",
            hint="pip install 'rrdispatch[cron]'",
        )
    try:
        following(expression, 0.0, timezone.utc)
    except ValueError as error:
        raise ConfigError(
            f"{source}: {expression!r} is no time that ever comes: {error}",
            hint="minute hour day month weekday, as in crontab(5): '0 3 * * *' is at three, daily",
        ) from None


def following(expression: str, now: float, zone: tzinfo) -> float:
    """The first of its times after ``now``; ValueError if there is none, or it is none."""
    from cronsim import CronSim, CronSimError

    begin = (_EPOCH + timedelta(seconds=now)).astimezone(zone)
    try:
        return float(next(CronSim(_WORDS.get(expression, expression), begin)).timestamp())
    except CronSimError as error:
        raise ValueError(str(error)) from None
    except StopIteration:
        raise ValueError("not within fifty years") from None


def local_zone(environ: Mapping[str, str], root: Path = Path("/")) -> tzinfo:
    """With its rules for summer time, where those can be found."""
    from zoneinfo import ZoneInfo

    name = environ.get("TZ", "").removeprefix(":")
    try:
        if name:
            return ZoneInfo(name)
        with open(root / "etc/localtime", "rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError, KeyError):
        offset = time.localtime().tm_gmtoff if name else 0
        return timezone(timedelta(seconds=offset))


class Schedule:
    """The times of one expression, over whatever the clock does."""

    def __init__(self, expression: str, now: float, zone: tzinfo) -> None:
        self._expression = expression
        self._zone = zone
        self._seen = now
        self.next = following(expression, now, zone)

    def is_due(self, now: float) -> bool:
        """Whether one of them came since the last look; several count as one."""
        jumped = abs(now - self._seen) > BELIEVED
        self._seen = now
        due = now >= self.next and not jumped
        if due or jumped:
            self.next = following(self._expression, now, self._zone)
        return due


class Cron:
    """Calls ``then`` at each of the times, as long as the service runs."""

    def __init__(
        self, expression: str, then: Callable[[], Any], wall: Callable[[], float] = time.time
    ) -> None:
        self._wall = wall
        self._then = then
        self._loop = asyncio.get_running_loop()
        self._schedule = Schedule(expression, wall(), local_zone(os.environ))
        self._wait()

    def _wait(self) -> None:
        left = self._schedule.next - self._wall()
        self._timer = self._loop.call_later(min(LOOK, max(0.01, left)), self._look)

    def _look(self) -> None:
        due = self._schedule.is_due(self._wall())
        self._wait()
        if due:
            self._then()

    def close(self) -> None:
        self._timer.cancel()
