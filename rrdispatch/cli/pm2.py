"""pm2's names for our options: accepted, not shown. Its bare numbers are milliseconds.

Only what means the same is here; ``docs/commands.md`` has the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

MILLISECONDS = {
    "kill_timeout": "drain_timeout",
    "listen_timeout": "ready_timeout",
    "restart_delay": "respawn_delay",
}

SAME = {"-n": "name", "--uid": "user", "--gid": "group", "--cron": "cron_restart"}


def pm2_options(function: F) -> F:
    """Hidden options of a command."""
    for name in MILLISECONDS:
        function = click.option(
            f"--{name.replace('_', '-')}", f"pm2_{name}", metavar="MS", hidden=True
        )(function)
    for flag, ours in SAME.items():
        function = click.option(flag, f"pm2_{ours}", hidden=True)(function)
    return function


def translated(typed: Mapping[str, Any]) -> dict[str, Any]:
    """In our names; what was said in both is said by ours."""
    given = {key: value for key, value in typed.items() if not key.startswith("pm2_")}
    for theirs, ours in MILLISECONDS.items():
        value = typed.get(f"pm2_{theirs}")
        if value is not None and given.get(ours) is None:
            given[ours] = f"{value}ms" if value.isdigit() else value
    for ours in SAME.values():
        if typed.get(f"pm2_{ours}") is not None and given.get(ours) is None:
            given[ours] = typed[f"pm2_{ours}"]
    return given
