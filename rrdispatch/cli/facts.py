"""Everything about an app in one dictionary, for ``show``: its row of ``list``, and what only its
primary, its definition and its logs know. Secrets are masked unless they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rrdispatch.cli.secrets import mask, masked_words, masked_words_of
from rrdispatch.cluster.logformat import ERR, Line
from rrdispatch.control import rows, statedir
from rrdispatch.control.ask import ask
from rrdispatch.control.definitions import Definition
from rrdispatch.control.logplaces import logs_of
from rrdispatch.control.logread import last
from rrdispatch.control.selectors import Target
from rrdispatch.errors import ControlError, Error

OF_STATS = ("policy", "dispatcher", "dispatcher_pid", "logger_pid", "slots", "moved", "lost",
            "status_address", "unwritten")  # fmt: skip
TIMEOUTS = (
    "ready_timeout", "drain_timeout", "shutdown_delay", "heartbeat_timeout", "stall_timeout",
    "probation", "min_uptime", "respawn_delay",
)  # fmt: skip
LAST = 5  # lines of stderr


def facts(target: Target, show_secrets: bool) -> dict[str, Any]:
    """Of an app, or of one worker of it."""
    app = target.definition
    row = rows.collect([app])[0]
    if target.slot is not None:
        row["workers"] = [each for each in row["workers"] if each["slot"] == target.slot]
    if not show_secrets:
        row["target"] = masked_words_of(row["target"])
    return {
        **row,
        **_asked(app, show_secrets),
        "settings": _settings(app, show_secrets),
        "timeouts": {key: app.settings[key] for key in TIMEOUTS if key in app.settings},
        "started_at": app.started or None,
        "ended_at": app.ended or None,
        "paths": _paths(app),
        "last_errors": _last_errors(target),
    }


def _asked(app: Definition, show_secrets: bool) -> dict[str, Any]:
    """What only its primary knows; of one that does not run, what a start would use."""
    try:
        stats, launch = ask(app.name, "stats"), ask(app.name, "launch")
    except ControlError:
        cwd = app.settings.get("cwd") or app.cwd
        unknown = dict.fromkeys(("interpreter", "virtualenv", "cores"))
        return {**dict.fromkeys(OF_STATS), **unknown, "slots": [], "ends": app.ends,
                "cwd": cwd, "command": []}  # fmt: skip
    argv = launch["argv"] if show_secrets else masked_words(launch["argv"])
    told = {
        "cwd": launch["cwd"],
        "interpreter": launch["python"],
        "virtualenv": virtualenv(launch["python"]),
        "command": argv,
        "cores": launch.get("cores"),
        "ends": _ends(app),
    }
    return {**{name: stats.get(name) for name in OF_STATS}, **told}


def _ends(app: Definition) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = ask(app.name, "ends")
    except ControlError:
        return []  # of a version that does not remember
    return found


def virtualenv(python: str | None) -> str | None:
    """The one that this interpreter belongs to."""
    folder = os.path.dirname(os.path.dirname(python or ""))
    return folder if os.path.isfile(os.path.join(folder, "pyvenv.cfg")) else None


def _settings(app: Definition, show_secrets: bool) -> dict[str, Any]:
    """Those that are no default."""
    from rrdispatch.settings import DEFAULTS

    usual = DEFAULTS.values()
    found = {k: v for k, v in app.settings.items() if k in usual and v != usual[k]}
    if show_secrets:
        return found
    if isinstance(found.get("env"), dict):
        found["env"] = {key: mask(key, str(value)) for key, value in found["env"].items()}
    return {key: _masked(key, value) for key, value in found.items()}


def _masked(key: str, value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return masked_words(value)
    if key == "target":
        return masked_words_of(value)
    return mask(key, value) if isinstance(value, str) else value


def _paths(app: Definition) -> dict[str, Any]:
    folder = statedir.home() / app.name
    try:
        logs = {stream: path for stream, path in logs_of(app).plan.files.items() if path}
    except Error:
        logs = {}
    return {
        "folder": str(folder),
        "control": str(folder / statedir.CONTROL),
        "primary_log": str(folder / statedir.OUTPUT),
        "logs": logs,
        "config": app.config,
    }


def _last_errors(target: Target) -> list[str]:
    """The last lines of the workers' stderr, as far as it goes into files."""
    slots = None if target.slot is None else frozenset((target.slot,))
    found: list[Line] = []
    try:
        for ref in logs_of(target.definition, slots).refs({ERR}):
            reader = last(ref, lambda line: _wanted(line, slots), LAST)
            try:
                found += [line for line in reader.read() if _wanted(line, slots)][-LAST:]
            finally:
                reader.close()
    except (Error, OSError):
        return []
    found.sort(key=lambda line: line.stamp)
    return [shown(line) for line in found[-LAST:]]


def _wanted(line: Line, slots: frozenset[int] | None) -> bool:
    return line.stream in (ERR, None) and (slots is None or line.slot in slots)


def shown(line: Line) -> str:
    who = "" if line.slot is None else f"{line.slot} | "
    stamp = f"{line.stamp} " if line.stamp else ""
    return stamp + who + line.message.decode(errors="replace")


def shares(slots: list[Mapping[str, Any]]) -> dict[int, float]:
    """Percent of the connections, by slot."""
    total = sum(slot["connections"] for slot in slots)
    return {slot["slot"]: 100 * slot["connections"] / total if total else 0.0 for slot in slots}
