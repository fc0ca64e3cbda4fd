"""Every setting, declared once: command line, environment, files and docs are made from this.

It owns names, defaults, limits and the order of sources: command line, environment, file,
default. It must not know what a setting does, nor start or open anything but the named file.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrdispatch import files
from rrdispatch.checks import (
    MOST_WORKERS,
    check_account,
    check_instances,
    check_name,
    check_signal,
    check_target,
    name_of,
    names_app,
    port,
)
from rrdispatch.errors import ConfigError
from rrdispatch.logsettings import LogSettings
from rrdispatch.options import (
    Kind,
    Option,
    Wrong,
    difference,
    nearest,
    no_setting,
    read,
    setting,
    unknown,
)
from rrdispatch.serversettings import ServerSettings

PREFIX = "RRDISPATCH_"


@dataclass(frozen=True)
class Settings(LogSettings, ServerSettings):
    """One app's settings. ``sources`` says where each value that is no default came from."""

    target: str = setting(
        "", Kind.TEXT, "The app: a module and what to take from it; or a script, a program, a "
        "command line, which listens by itself.",
        begins="What runs", metavar="MODULE:ATTRIBUTE|PROGRAM", check=check_target, app=True,
    )  # fmt: skip
    arguments: tuple[str, ...] = setting(
        (), Kind.LIST, "Arguments of a program; on the command line what follows TARGET.",
        typed=False, own_variable=False,
    )  # fmt: skip
    interpreter: str | None = setting(
        None, Kind.PROGRAM, "Runs a script; else found by its extension or shebang.", optional=True
    )
    name: str | None = setting(
        None, Kind.TEXT, "The app's name in logs and lists; made from the target if not said.",
        optional=True, check=check_name,
    )  # fmt: skip
    interface: str = setting(
        "auto", Kind.TEXT, "What the app is; auto looks at it.",
        choices=("auto", "asgi", "wsgi", "serve"), app=True,
    )  # fmt: skip
    factory: bool = setting(
        False, Kind.SWITCH, "The target is a function that makes the app.", app=True
    )
    python: str | None = setting(
        None, Kind.PROGRAM, "Interpreter of the workers; else the active virtualenv's, else that "
        "of a .venv beside the app, else rrdispatch's own.",
        optional=True,
    )  # fmt: skip
    cwd: str | None = setting(
        None, Kind.PATH, "Working directory of the workers, first on sys.path.", optional=True
    )
    env: dict[str, str] = field(
        default_factory=dict,
        metadata={
            "option": Option(
                Kind.MAPPING, "A variable for the workers. Repeatable; stronger than env_file.",
                metavar="KEY=VALUE", own_variable=False,
            )
        },
    )  # fmt: skip
    env_file: str | None = setting(
        None, Kind.PATH, "A file of KEY=VALUE lines for the workers, read again at each reload.",
        optional=True,
    )  # fmt: skip

    bind: tuple[str, ...] = setting(
        ("127.0.0.1:8000",), Kind.LIST, "Where to listen. Repeatable. PORT in the environment "
        "changes the default's port.",
        begins="Where it listens", flags=("-b",), metavar="HOST:PORT|[V6]:PORT|unix:PATH|fd://N",
    )  # fmt: skip
    take: tuple[str, ...] = setting(
        (), Kind.LIST, "Of what a program listens on: ports or addresses that are distributed; "
        "else every fixed TCP port. Repeatable.", flags=("--listen",), metavar="PORT|HOST:PORT",
    )  # fmt: skip
    listen: bool = setting(
        True, Kind.SWITCH, "Off (--no-listen) for programs that take no connections.", only_off=True
    )
    share_listener: bool = setting(
        False, Kind.SWITCH, "Programs get the sockets themselves (LISTEN_FDS): the kernel's turn."
    )
    backlog: int = setting(
        4096, Kind.INTEGER, "Connections the kernel holds while every worker is full.",
        minimum=1, maximum=65535,
    )  # fmt: skip
    status_bind: str | None = setting(
        None, Kind.TEXT, "A port of its own for /ready (200 while the app serves, else 503), /live "
        "and /metrics.", metavar="HOST:PORT", optional=True,
    )  # fmt: skip

    instances: str = setting(
        "max", Kind.COUNT, "How many workers: a number, max (the cores this process may use), "
        "physical, or -K (K fewer than max).",
        begins="Workers", flags=("-i",), metavar="N|max|physical|-K",
        variables=("WEB_CONCURRENCY",), check=check_instances,
    )  # fmt: skip
    user: str | None = setting(
        None, Kind.TEXT, "The workers run as this user, with its groups: a name or a number. Root "
        "only.", optional=True, check=check_account,
    )  # fmt: skip
    group: str | None = setting(
        None, Kind.TEXT, "The workers' group, instead of their user's. Root only.", optional=True,
        check=check_account,
    )  # fmt: skip
    pin: bool = setting(
        False, Kind.SWITCH, "Each worker stays on a core of its own: physical cores first, then "
        "their hyperthreads; of the cores that this process may use."
    )  # fmt: skip
    policy: str = setting(
        "round-robin", Kind.TEXT, "Whose turn it is. source-hash: each client has its worker.",
        choices=("round-robin", "strict", "least-connections", "source-hash"),
    )  # fmt: skip
    dispatcher: str = setting(
        "auto", Kind.TEXT, "auto: the C one if it was built.", choices=("auto", "c", "python")
    )
    queue_limit: int = setting(
        32, Kind.INTEGER, "Connections that may wait at one worker.", minimum=1, maximum=69
    )
    stall_timeout: float = setting(
        0.01, Kind.DURATION, "A connection that waited so long while another worker is idle is "
        "moved to that one.", minimum=0.001, maximum=3600,
    )  # fmt: skip
    band: int = setting(
        8, Kind.INTEGER, "round-robin passes over a worker with so many more open connections "
        "than the one with the fewest.", minimum=1, maximum=1000000,
    )  # fmt: skip
    connection_batch: int = setting(
        1, Kind.INTEGER, "Connections handed over at once to an app that starts all it takes.",
        minimum=1, maximum=16, app=True,
    )  # fmt: skip

    wait_ready: bool = setting(
        False, Kind.SWITCH, "A worker is ready when the app calls rrdispatch.ready(), or a program "
        "says READY=1 (sd_notify).", begins="Start, stop and respawn", app=True,
    )  # fmt: skip
    ready_timeout: float = setting(
        60.0, Kind.DURATION, "A worker that is not ready by then has failed.", minimum=0.1
    )
    drain_timeout: float = setting(
        25.0, Kind.DURATION, "How long a worker may finish its connections.", minimum=0, app=True
    )
    heartbeat_timeout: float = setting(
        0.0, Kind.DURATION, "A worker that takes nothing for so long while connections wait, or "
        "whose sd_notify WATCHDOG=1 stays away, is killed; 0: never.", minimum=0,
    )  # fmt: skip
    shutdown_delay: float = setting(
        0.0, Kind.DURATION, "At the final stop: serve on for so long, for load balancers that "
        "need to notice.", minimum=0,
    )  # fmt: skip
    stop_signal: str = setting(
        "TERM", Kind.TEXT, "The signal that asks a worker to drain.", check=check_signal, app=True
    )
    max_restarts: int = setting(
        16, Kind.INTEGER, "So many deaths within restart_window and a worker is given up; 0: never "
        "given up.", minimum=0,
    )  # fmt: skip
    restart_window: float = setting(60.0, Kind.DURATION, "See max_restarts.", minimum=0.1)
    respawn_delay: float = setting(
        0.1, Kind.DURATION, "Pause before a dead worker is started again; it doubles for deaths "
        "before ready.", minimum=0,
    )  # fmt: skip
    autorestart: bool = setting(
        True, Kind.SWITCH, "Off: a worker that ends is not replaced; when all have ended, the "
        "service ends."
    )  # fmt: skip
    stop_exit_codes: tuple[int, ...] = setting(
        (), Kind.NUMBERS, "A worker that ends with one of these exit codes is not replaced.",
        minimum=0, maximum=255, metavar="N,N",
    )  # fmt: skip
    min_uptime: float = setting(
        1.0, Kind.DURATION, "Without listening, a worker that lives so long is ready; that of an "
        "app, so long after its import.", minimum=0,
    )  # fmt: skip
    heir: bool = setting(
        False, Kind.SWITCH, "If the primary is killed, its dispatcher starts another one, which "
        "inherits everything."
    )  # fmt: skip
    max_requests: int = setting(
        0, Kind.INTEGER, "A worker is replaced after so many requests; 0: never.",
        minimum=0, app=True,
    )  # fmt: skip
    max_requests_jitter: int = setting(
        0, Kind.INTEGER, "Up to so many more, drawn per worker, so that they differ.", minimum=0
    )

    max_memory_restart: int = setting(
        0, Kind.SIZE, "A worker that takes more memory, with all processes that come from it, is "
        "replaced, its successor first; 0: never.", minimum=0,
    )  # fmt: skip

    batch: int = setting(
        1, Kind.INTEGER, "Workers replaced at a time.", begins="Reload", minimum=1,
        maximum=MOST_WORKERS,
    )  # fmt: skip
    park: bool = setting(
        True, Kind.SWITCH, "Keep the old workers until the new ones have proved themselves."
    )
    stop_first: bool = setting(
        False, Kind.SWITCH, "Stop an old worker before its successor starts (exclusive locks)."
    )
    probation: float = setting(
        3.0, Kind.DURATION, "How long the new workers must live before the old ones drain.",
        minimum=0,
    )  # fmt: skip
    cron_restart: str | None = setting(
        None, Kind.TEXT, "Reload at these times, as in crontab(5): '0 3 * * *' is at three, daily; "
        "local time.", optional=True, metavar="EXPRESSION",
    )  # fmt: skip
    watch: bool = setting(False, Kind.SWITCH, "Reload when a Python file changes (development).")
    ignore_watch: tuple[str, ...] = setting(
        (), Kind.LIST, "Of what is watched: files and folders whose changes do not count, by path, "
        "name or pattern (*.tmp). The app's own log files never do. Repeatable.",
        metavar="PATH|PATTERN",
    )  # fmt: skip
    watch_paths: tuple[str, ...] = setting(
        (), Kind.LIST,
        "Watched instead of the working directory, for files of any kind but logs, pid files, "
        "sockets, databases and what the service itself writes to. Repeatable.",
        flags=("--watch-path",), metavar="PATH",
    )  # fmt: skip

    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_program(self) -> bool:
        """The target listens by itself, if at all."""
        return bool(self.target) and not names_app(self.target)

    @property
    def is_preloaded(self) -> bool:
        """A program into which the shim is loaded, so that it takes from channels."""
        return self.is_program and self.listen and not self.share_listener

    def app(self) -> dict[str, Any]:
        """What the runner inside a worker is told (``RRDISPATCH_APP``)."""
        return {key: getattr(self, key) for key, option in OPTIONS.items() if option.app}

    def values(self) -> dict[str, Any]:
        """All settings as plain data; ``from_values`` of it gives the same settings."""
        values = {key: getattr(self, key) for key in OPTIONS}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


