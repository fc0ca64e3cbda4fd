"""What is known of an app whether it runs or not: one JSON file in its folder, written atomically.

Owns the file's format and the ids. Whoever writes holds the app's lock. It must not know how an app
is started.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrdispatch.control import kept, statedir
from rrdispatch.errors import ConfigError, ControlError

FORMAT = 1
FILE, IDS = "app.json", ".ids"
MOST = 8 << 20  # bytes; an environment has 2 MiB at the most (execve(2))
WAIT = 30.0  # for others who give out an id: their disk may be busy
RUN, STOP = "run", "stop"


@dataclass(slots=True)
class Definition:
    """One app: what was typed, from where, and what became of it."""

    name: str
    id: int = -1
    namespace: str = "default"
    typed: dict[str, Any] = field(default_factory=dict)  # options and target, as settings read them
    config: str | None = None
    section: str = ""  # which app of ``config``, if that has several
    profile: str = ""  # which env_NAME of pm2's
    cwd: str = "/"
    environ: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  # what it came to at the last start
    wanted: str = STOP
    started: float = 0.0  # wall clock; 0: never
    ended: float = 0.0  # 0: it runs, or was killed
    error: dict[str, str] | None = None  # what ended it, if nobody asked for its end
    restarts: int = 0  # until it ended
    ends: list[dict[str, Any]] = field(default_factory=list)  # its workers', unwanted ones
    version: str = ""  # of rrdispatch that wrote this
    before: dict[str, Any] | None = None  # the app as it was, until this start has served
    spoilt: str = ""  # its file could not be read, this is the one before; never saved

    @property
    def target(self) -> str:
        return str(self.settings.get("target") or self.typed.get("target") or "")

    @property
    def instances(self) -> str:
        return str(self.settings.get("instances", ""))


def load(name: str, base: Path | None = None) -> Definition | None:
    """None if there is none; ControlError for one that cannot be used."""
    path = (statedir.home() if base is None else base) / name / FILE
    try:
        found = kept.read(path, lambda told: _read(told, name))
    except ControlError as error:
        error.hint = error.hint or f"delete it: rrdispatch delete {name}"
        raise
    if found is None:
        return None
    found[0].spoilt = found[1]
    return found[0]


def _read(told: Any, name: str) -> Definition:
    if not isinstance(told, dict) or told.pop("format", None) != FORMAT:
        raise ValueError(f"not of format {FORMAT}")
    return made(told, name)


def made(told: Mapping[str, Any], name: str) -> Definition:
    """Of plain data; ValueError for what is none."""
    known = {item.name: item for item in dataclasses.fields(Definition)}
    values = {key: value for key, value in told.items() if key in known}
    found = Definition(**{**values, "name": name})
    for key, kind in _KINDS.items():
        if not isinstance(getattr(found, key), kind):
            raise ValueError(f"{key} is {getattr(found, key)!r}")
    return found


_KINDS: Mapping[str, Any] = {
    "id": int, "namespace": str, "typed": dict, "config": str | None, "section": str,
    "profile": str, "cwd": str, "environ": dict, "settings": dict, "wanted": str,
    "started": int | float, "ended": int | float, "error": dict | None, "version": str,
    "restarts": int, "ends": list, "before": dict | None, "spoilt": str,
}  # fmt: skip


def save(definition: Definition, base: Path | None = None) -> None:
    """By whoever holds the app's lock: the whole file or, whatever happens, the one before."""
    folder = (statedir.home() if base is None else base) / definition.name
    told = {"format": FORMAT, **dataclasses.asdict(definition)}
    del told["spoilt"]
    try:
        kept.write(folder / FILE, told)
    except OSError as error:
        raise ControlError(
            f"the definition of {definition.name} cannot be saved: {error.strerror}",
            hint=f"make room for, or permit, {folder / FILE}",
        ) from error
    definition.spoilt = ""


def all_of(base: Path | None = None) -> list[Definition]:
    """Every app's, by id; one that is half written by nobody of ours is as good as none."""
    found = []
    for name in statedir.names(base):
        try:
            definition = load(name, base)
        except ControlError as error:
            definition = Definition(name, error={"class": "ControlError", "message": error.message})
        if definition is not None:
            found.append(definition)
    return sorted(found, key=lambda definition: (definition.id < 0, definition.id, definition.name))


def give_id(definition: Definition, base: Path | None = None) -> None:
    """The next number, and saves; nobody else gets it."""
    with lock_ids(statedir.home() if base is None else base):
        taken = [other.id for other in all_of(base) if other.name != definition.name]
        if definition.id < 0 or definition.id in taken:
            definition.id = max(taken, default=-1) + 1
        save(definition, base)


@contextlib.contextmanager
def lock_ids(folder: Path) -> Iterator[None]:
    """What is of all apps is one process' at a time."""
    lock = os.open(folder / IDS, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + WAIT
    try:
        while not _locked(lock):
            if time.monotonic() > end:
                raise ControlError("somebody holds the lock of the ids", hint=f"{folder / IDS}")
            time.sleep(0.005)
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise ConfigError(f"the state folder has no locks: {error.strerror}") from error
        return False
    return True
