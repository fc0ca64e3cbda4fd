"""The apps of one file: ``[apps.NAME]`` tables with what they share above them, or pm2's list.

It turns a file into one settings table per app. It reads no value of a setting, and starts nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrdispatch import files
from rrdispatch.checks import check_name
from rrdispatch.errors import ConfigError
from rrdispatch.files import ConfigFile, Place
from rrdispatch.options import Wrong, nearest, no_setting
from rrdispatch.settings import OPTIONS

APPS, NAMESPACE = "apps", "namespace"


@dataclass(frozen=True)
class Note:
    """Something in the file that is read and not heeded."""

    message: str
    hint: str


@dataclass(frozen=True)
class App:
    """One app of a file of several."""

    name: str
    config: ConfigFile
    namespace: str | None = None
    starts: bool = True  # without being named


@dataclass(frozen=True)
class AppsFile:
    """``apps`` is empty if the whole file is one app's."""

    path: Path
    shared: ConfigFile
    namespace: str | None = None
    apps: Mapping[str, App] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    profiles: frozenset[str] = frozenset()  # pm2's env_NAME, without "env_"

    def config(self, name: str = "") -> ConfigFile:
        """The settings of one app; without a name what stands above all of them."""
        return self.app(name).config if name else self.shared

    def app(self, name: str) -> App:
        if name in self.apps:
            return self.apps[name]
        near = nearest(name, self.apps)
        hint = f"did you mean {near}?" if near else f"there are: {', '.join(self.apps)}"
        raise ConfigError(f"{self.path}: there is no app {name!r}", hint=hint)

    def chosen(self, names: Sequence[str]) -> list[App]:
        """Those that are named, all of them checked; without names all that start by themselves."""
        if names:
            return [self.app(name) for name in dict.fromkeys(names)]
        return [app for app in self.apps.values() if app.starts]


def load(path: str | Path | None = None, profile: str = "") -> AppsFile | None:
    """The named file; else what the working directory has, if it has one."""
    file = files.load(Path(path)) if path is not None else files.find(Path.cwd())
    return None if file is None else of(file, profile)


def config(path: str | Path | None, name: str = "", profile: str = "") -> ConfigFile | None:
    """The settings that a file has for one app; see ``load`` and ``AppsFile.config``."""
    found = load(path, profile)
    return None if found is None else found.config(name)


def of(file: ConfigFile, profile: str = "") -> AppsFile:
    """``profile``: which of pm2's env_NAME tables goes on top of env."""
    if not files.is_pm2(file.path):
        return _ours(file)
    from rrdispatch.apps import ecosystem

    found = ecosystem.read(file, profile)
    if profile and profile not in found.profiles:
        near = nearest(profile, found.profiles)
        there = ", ".join(sorted(found.profiles)) or "none"
        hint = f"did you mean {near}?" if near else f"there are: {there}"
        raise ConfigError(f"--env {profile}: {file.path} has no env_{profile}", hint=hint)
    return found


def _ours(file: ConfigFile) -> AppsFile:
    _check_keys(file, [*OPTIONS, NAMESPACE, APPS])
    table = dict(file.table)
    namespace = _namespace(table.pop(NAMESPACE, None), file)
    if APPS not in table:
        return AppsFile(file.path, dataclasses.replace(file, table=table), namespace)
    tables = table.pop(APPS)
    shared = dataclasses.replace(file, table=table)
    where = file.line_of(APPS)
    if not isinstance(tables, Mapping) or not all(isinstance(t, Mapping) for t in tables.values()):
        raise ConfigError(f"{where}: apps holds a table per app", hint="write [apps.web]")
    if not tables:
        raise ConfigError(f"{where}: apps is empty", hint="write [apps.web]")
    if "name" in table:
        raise ConfigError(
            f"{file.line_of('name')}: name stands above several apps",
            hint="the name of an app is that of its table: [apps.NAME]",
        )
    apps = {name: _app(name, each, shared, namespace) for name, each in tables.items()}
    return AppsFile(file.path, shared, namespace, apps)


def _app(name: str, table: Mapping[str, Any], file: ConfigFile, namespace: str | None) -> App:
    """With what is shared, but for what it says itself; ``env`` is put together of both."""
    own = {key.replace("-", "_"): key for key in table}
    places = {
        key: Place(f"{APPS}.{name}.{written}", file.lines.get((APPS, name, written)))
        for key, written in own.items()
    }
    here = ConfigFile(file.path, table, places={**_dashed(places), **places})
    line = file.lines.get((APPS, name))
    checked_name(name, f"{file.path.name}: {f'line {line}: ' if line else ''}{APPS}")
    _check_keys(here, [*OPTIONS, NAMESPACE])
    if "name" in own:
        raise ConfigError(
            f"{here.at('name')}: the name of an app is that of its table",
            hint=f"[apps.{table['name']}]",
        )
    shared = {key: value for key, value in file.table.items() if key.replace("-", "_") not in own}
    merged = {**shared, **table, "name": name}
    if isinstance(table.get("env"), Mapping) and isinstance(file.table.get("env"), Mapping):
        merged["env"] = {**file.table["env"], **table["env"]}
    said = merged.pop(NAMESPACE, None)
    whole = ConfigFile(file.path, merged, file.lines, here.places)
    return App(name, whole, _namespace(said, here) or namespace)


def _dashed(places: Mapping[str, Place]) -> dict[str, Place]:
    """A key may be written either way."""
    return {key.replace("_", "-"): place for key, place in places.items()}


def _check_keys(file: ConfigFile, known: Sequence[str]) -> None:
    for written, value in file.table.items():
        if written.replace("-", "_") not in known:
            raise no_setting(written, value, known, file.line_of(written))


def checked_name(value: object, where: str) -> str:
    """An app's or a namespace's name."""
    try:
        if not isinstance(value, str):
            raise Wrong(f"{value!r} is not a text", "write it in quotes")
        return check_name(value)
    except Wrong as wrong:
        raise ConfigError(f"{where}: {wrong}", hint=wrong.hint) from None


def _namespace(value: object, file: ConfigFile) -> str | None:
    return None if value is None else checked_name(value, file.at(NAMESPACE))