# Base classes' fields come first in a dataclass; in the docs they are last.
_LAST = [item.name for part in (ServerSettings, LogSettings) for item in dataclasses.fields(part)]


def _order(item: dataclasses.Field[Any]) -> int:
    return _LAST.index(item.name) if item.name in _LAST else -1


OPTIONS: Mapping[str, Option] = {
    item.name: item.metadata["option"]
    for item in sorted(dataclasses.fields(Settings), key=_order)
    if "option" in item.metadata
}

DEFAULTS = Settings()


def flag(key: str) -> str:
    return "--" + key.replace("_", "-")


def variables(key: str) -> tuple[str, ...]:
    """The environment variables that set this key, the strongest first."""
    option = OPTIONS[key]
    return ((PREFIX + key.upper(),) if option.own_variable else ()) + option.variables


def from_sources(
    cli: Mapping[str, object],
    environ: Mapping[str, str],
    file: files.ConfigFile | None = None,
    *,
    where: str = "",
) -> Settings:
    """Command line before environment before file before default. A value of None is not said.

    ``where`` names the caller in errors if ``cli`` came from no command line.
    """
    for key in cli:
        if key not in OPTIONS:
            raise unknown("setting", key, OPTIONS, where or "settings")
    table = _table(file) if file else {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for key, option in OPTIONS.items():
        for source, raw, folder in _said(key, cli, environ, where):
            values[key] = _value(option, raw, source, folder)
            sources[key] = source
            break
        else:
            if key in table and file is not None:
                sources[key] = file.source(key)
                values[key] = _value(option, table[key], file.at(key), str(file.folder))
    if "bind" not in values and environ.get("PORT"):
        values["bind"], sources["bind"] = (f"127.0.0.1:{port(environ['PORT'])}",), "PORT"
    if values.get("name") is None:
        values["name"] = name_of(values.get("target", ""), values.get("arguments", ()))
    return Settings(**values, sources=sources)


def misspelt(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that set nothing but look like one that would: name to the right name."""
    known = {variable for key in OPTIONS for variable in variables(key)}
    found: dict[str, str] = {}
    for name in environ:
        near = nearest(name, known) if name.startswith(PREFIX) and name not in known else None
        if near is not None and difference(name, near) <= 1:
            found[name] = near
    return found


def from_values(values: Mapping[str, object], where: str = "Cluster") -> Settings:
    """Settings from one mapping of Python values, checked like all others."""
    return from_sources(values, {}, where=where)


def load_file(path: str | Path | None = None) -> files.ConfigFile | None:
    """The named file; else what the working directory has, if it has one."""
    return files.load(Path(path)) if path is not None else files.find(Path.cwd())


def load_env_file(path: str | Path) -> dict[str, str]:
    """The variables of an env file."""
    return files.load_env(Path(path))


def _said(
    key: str, cli: Mapping[str, object], environ: Mapping[str, str], where: str
) -> Iterator[tuple[str, object, str]]:
    """(source, raw value, folder of its relative paths), the strongest first."""
    if cli.get(key) is not None:
        yield (f"{where}: {key}" if where else _typed(key)), cli[key], str(Path.cwd())
    for variable in variables(key):
        if environ.get(variable) and not _is_the_workers(variable, environ):
            yield variable, environ[variable], str(Path.cwd())


def _typed(key: str) -> str:
    return "TARGET" if key == "target" else flag(key)


def _is_the_workers(variable: str, environ: Mapping[str, str]) -> bool:
    """A worker's own place (docs/protocol.md) is no setting for a primary started inside it."""
    return variable == "RRDISPATCH_NAME" and "RRDISPATCH_PROTOCOL" in environ


def _value(option: Option, raw: object, source: str, folder: str) -> Any:
    try:
        value = read(option, raw)
    except Wrong as wrong:
        raise ConfigError(f"{source}: {wrong}", hint=wrong.hint) from None
    if isinstance(value, str) and (
        option.kind is Kind.PATH or (option.kind is Kind.PROGRAM and "/" in value)
    ):
        return os.path.join(folder, os.path.expanduser(value))  # not resolved: a symlink may move
    return value


def _table(file: files.ConfigFile) -> dict[str, object]:
    """The file's keys as settings are named; refuses unknown ones and those said twice."""
    found: dict[str, object] = {}
    for written, value in file.table.items():
        key, where = written.replace("-", "_"), file.line_of(written)
        if key not in OPTIONS:
            raise no_setting(written, value, OPTIONS, where)
        if key in found:
            raise ConfigError(f"{where}: {key} is said twice", hint="keep one spelling of it")
        found[key] = value
    return found
