"""Which apps a command line means: TARGET, a FILE with apps in it, or the file of this folder.

A FILE is read as if one stood in its folder; paths among the options start from where one is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrdispatch import apps, files
from rrdispatch.apps import App, AppsFile
from rrdispatch.cli.errors import warn
from rrdispatch.errors import ConfigError
from rrdispatch.options import Kind
from rrdispatch.settings import OPTIONS


@dataclass(frozen=True)
class Asked:
    """``chosen`` is None if no file of several apps is meant: ``given`` is of one app then."""

    given: Mapping[str, Any]  # options and TARGET, unless that was a file or an app of it
    config: str | None = None
    folder: str | None = None  # of FILE; None: here
    profile: str = ""
    file: AppsFile | None = None
    chosen: tuple[App, ...] | None = None

    def which(self, app: App | None = None) -> tuple[str, str]:
        """The app's name in the file, and the profile; without one: of the only app meant."""
        if app is None and self.chosen:
            (app,) = self.chosen
        return (app.name if app is not None else ""), self.profile

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """In the folder that relative paths of the file start from."""
        before = os.getcwd()
        try:
            os.chdir(self.folder or before)
            yield
        finally:
            os.chdir(before)


def asked(
    given: Mapping[str, Any], config: str | None, only: str | None, environ: Mapping[str, str]
) -> Asked:
    """Every file is read and every name checked; what is read and not heeded is told."""
    if config == "":
        raise ConfigError("--config: the path is empty", hint="name a file")
    found = _named_file(given, config) or Asked(dict(given), config)
    if found.config is None and not given.get("target") and not environ.get("RRDISPATCH_TARGET"):
        found = _file_of_folder(found)
    found = _with_profile(found)
    file = apps.load(found.config, found.profile)
    for note in file.notes if file is not None else ():
        warn(note.message, note.hint)
    found = dataclasses.replace(found, file=file)
    names = [] if only is None else [name.strip() for name in only.split(",") if name.strip()]
    if file is not None and file.apps:
        return _choose(found, file, names)
    if only is not None:
        where = "there is no file with apps" if file is None else f"{file.path} is of one app"
        raise ConfigError(f"--only {only}: {where}", hint="docs/configuration.md, Several apps")
    return found


def _named_file(given: Mapping[str, Any], config: str | None) -> Asked | None:
    """TARGET is a FILE."""
    target = str(given.get("target") or "")
    if not target or not files.is_file(target):
        return None
    if config is not None:
        raise ConfigError(f"{target} and --config are two files", hint="say one of them")
    if given.get("arguments"):
        raise ConfigError(
            f"{target} is a file of settings: {given['arguments'][0]} is nobody's argument",
            hint='arguments = ["..."] in the file',
        )
    rest = {key: value for key, value in given.items() if key not in ("target", "arguments")}
    path = os.path.abspath(target)
    return Asked(_absolute(rest), path, os.path.dirname(path))


def _absolute(given: Mapping[str, Any]) -> dict[str, Any]:
    """Paths among the options, from here."""
    found = dict(given)
    for key, value in given.items():
        kind = OPTIONS[key].kind
        if kind is Kind.PATH or (kind is Kind.PROGRAM and "/" in value):
            found[key] = os.path.abspath(os.path.expanduser(value))
        elif key == "watch_paths":
            found[key] = tuple(os.path.abspath(path) for path in value)
        elif key == "bind":
            found[key] = tuple(map(_absolute_socket, value))
    return found


def _absolute_socket(bind: str) -> str:
    path = bind.removeprefix("unix:")
    return f"unix:{os.path.abspath(path)}" if path != bind and path[:1] != "@" else bind


def _file_of_folder(found: Asked) -> Asked:
    """Ours is found by whoever loads; pm2's is named."""
    if files.find(Path.cwd()) is None and (path := files.find_pm2(Path.cwd())) is not None:
        return dataclasses.replace(found, config=str(path))
    return found


def _with_profile(found: Asked) -> Asked:
    """pm2's ``--env production`` of a file of its kind."""
    env = tuple(found.given.get("env") or ())
    words = [text for text in env if "=" not in text]
    if len(words) != 1 or found.config is None or not files.is_pm2(Path(found.config)):
        return found
    rest = tuple(text for text in env if "=" in text)
    given = {**found.given, "env": rest}
    if not rest:
        del given["env"]
    return dataclasses.replace(found, given=given, profile=words[0])


def _choose(found: Asked, file: AppsFile, names: Sequence[str]) -> Asked:
    target = str(found.given.get("target") or "")
    if target and not names and target in file.apps and not found.given.get("arguments"):
        names = [target]
    elif target:
        if names:
            raise ConfigError(f"--only and {target}: which of them?", hint="say one of them")
        return found  # what is shared in the file is this one's, too
    if found.given.get("name"):
        raise ConfigError("--name: the apps of a file have names", hint=f"see {file.path}")
    chosen = file.chosen(names)
    for app in file.apps.values():
        if not names and not app.starts:
            warn(f"{app.name} is left out: autostart is false", f"--only {app.name}")
    given = {key: value for key, value in found.given.items() if key != "target"}
    return dataclasses.replace(found, given=given, chosen=tuple(chosen))


def only_one(found: Asked, command: str) -> Asked:
    """For a command that can do only one."""
    if found.chosen is None or len(found.chosen) == 1:
        return found
    assert found.file is not None
    names = [app.name for app in found.chosen] or list(found.file.apps)
    raise ConfigError(
        f"{found.file.path} has {len(names)} apps: {', '.join(names)}",
        hint=f"{command} --only {names[0]}",
    )
