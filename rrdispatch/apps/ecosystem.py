"""pm2's ecosystem files: a list of apps, or one. What has no counterpart of ours is noted.

It owns the file's form, names of keys and the environment; ``pm2keys.py`` reads the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rrdispatch.apps import App, AppsFile, Note, checked_name
from rrdispatch.apps.pm2keys import KEYS, Making, text
from rrdispatch.apps.reasons import ALIASES, HARMLESS, REASONS
from rrdispatch.checks import name_of
from rrdispatch.errors import ConfigError
from rrdispatch.files import ConfigFile, Place
from rrdispatch.options import Wrong, nearest
from rrdispatch.settings import OPTIONS

PROFILE = "env_"
# Ours that pm2, which ignores what it does not know, lets pass: "listen": false, for example.
OURS = set(OPTIONS) - {"target", "arguments", *KEYS, *REASONS, *ALIASES}
_BESIDE = ("deploy", "static")  # of apps


@dataclass(frozen=True)
class _Entry:
    """One app as it stands in the file; ``names``: how a key was written."""

    file: ConfigFile
    way: tuple[str, ...]
    said: Mapping[str, Any]
    names: Mapping[str, str]

    def line(self, key: str) -> int | None:
        return self.file.lines.get((*self.way, self.names.get(key, key)))

    def at(self, key: str) -> str:
        line = self.line(key) or self.line("script")
        return f"{self.file.path}: line {line}" if line else str(self.file.path)

    def wrong(self, key: str, wrong: Wrong) -> ConfigError:
        return ConfigError(f"{self.at(key)}: {self.names[key]}: {wrong}", hint=wrong.hint)


def read(file: ConfigFile, profile: str = "") -> AppsFile:
    """Every app of the file, translated; ConfigError for a key that nobody knows."""
    apps: dict[str, App] = {}
    notes = [
        Note(f"{file.line_of(key)}: {key} is not heeded", REASONS[key])
        for key in _BESIDE
        if key in file.table
    ]
    profiles: set[str] = set()
    for entry in map(_named, _entries(file)):
        app, left = _app(entry, profile)
        if app.name in apps:
            raise ConfigError(
                f"{entry.at('name')}: two apps are named {app.name}", hint="name them differently"
            )
        apps[app.name] = app
        notes += left
        profiles |= {key.removeprefix(PROFILE) for key in entry.said if _is_profile(key)}
    shared = ConfigFile(file.path, {})
    return AppsFile(file.path, shared, None, apps, tuple(notes), frozenset(profiles))


def _entries(file: ConfigFile) -> Iterable[_Entry]:
    """A list under ``apps`` (or ``pm2``), or one app."""
    key = next((key for key in ("apps", "pm2") if key in file.table), None)
    if key is None:
        return [_Entry(file, (), {k: v for k, v in file.table.items() if k not in _BESIDE}, {})]
    for other in file.table:
        if other not in (key, *_BESIDE):
            raise _unknown(other, file.line_of(other), (key, *_BESIDE))
    found = file.table[key]
    listed = isinstance(found, list)
    tables = found if listed else [found]
    if not tables or not all(isinstance(each, Mapping) for each in tables):
        what = f"{file.line_of(key)}: {key} is no list of apps"
        raise ConfigError(what, hint='{"apps": [{"name": "web", "script": "server.py"}]}')
    return [
        _Entry(file, (key, str(number)) if listed else (key,), table, {})
        for number, table in enumerate(tables)
    ]


def _named(entry: _Entry) -> _Entry:
    """With all keys by their first names."""
    said: dict[str, Any] = {}
    names: dict[str, str] = {}
    known = {*KEYS, *REASONS, *ALIASES, *OURS} - {*_BESIDE}
    for written, value in entry.said.items():
        key = ALIASES.get(written, written)
        if key not in known and not _is_profile(key):
            raise _unknown(written, entry.at(written), known)
        if value is None:
            continue
        if key in said:
            both = f"{names[key]} and {written} mean the same"
            raise ConfigError(f"{entry.at(written)}: {both}", hint="keep one of them")
        said[key], names[key] = value, written
    return _Entry(entry.file, entry.way, said, names)


def _app(entry: _Entry, profile: str) -> tuple[App, list[Note]]:
    said = entry.said
    if "script" not in said:
        raise ConfigError(f"{entry.at('name')}: an app has no script", hint='"script": "server.py"')
    making = Making(said, entry.file.folder)
    for key in sorted(said, key=lambda key: key == "script"):  # it uses what others checked
        _read(making, entry, key)
    if "instances" not in making.table:
        making.put("instances", "1", "instances (1 if not said)")
    if found := _environment(entry, profile):
        making.put("env", found, "env")
    name = checked_name(said.get("name", name_of(str(said["script"]))), f"{entry.at('name')}: name")
    making.table["name"] = name
    space = said.get("namespace")
    space = None if space is None else checked_name(space, f"{entry.at('namespace')}: namespace")
    places = {
        key: Place(f"{name}: {entry.names.get(theirs, theirs)}", entry.line(theirs))
        for key, theirs in making.came.items()
    }
    config = ConfigFile(entry.file.path, making.table, places=places)
    return App(name, config, space, said.get("autostart") is not False), _notes(entry, making, name)


def _read(making: Making, entry: _Entry, key: str) -> None:
    value = entry.said[key]
    if key in OURS:
        making.put(key, value, key)
        return
    if key not in KEYS:
        if key in REASONS and (key not in HARMLESS or value != HARMLESS[key]):
            making.left[key] = REASONS[key]
        return
    try:
        KEYS[key](making, key, value)
    except Wrong as wrong:
        raise entry.wrong(key, wrong) from None


def _notes(entry: _Entry, making: Making, name: str) -> list[Note]:
    return [
        Note(f"{entry.at(key)}: {name}: {entry.names[key]} is not heeded", reason)
        for key, reason in making.left.items()
    ]


def _is_profile(key: str) -> bool:
    return key.startswith(PROFILE) and key not in OURS


def _environment(entry: _Entry, profile: str) -> dict[str, str]:
    """``port``, ``env``, and ``env_PROFILE`` on top, as texts."""
    found: dict[str, str] = {}
    for key in ("port", "env", PROFILE + profile):
        if key in entry.said and key not in OURS:
            found.update(_variables(entry, key))
    return found


def _variables(entry: _Entry, key: str) -> dict[str, str]:
    value = {"PORT": entry.said[key]} if key == "port" else entry.said[key]
    name = ""
    try:
        if not isinstance(value, Mapping):
            raise Wrong(f"{value!r} is not a table", 'for example {"DEBUG": "1"}')
        found = {}
        for name, each in value.items():
            found[name] = text(each)
    except Wrong as wrong:
        told = f"{name}: {wrong}" if name else str(wrong)
        raise entry.wrong(key, Wrong(told, wrong.hint)) from None
    return found


def _unknown(word: str, where: str, known: Iterable[str]) -> ConfigError:
    near = {"target": "script", "arguments": "args"}.get(word) or nearest(word, known)
    hint = f"did you mean {near!r}?" if near else "docs/configuration.md has the list"
    return ConfigError(f"{where}: there is no key {word!r}", hint=hint)
