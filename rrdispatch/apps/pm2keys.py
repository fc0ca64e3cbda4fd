"""Each of pm2's keys in our names and units: ``KEYS`` is the whole of it.

Bare numbers of theirs are milliseconds. A function says ``Wrong`` for a value that fits neither.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrdispatch.options import Wrong
from rrdispatch.settings import OPTIONS

_NODE = (".js", ".cjs", ".mjs")
_LONGEST = 1e12


@dataclass
class Making:
    """One app on its way: ``said`` in their words, ``table`` in ours."""

    said: Mapping[str, Any]
    folder: Path
    table: dict[str, Any] = field(default_factory=dict)
    came: dict[str, str] = field(default_factory=dict)  # of which of their keys
    left: dict[str, str] = field(default_factory=dict)  # what is not heeded, and why

    def put(self, key: str, value: object, theirs: str) -> None:
        if key in OPTIONS:
            self.table[key], self.came[key] = value, theirs
        else:
            self.left[theirs] = "not supported yet"


Put = Callable[[Making, str, Any], None]


def text(value: object) -> str:
    """As JavaScript would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value)
    raise Wrong(f"{value!r} is not a text", "write it in quotes")


def words(value: object) -> list[str]:
    """A list, or one text as a shell would split it."""
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise Wrong(f"{value!r}: {error}", "close the quote, or write a list") from None
    if isinstance(value, list) and all(isinstance(each, str | int | float) for each in value):
        return [text(each) for each in value]
    raise Wrong(f"{value!r} is no list of words", 'for example ["--port", "8000"]')


def flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise Wrong(f"{value!r} is neither true nor false", "true or false")


def milliseconds(value: object) -> str:
    """As one of our durations."""
    if isinstance(value, str) and not value.strip().isdigit():
        return value  # with a unit, or refused by whoever reads it
    number = float(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise Wrong(f"{value!r} is not a duration", "a number of milliseconds")
    if not 0 <= number < _LONGEST:
        raise Wrong(f"{value!r} is not a duration", "a number of milliseconds")
    return f"{number / 1000:.6f}s"


def _same(ours: str, read: Callable[[Any], Any] = lambda value: value) -> Put:
    def put(making: Making, theirs: str, value: Any) -> None:
        making.put(ours, read(value), theirs)

    return put


def _script(making: Making, theirs: str, value: Any) -> None:
    """Arguments for the interpreter, which ours does not take: as one command."""
    if not isinstance(value, str) or not value:
        raise Wrong(f"{value!r} is not a text", "a script's path, or a command")
    command = [value]
    if any(map(str.isspace, value)) and not _is_there(making, value):
        command = words(value)
    command += words(making.said.get("args", []))
    interpreter = making.said.get("interpreter")
    if interpreter == "none":
        interpreter = None
    before = words(making.said.get("node_args", []))
    if before and interpreter is None and Path(command[0]).suffix in _NODE:
        interpreter = "node"
    if before and isinstance(interpreter, str):
        command = [interpreter, *before, *command]
    elif before:
        making.left["node_args"] = "name the interpreter that they are for"
    elif interpreter is not None:
        making.put("interpreter", interpreter, "interpreter")
    making.put("target", command[0], theirs)
    if command[1:]:
        making.put("arguments", command[1:], "args" if "args" in making.said else theirs)


def _is_there(making: Making, script: str) -> bool:
    return os.path.exists(making.folder / str(making.said.get("cwd", "")) / script)


def _elsewhere(check: Callable[[Any], object] = lambda value: value) -> Put:
    """Read together with another key."""

    def put(_making: Making, _theirs: str, value: Any) -> None:
        check(value)

    return put


def _instances(making: Making, theirs: str, value: Any) -> None:
    """0 is max, as in their -i 0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    zero = not isinstance(value, bool) and str(value).strip() == "0"
    making.put("instances", "max" if zero else value, theirs)


def _mode(making: Making, theirs: str, value: Any) -> None:
    if value not in ("cluster", "cluster_mode", "fork", "fork_mode"):
        raise Wrong(f"{value!r} is no mode", "cluster or fork")
    many = str(making.said.get("instances", 1)) not in ("1", "1.0")
    if value.startswith("fork") and many:
        why = "several instances share what they listen on, as in cluster mode"
        making.left[theirs] = why


def _max_restarts(making: Making, theirs: str, value: Any) -> None:
    """Their 0: errored at the first death; ours: never given up."""
    making.put("max_restarts", 1 if value == 0 and value is not False else value, theirs)


def _backoff(making: Making, theirs: str, value: Any) -> None:
    if "restart_delay" in making.said:
        making.left[theirs] = "restart_delay is said, too"
    else:
        making.put("respawn_delay", milliseconds(value), theirs)


def _codes(value: Any) -> list[str]:
    return [text(each) for each in (value if isinstance(value, list) else [value])]


def _watch(making: Making, theirs: str, value: Any) -> None:
    making.put("watch", value if isinstance(value, bool) else True, theirs)
    if not isinstance(value, bool):
        making.put("watch_paths", [value] if isinstance(value, str) else value, theirs)


def _log(ours: str) -> Put:
    """Their NULL is no file; true is the default."""

    def put(making: Making, theirs: str, value: Any) -> None:
        if value is not True:
            nowhere = value is False or value == "NULL"
            making.put(ours, "/dev/null" if nowhere else value, theirs)

    return put


def _no_logs(making: Making, theirs: str, value: Any) -> None:
    if flag(value):
        making.put("log_file", "/dev/null", theirs)


def _stamp(making: Making, theirs: str, value: Any) -> None:
    if value is False or value == "":
        return
    making.put("log_time", True, theirs)
    if theirs == "log_date_format":
        making.left[theirs] = "there is a time before each line, in a form of its own"


KEYS: Mapping[str, Put] = {
    "script": _script,
    "args": _elsewhere(words),
    "node_args": _elsewhere(words),
    "interpreter": _elsewhere(),
    "name": _elsewhere(),
    "namespace": _elsewhere(),
    "env": _elsewhere(),
    "port": _elsewhere(),
    "autostart": _elsewhere(flag),
    "cwd": _same("cwd"),
    "instances": _instances,
    "exec_mode": _mode,
    "uid": _same("user", text),
    "gid": _same("group", text),
    "listen_timeout": _same("ready_timeout", milliseconds),
    "kill_timeout": _same("drain_timeout", milliseconds),
    "restart_delay": _same("respawn_delay", milliseconds),
    "min_uptime": _same("min_uptime", milliseconds),
    "exp_backoff_restart_delay": _backoff,
    "max_restarts": _max_restarts,
    "max_memory_restart": _same("max_memory_restart"),
    "autorestart": _same("autorestart"),
    "stop_exit_codes": _same("stop_exit_codes", _codes),
    "cron_restart": _same("cron_restart"),
    "watch": _watch,
    "ignore_watch": _same(
        "ignore_watch", lambda value: [value] if isinstance(value, str) else value
    ),
    "out_file": _log("out_file"),
    "error_file": _log("error_file"),
    "log_file": _log("log_file"),
    "disable_logs": _no_logs,
    "merge_logs": _same("merge_logs"),
    "log_type": _same("log_type"),
    "log_date_format": _stamp,
    "time": _stamp,
}
