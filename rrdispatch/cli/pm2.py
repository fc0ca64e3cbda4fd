"""pm2's names for our options: accepted, not shown. Its bare numbers are milliseconds.

Only what means the same is here; ``docs/pm2.md`` has the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from rrdispatch.apps.reasons import ALIASES, REASONS
from rrdispatch.cli.errors import warn
from rrdispatch.errors import ConfigError
from rrdispatch.options import Wrong, read
from rrdispatch.settings import OPTIONS

F = TypeVar("F", bound=Callable[..., Any])

MILLISECONDS = {
    "kill_timeout": "drain_timeout",
    "listen_timeout": "ready_timeout",
    "restart_delay": "respawn_delay",
    "exp_backoff_restart_delay": "respawn_delay",  # ours doubles by itself
}
SHORT = {"kill_timeout": "-k"}
SAME = {"-n": "name", "--uid": "user", "--gid": "group", "--cron": "cron_restart"}
LEAST_UPTIME = 100.0  # of pm2's, in milliseconds: as seconds nobody means it

# Those of a command line only; the others are in apps/reasons.py.
INSTEAD = {
    "node_args": "rrdispatch start -- node --inspect server.js",
    "port": "--bind, or --env PORT=3000",
    "pid_file": "rrdispatch pid --primary NAME prints it",
    "log_date_format": "--time: always RFC 3339",
    "parallel": "all apps begin at once",
    "silent": "what people are told is on stderr, which can be left out: 2>/dev/null",
}


def pm2_options(function: F) -> F:
    """Hidden options of a command."""
    for name in MILLISECONDS:
        flags = [f"--{name.replace('_', '-')}", *([SHORT[name]] if name in SHORT else [])]
        function = click.option(*flags, f"pm2_{name}", metavar="MS", hidden=True)(function)
    for flag, ours in SAME.items():
        function = click.option(flag, f"pm2_{ours}", hidden=True)(function)
    return click.option("--disable-logs", "pm2_disable_logs", is_flag=True, hidden=True)(function)


def translated(typed: Mapping[str, Any]) -> dict[str, Any]:
    """In our names; what was said in both is said by ours."""
    given = {key: value for key, value in typed.items() if not key.startswith("pm2_")}
    for theirs, ours in MILLISECONDS.items():
        value = typed.get(f"pm2_{theirs}")
        if value is not None and given.get(ours) is None:
            given[ours] = _checked(theirs, ours, f"{value}ms" if _is_bare(value) else value)
    for ours in SAME.values():
        if typed.get(f"pm2_{ours}") is not None and given.get(ours) is None:
            given[ours] = typed[f"pm2_{ours}"]
    if typed.get("pm2_disable_logs") and given.get("log_file") is None:
        given["log_file"] = "/dev/null"
    uptime = given.get("min_uptime")
    if uptime is not None and _is_bare(uptime) and float(uptime) >= LEAST_UPTIME:
        given["min_uptime"] = f"{uptime}ms"
        hint = f"say the unit: {uptime}ms, or {uptime}s"
        warn(f"--min-uptime: {uptime} is taken for milliseconds, as pm2 does", hint)
    return given


def instead(flag: str) -> str | None:
    """What does the work of an option of pm2's that is not here; None for a word of nobody's."""
    key = {"-p": "pid", "-s": "silent"}.get(flag, flag.lstrip("-").removeprefix("no-"))
    key = key.replace("-", "_")
    key = ALIASES.get(key, key)
    return INSTEAD.get(key) or REASONS.get(key)


def _is_bare(value: str) -> bool:
    return value.replace(".", "", 1).isdigit()


def _checked(theirs: str, ours: str, value: str) -> str:
    """An error is told by the name that was typed."""
    try:
        read(OPTIONS[ours], value)
    except Wrong as wrong:
        hint = wrong.hint.replace("a number of seconds", "a number of milliseconds")
        raise ConfigError(f"--{theirs.replace('_', '-')}: {wrong}", hint=hint) from None
    return value
